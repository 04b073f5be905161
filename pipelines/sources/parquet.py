"""Parquet files: a key, an observation and a label, each a column."""

import collections
import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .. import contract
from ..errors import PipelineError, RowError
from ..formats.arrays import grey
from ..formats.files import Found, find_files, root_of
from ..formats.images import image_shape, pixels
from ..formats.parquet import (
    INTEGERS,
    Reader,
    check_columns,
    describe_column,
    one_array,
    open_columns,
    open_reader,
    plain_kind,
    tensors,
    text_keys,
)
from .base import Batch, Source
from .plan import Plan, Schema, describe
from .table_rows import Classes, ClassIndex, TableRows, raw_layout

_READ_BYTES = 16 << 20  # of observations that are decoded at once
_MAX_IMAGE_CHUNK = 1 << 30  # of encoded images in one row group, all of which Arrow holds
_LABEL_KINDS = (
    pa.types.is_integer,
    pa.types.is_string,
    pa.types.is_boolean,
    pa.types.is_floating,
)


class _Layout(NamedTuple):
    """What the column of observations holds: a shape, where it is known, of a dtype, or encoded images."""

    shape: tuple[int, ...] | None
    dtype: str
    encoded: bool = False
    integers: bool = False  # that become float32


class Parquet(Source):
    """A Parquet file, a folder of them, or a pattern.

    ``column`` (by default ``x``) holds lists of numbers, fixed-shape tensors, raw bytes (with ``shape``) or encoded PNG
    and JPEG images (binary, without; also as a struct of ``bytes`` and ``path``). Integers other than uint8 become
    float32, or uint8 by ``dtype``, and a row with a number that would change is rejected. ``key`` is text or integers;
    without it the column ``key``, and where there is none, ``FILE:ROW``. ``label`` is integers from 0 up, also as
    floats or booleans, or text; without it the column ``label``, where there is one, or the folders ``label=VALUE``.
    The position of a row is its number in the file.

    Rows lie in a shard by the hashes of their keys, so that each shard takes some from every row group and decodes
    them all: the work grows with the number of shards times the size of the files. Larger shards
    (``rows_per_shard``) make it less.
    """

    takes = ("key", "column", "label", "shape", "dtype", "missing")

    def plan(self) -> Plan:
        """See ``Source.plan``."""
        found = find_files(self.input_path, (".parquet",))
        columns = open_columns(self.input_path, found, self._names)
        key, label = _named(columns.kinds, self.fields.key, contract.KEY), _label(columns.kinds, self.fields.label)
        check_columns(self.input_path, columns, self._column, key)
        layout = self._layout(columns.kinds[self._column])
        wanted = [name for name in (key, label, self._column if layout.shape is None else None) if name]
        rows, classes, shapes = TableRows(), Classes(), collections.Counter[tuple[int, ...]]()
        for file in filter(columns.rows, found.files):
            for first, table in self._read(found, file, wanted, layout):
                reasons: dict[int, str] = {}
                numbers = range(first, first + len(table))
                keys = text_keys(table.column(key), reasons) if key else [f"{file}:{row}" for row in numbers]
                rows.add(file, keys, numbers, reasons)
                if label:
                    classes.add(_classes(table.column(label), label, unique=True))
                if layout.shape is None:
                    shapes.update(self._shapes(one_array(table.column(self._column)), layout))
        if layout.shape is None and not shapes:
            raise PipelineError(f"no row of column {self._column!r} of {self.input_path} can be read")
        shape = layout.shape or shapes.most_common(1)[0][0]
        schema = Schema(shape, layout.dtype, classes.names(self.input_path) if label else None)
        inputs = [describe(found.path(file), found.root) for file in found.files]
        plan = rows.plan(schema, inputs, found.beside(columns.names, (key, label, self._column)))
        return dataclasses.replace(plan, were_integers=layout.integers)

    def read(self, file: str, positions: np.ndarray, schema: Schema) -> Batch:
        """See ``Source.read``: each row group that holds one of the rows is decoded once, piece by piece."""
        found = Found(root_of(self.input_path), (file,))
        columns = open_columns(self.input_path, found, self._names)
        label = _label(columns.kinds, self.fields.label) if schema.labels else None
        layout = self._layout(columns.kinds[self._column])._replace(shape=schema.shape)
        wanted = [name for name in (self._column, label) if name]
        parts: list[Batch] = []
        done = 0
        for first, table in self._read(found, file, wanted, layout, positions):
            end = int(np.searchsorted(positions, first + len(table)))
            if end == done:
                continue
            piece = table.take(pa.array(positions[done:end] - first))
            parts.append(self._batch(piece, label, layout, schema, done))
            done = end
        if done < len(positions):
            raise PipelineError(f"{found.path(file)} has no row {positions[done]}: it has changed")
        return _joined(parts)

    @property
    def _column(self) -> str:
        return self.fields.column or contract.X

    def _names(self, schema: pa.Schema) -> list[str]:
        """The columns that are wanted of a file."""
        kinds = {field.name: plain_kind(field.type) for field in schema}
        names = (self._column, _named(kinds, self.fields.key, contract.KEY), _label(kinds, self.fields.label))
        return [name for name in dict.fromkeys(names) if name]

    def _layout(self, kind: pa.DataType) -> _Layout:
        encoded_or_raw = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
        numbers = not encoded_or_raw and not pa.types.is_fixed_size_binary(kind)
        raw = None if numbers and self.fields.shape is None else raw_layout(self.fields)
        if encoded_or_raw:
            return _Layout(*raw) if raw else _Layout(None, "uint8", encoded=True)
        if pa.types.is_fixed_size_binary(kind):
            if raw is None:
                raise PipelineError(f"column {self._column!r} holds {kind}: say the --shape (and --dtype) of its rows")
            return _fitting(_Layout(*raw), int(np.dtype(raw[1]).itemsize), kind.byte_width, self._column)
        return self._list_layout(kind)

    def _list_layout(self, kind: pa.DataType) -> _Layout:
        own = tuple(kind.shape) if isinstance(kind, pa.FixedShapeTensorType) else None
        values = kind.storage_type if own else kind
        described = describe_column(values)
        integers = described is not None and described[1] == INTEGERS
        dtype = "uint8" if values.value_type == pa.uint8() else "float32"
        if integers and self.fields.dtype == "uint8":
            dtype = "uint8"
        if self.fields.dtype not in (None, dtype, "float32"):
            raise PipelineError(
                f"column {self._column!r} holds {kind}, expected {self.fields.dtype}: leave out --dtype"
            )
        dtype = self.fields.dtype or dtype
        length = values.list_size if pa.types.is_fixed_size_list(values) else None
        shape = self.fields.shape or own or (None if length is None else (length,))
        layout = _Layout(None, dtype, integers=integers and dtype == "float32")
        if shape is None:
            return layout
        return _fitting(layout._replace(shape=grey(shape, dtype)), 1, length, self._column)

    def _shapes(self, array: pa.Array, layout: _Layout) -> Iterator[tuple[int, ...]]:
        """The shapes of the rows that can be read."""
        if not layout.encoded:
            yield from ((length,) for length in pc.list_value_length(array).to_pylist() if length)
            return
        for cell in array:
            try:
                yield image_shape(_image(cell), self.max_pixels)
            except RowError:
                continue

    def _read(
        self,
        found: Found,
        file: str,
        columns: Sequence[str],
        layout: _Layout,
        positions: np.ndarray | None = None,
    ) -> Iterator[tuple[int, pa.Table]]:
        """Pieces of a file and the number of their first row; of all row groups, or those with such positions."""
        encoded = [self._column] if layout.encoded and self._column in columns else []
        size = int(np.prod(layout.shape or (1,))) * np.dtype(layout.dtype).itemsize
        step = max(1, min(1 << 16, _READ_BYTES // size))
        # Encoded images stay references to their dictionary: one large image may stand for a million rows.
        with open_reader(found, file, columns, encoded) as reader:
            first = 0
            for group in range(reader.parquet.num_row_groups):
                rows = reader.parquet.metadata.row_group(group).num_rows
                if positions is None or np.diff(np.searchsorted(positions, [first, first + rows]))[0]:
                    for name in encoded:
                        _check_chunk(reader, group, name, found.path(file))
                    at = first
                    for table in reader.pieces(step, [group]):
                        yield at, table
                        at += len(table)
                first += rows

    def _batch(self, table: pa.Table, label: str | None, layout: _Layout, schema: Schema, offset: int) -> Batch:
        """The rows of a piece; indices count from ``offset``."""
        reasons: dict[int, str] = {}
        classes = np.zeros(len(table), np.int64)
        index = ClassIndex(schema.labels)
        for row, named in enumerate(_classes(table.column(label), label) if label else []):
            try:
                classes[row] = index.of(named)
            except RowError as error:
                reasons[row] = str(error)
        column = one_array(table.column(self._column))
        read = self._images if layout.encoded else functools.partial(tensors, missing=self.missing)
        good, x = read(column, schema.shape, schema.dtype, reasons)
        kept = np.array([row not in reasons for row in good], bool)
        good, x = good[kept], x[kept]
        labels = classes[good] if label else None
        return Batch(good + offset, x, labels, {row + offset: reason for row, reason in reasons.items()})

    def _images(
        self, column: pa.Array, shape: tuple[int, ...], dtype: str, reasons: dict[int, str]
    ) -> tuple[np.ndarray, np.ndarray]:
        """See ``columns.tensors``; the bytes are encoded images."""
        good, images = [], []
        for row, cell in enumerate(column):
            try:
                image = pixels(_image(cell), self.max_pixels)
                if image.shape != shape:
                    raise RowError(f"shape {list(image.shape)}, expected {list(shape)}")
                good.append(row)
                images.append(image)
            except RowError as error:
                reasons.setdefault(row, str(error))
        return np.array(good, np.int64), np.stack(images) if images else np.zeros([0, *shape], dtype)


def _named(kinds: dict[str, Any], name: str | None, default: str) -> str | None:
    """A column by its given name, else by the default one where there is such a column."""
    return name or (default if default in kinds else None)


def _label(kinds: dict[str, pa.DataType], name: str | None) -> str | None:
    """The column of labels, if there is one.

    Raises:
        PipelineError: It is of a type that holds no classes.
    """
    label = _named(kinds, name, contract.LABEL)
    kind = None if label is None else kinds.get(label)
    if kind is not None and not any(is_kind(kind) for is_kind in _LABEL_KINDS):
        raise PipelineError(f"column {label!r} holds {kind}, expected integers or text: name another --label")
    return label


def _classes(column: pa.ChunkedArray, name: str, unique: bool = False) -> list[Any]:
    """Labels as integers or text; booleans are 0 and 1, NaN is null. If ``unique``, each of them once.

    Raises:
        PipelineError: They are numbers that are not whole.
    """
    if pa.types.is_float16(column.type):  # which has no such functions
        column = column.cast(pa.float32())
    column = pc.unique(column) if unique else column
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int64())
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), None, column)
        try:
            column = column.cast(pa.int64())
        except pa.ArrowInvalid as error:
            odd = next(value for value in column.to_pylist() if value is not None and not _is_class(value))
            raise PipelineError(
                f"column {name!r} holds {odd:g}, a number that is no class: name another --label"
            ) from error
    return column.to_pylist()


def _is_class(value: float) -> bool:
    """Whether a number is whole, and an integer of 64 bits."""
    return value.is_integer() and abs(value) < 2**63


def _fitting(layout: _Layout, width: int, length: int | None, column: str) -> _Layout:
    """The layout, where rows of ``length`` values of so many bytes can have it."""
    expected = int(np.prod(layout.shape or ())) * width
    if length is not None and expected != length:
        raise PipelineError(
            f"column {column!r} has {length} {'bytes' if width > 1 else 'values'} a row, "
            f"expected {expected} for {layout.dtype} {list(layout.shape or ())}: change --shape"
        )
    return layout


def _check_chunk(reader: Reader, group: int, name: str, path: str) -> None:
    metadata = reader.parquet.metadata.row_group(group)
    chunks = [metadata.column(i) for i in range(metadata.num_columns)]
    size = sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema == reader.columns[name])
    if size > _MAX_IMAGE_CHUNK:
        raise PipelineError(
            f"row group {group} of {path} unpacks to {size:,} bytes of images, expected at most {_MAX_IMAGE_CHUNK:,}: "
            "write smaller row groups"
        )


def _image(cell: pa.Scalar) -> bytes:
    content = cell.as_py()
    if content is None:
        raise RowError("x is null")
    return content


def _joined(parts: Sequence[Batch]) -> Batch:
    labels = [part.labels for part in parts if part.labels is not None]
    return Batch(
        np.concatenate([part.good for part in parts]),
        np.concatenate([part.x for part in parts]),
        np.concatenate(labels) if labels else None,
        {row: reason for part in parts for row, reason in part.reasons.items()},
    )
