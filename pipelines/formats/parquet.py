"""Parquet columns as keys and arrays: what both pipelines read of such files.

A column of observations is a tensor (fixed-size binary, fixed-size or variable lists of numbers, Arrow's fixed-shape
tensor) or bytes, whose meaning the reader knows; a struct of ``bytes`` and ``path``, as Hugging Face writes images, is
its bytes. Integers other than uint8 are taken where they are the same number as the wanted dtype. A bad row gets a
reason and the others are taken, without a copy where Arrow's layout allows. Folders called ``NAME=VALUE`` are columns.
"""

import contextlib
import dataclasses
import functools
import io
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .. import contract, storage
from ..errors import PipelineError, first_line
from .arrays import exact_rows, finite_rows
from .files import Found, with_folders
from .text import EMPTY_KEY, apart, key_text

INTEGERS = "integers"  # a dtype that fits uint8 and float32, row by row
_LISTS = "a column of lists is needed: write the table as CSV, or pack its columns into one"
_KEY_KINDS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_integer, pa.types.is_binary)


@dataclasses.dataclass(frozen=True)
class ParquetLayout:
    """What the footers of some Parquet files say, which all have the columns in question.

    Attributes:
        kinds: The types of those columns, by name.
        groups: How many rows each row group of a file has, by file.
        names: Every column that a file has.
    """

    kinds: dict[str, pa.DataType]
    groups: dict[str, tuple[int, ...]]
    names: tuple[str, ...]

    def rows(self, file: str) -> int:
        """How many rows a file has."""
        return sum(self.groups[file])


def open_columns(path: str, found: Found, names: Callable[[pa.Schema], Sequence[str]]) -> ParquetLayout:
    """The columns of Parquet files that must agree on them.

    Args:
        path: What errors call the files together.
        found: The files.
        names: From a file's schema to the columns that are wanted of it.

    Raises:
        PipelineError: A file is no Parquet, or one with rows lacks a column; they disagree; there are no rows.

    Example:
        >>> from tfvae.pipelines.formats.files import find_files
        >>> pq.write_table(pa.table({"key": ["a", "b"]}), "rows.parquet")
        >>> open_columns("rows.parquet", find_files("rows.parquet", (".parquet",)), lambda schema: ["key"]).groups
        {'rows.parquet': (2,)}
    """
    groups: dict[str, tuple[int, ...]] = {}
    kinds: dict[tuple[tuple[str, pa.DataType], ...], str] = {}
    present: dict[str, None] = {}
    looks = storage.map_files(functools.partial(_look, found), found.files, found.are_far)
    for file, (schema, groups[file]) in zip(found.files, looks, strict=True):
        if not any(groups[file]):  # whose columns may have no type: of a night without rows
            continue
        values = _folder_scalars(found, file)
        with_folders(schema.names, found.path(file), values)
        for name, value in values.items():
            schema = schema.append(pa.field(name, value.type))
        present |= dict.fromkeys(schema.names)
        wanted = names(schema)
        for name in wanted:
            if (count := schema.names.count(name)) != 1:
                has = f"{count} columns called {name!r}: rename" if count else f"no column {name!r}, expected"
                more = apart(name, schema.names) or ("" if count else _pack(schema))
                raise PipelineError(f"{found.path(file)} has {has} one of {schema.names}{more}")
        kinds.setdefault(tuple((name, plain_kind(schema.field(name).type)) for name in wanted), file)
    if len(kinds) > 1:
        first, second, *_ = kinds.values()
        raise PipelineError(f"{first} and {second} in {found.root} have columns of different types: take them apart")
    if not any(map(sum, groups.values())):
        raise PipelineError(f"{path} holds no rows")
    return ParquetLayout(dict(next(iter(kinds))), groups, tuple(present))


def _pack(schema: pa.Schema) -> str:
    """What to do with a table whose columns hold a number each, for the end of a sentence; nothing for another."""
    kinds = [plain_kind(field.type) for field in schema]
    return f": {_LISTS}" if any(map(_is_number, kinds)) and not any(map(describe_column, kinds)) else ""


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)


def _folder_scalars(found: Found, file: str) -> dict[str, pa.Scalar]:
    """What the folders of a file say, a null of the type that other files' folders say."""
    values = {name: pa.scalar(value) for name, value in found.folder_values(file).items()}
    for name in [name for name, value in values.items() if not value.is_valid]:
        others = (found.folder_values(other).get(name) for other in found.files)
        values[name] = pa.scalar(None, next((pa.scalar(one).type for one in others if one is not None), pa.string()))
    return values


def narrow(kind: pa.DataType) -> pa.DataType:
    """The type with 32-bit offsets for one with 64, or a view, which holds the same values: writers choose any.

    Example:
        >>> str(narrow(pa.large_string())), narrow(pa.list_view(pa.float32())) == pa.list_(pa.float32())
        ('string', True)
    """
    if (
        pa.types.is_large_list(kind) or pa.types.is_list(kind) or _is_list_view(kind)
    ):  # elements may be called otherwise
        return pa.list_(narrow(kind.value_type))
    texts = dict.fromkeys((pa.large_string(), pa.string_view()), pa.string())
    return (texts | dict.fromkeys((pa.large_binary(), pa.binary_view()), pa.binary())).get(kind, kind)


def _is_list_view(kind: pa.DataType) -> bool:
    return pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind)


def _look(found: Found, file: str) -> tuple[pa.Schema, tuple[int, ...]]:
    """The columns of a file and the rows of its row groups, from its footer."""
    try:
        with found.open(file) as raw, pq.ParquetFile(raw) as parquet:
            metadata = parquet.metadata
            rows = tuple(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))
            return parquet.schema_arrow, rows
    except (pa.ArrowInvalid, OSError) as error:
        raise PipelineError(f"{found.path(file)} cannot be read as Parquet: {first_line(error)}") from error


def plain_kind(kind: pa.DataType) -> pa.DataType:
    """The type of the values, however they are stored: a dictionary's, large text as text, a picture's bytes.

    Example:
        >>> plain_kind(pa.dictionary(pa.int32(), pa.large_string()))
        DataType(string)
    """
    if isinstance(kind, pa.DictionaryType):
        return plain_kind(kind.value_type)
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        inner = plain_kind(kind.field("bytes").type)
        return inner if pa.types.is_binary(inner) else kind
    return narrow(kind)


@dataclasses.dataclass(frozen=True)
class Reader:
    """An open Parquet file, of which some columns are read."""

    parquet: pq.ParquetFile
    columns: dict[str, str]  # from names to the leaf or column of the file
    folder_values: dict[str, pa.Scalar]

    def pieces(self, step: int, groups: Sequence[int]) -> Iterator[pa.Table]:
        """The rows of some row groups by the names of the columns, at most ``step`` at a time."""
        if not self.columns:  # there is only their number
            for group in groups:
                rows = self.parquet.metadata.row_group(group).num_rows
                for start in range(0, rows, step):
                    yield self._with_folders(pa.table({"": pa.nulls(min(step, rows - start))}))
            return
        for batch in self.parquet.iter_batches(step, groups, list(self.columns.values())):
            columns = {name: _plain(batch.column(name)) for name in self.columns}
            yield self._with_folders(pa.table(columns))

    def _with_folders(self, table: pa.Table) -> pa.Table:
        for name, value in self.folder_values.items():
            table = table.append_column(name, pa.repeat(value, len(table)))
        return table


@contextlib.contextmanager
def open_reader(found: Found, file: str, columns: Sequence[str], encoded: Sequence[str] = ()) -> Iterator[Reader]:
    """A file, whose columns are read; those ``encoded`` stay references to their dictionary.

    Raises:
        PipelineError: It is truncated or damaged, then or while it is read.
    """
    values = {name: value for name, value in _folder_scalars(found, file).items() if name in columns}
    try:
        with found.open(file) as raw:
            metadata = pq.read_metadata(raw)
            schema = metadata.schema.to_arrow_schema()
            own = {name: _leaf(schema.field(name)) for name in columns if name not in values}
            metadata = _as_any_length(metadata, schema, list(own))
            dictionaries = [own[name] for name in encoded]
            yield Reader(pq.ParquetFile(raw, metadata=metadata, read_dictionary=dictionaries), own, values)
    except (pa.ArrowException, OSError) as error:
        raise PipelineError(f"{found.path(file)} is truncated or damaged: {first_line(error)}") from error


def _leaf(field: pa.Field) -> str:
    return f"{field.name}.bytes" if _is_picture(field.type) else field.name


def _plain(column: pa.Array) -> pa.Array:
    """The bytes of a struct, and what a view is of: few of Arrow's functions take views."""
    column = pc.struct_field(column, "bytes") if _is_picture(column.type) else column
    if _is_list_view(column.type):  # Arrow gives a list with offsets of the same width one offset too few
        wide = pa.types.is_list_view(column.type)
        return column.cast((pa.large_list if wide else pa.list_)(column.type.value_type))
    return column.cast(narrow(column.type)) if column.type in (pa.string_view(), pa.binary_view()) else column


def _is_picture(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind) and not pa.types.is_struct(plain_kind(kind))


def _as_any_length(metadata: pq.FileMetaData, schema: pa.Schema, columns: Sequence[str]) -> pq.FileMetaData:
    """The footer with lists of one length as lists of any, where some may be null: Arrow cannot read those."""
    if not any(_may_be_null(metadata, name) for name in columns if _is_fixed(schema.field(name).type)):
        return metadata
    footer = io.BytesIO()
    pq.ParquetWriter(footer, schema, store_schema=False).close()
    plain = pq.read_metadata(footer)
    try:
        plain.append_row_groups(metadata)
    except RuntimeError:  # written by another program, in a form of its own
        return metadata
    return plain


def _is_fixed(kind: pa.DataType) -> bool:
    return pa.types.is_fixed_size_list(kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind)


def _may_be_null(metadata: pq.FileMetaData, name: str) -> bool:
    groups = [metadata.row_group(group) for group in range(metadata.num_row_groups)]
    chunks = [group.column(i) for group in groups for i in range(group.num_columns)]
    found = [chunk.statistics for chunk in chunks if chunk.path_in_schema.split(".")[0] == name]
    return any(facts is None or not facts.has_null_count or facts.null_count for facts in found)


def check_columns(
    path: str, columns: ParquetLayout, column: str, key: str | None
) -> tuple[tuple[int, ...] | None, str, str]:
    """What ``describe_column`` says of the column with the observations.

    Raises:
        PipelineError: It holds none, or ``key`` no keys.
    """
    described = describe_column(columns.kinds[column])
    if described is None:
        expected = "lists of numbers, or binary: name another --column"
        expected += f"; {_LISTS}" if _is_number(columns.kinds[column]) else ""
        raise PipelineError(f"column {column!r} of {path} holds {columns.kinds[column]}, expected {expected}")
    if key is not None and not any(is_kind(columns.kinds[key]) for is_kind in _KEY_KINDS):
        kind = columns.kinds[key]
        raise PipelineError(f"column {key!r} of {path} holds {kind}, expected text or integers: name another --key")
    return described


def one_array(column: pa.ChunkedArray) -> pa.Array:
    """The column as one array, an extension type as what stores it."""
    array = column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)
    return array.storage if isinstance(array, pa.ExtensionArray) else array


def text_keys(column: pa.ChunkedArray, reasons: dict[int, str]) -> list[Any]:
    """The keys as text; None, and a reason, where there is none.

    Example:
        >>> reasons = {}
        >>> text_keys(pa.chunked_array([[7, None]]), reasons), reasons
        (['7', None], {1: 'the key is null'})
    """
    try:
        keys = column.cast(pa.string()).to_pylist()
    except pa.ArrowInvalid:  # bytes that are no UTF-8
        texts = [(None, True) if key is None else key_text(key) for key in column.to_pylist()]
        keys = [text for text, _ in texts]
        reasons |= {row: "the key is not UTF-8" for row, (_, intact) in enumerate(texts) if not intact}
    for row in np.flatnonzero(column.is_null().to_numpy()) if column.null_count else ():
        reasons[int(row)] = "the key is null"
    if "" in keys:
        reasons |= {row: EMPTY_KEY for row, key in enumerate(keys) if key == ""}
        keys = [key or None for key in keys]
    return keys


def tensors(
    array: pa.Array, shape: tuple[int, ...], dtype: str, reasons: dict[int, str], missing: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """The rows that can be taken, as indices `[M]`, and their observations `[M, *shape]`.

    Args:
        array: Lists of numbers, or bytes.
        shape: An observation's shape.
        dtype: An observation's dtype; ``string`` leaves bytes as they are, objects ``[M]``.
        reasons: Told why the others cannot be taken, unless they have a reason already.
        missing: Whether values may be null, or NaN, where they are missing, if they are float32 or become it.

    Example:
        >>> reasons = {}
        >>> tensors(pa.array([b"\\1\\2", b"\\3", None]), (2,), "uint8", reasons)[1].tolist()
        [[1, 2]]
        >>> reasons
        {2: 'x is null', 1: 'x has 1 bytes, expected 2 for uint8 [2]'}
    """
    size = int(np.prod(shape))
    wanted = size * np.dtype(dtype).itemsize if _is_binary(array.type) and dtype != "string" else size
    lengths = _lengths(array)
    bad = np.array(array.is_null()) if array.null_count else np.zeros(len(array), bool)
    for row in np.flatnonzero(bad):
        reasons.setdefault(int(row), "x is null")
    if lengths is not None and dtype != "string":
        for row in np.flatnonzero(~bad & (lengths != wanted)):
            what = "bytes" if _is_binary(array.type) else "values"
            reasons.setdefault(int(row), f"x has {lengths[row]} {what}, expected {wanted} for {dtype} {list(shape)}")
        bad |= lengths != wanted
    if not (missing and dtype == "float32"):
        for row in np.flatnonzero(holes := _with_holes(array) & ~bad):
            reasons.setdefault(int(row), "x has values that are null")
        bad |= holes
    good = np.flatnonzero(~bad)
    array = array if len(good) == len(array) else array.take(pa.array(good))
    x = _values(array, wanted, dtype).reshape(len(good), *shape)
    if x.dtype != dtype and dtype != "string":
        same, gone = exact_rows(x, dtype), np.array(array.flatten().is_null()).reshape(x.shape)
        for row, values in zip(good[~same], x[~same], strict=True):
            reasons.setdefault(int(row), f"x has {values.min()} to {values.max()}, of which {dtype} cannot hold all")
        good, x = good[same], x[same].astype(dtype)
        if gone.any():
            x[gone[same]] = np.nan
    if x.dtype.kind == "f" and not (finite := finite_rows(x, missing)).all():
        for row in good[~finite]:
            reasons.setdefault(int(row), "x has values that are not finite")
        good, x = good[finite], x[finite]
    return good, x


def _is_binary(kind: pa.DataType) -> bool:
    return pa.types.is_fixed_size_binary(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _lengths(array: pa.Array) -> np.ndarray | None:
    """The length of each row where rows can differ, -1 for null."""
    if pa.types.is_fixed_size_binary(array.type) or pa.types.is_fixed_size_list(array.type):
        return None
    length = pc.binary_length if _is_binary(array.type) else pc.list_value_length
    return length(array).fill_null(-1).to_numpy(zero_copy_only=False)


def _with_holes(array: pa.Array) -> np.ndarray:
    """Which rows are lists of integers of which some are null, bool `[N]`; a float has a NaN for it."""
    holes = np.zeros(len(array), bool)
    whole = _is_binary(array.type) or not pa.types.is_integer(array.type.value_type)
    if not whole and array.flatten().null_count:
        for row, values in enumerate(array):
            holes[row] = values.is_valid and values.values.null_count > 0
    return holes


def _values(array: pa.Array, length: int, dtype: str) -> np.ndarray:
    """The values of rows of which none is null, without a copy where Arrow's layout allows."""
    if dtype == "string":
        return np.array([*array.to_pylist(), None], object)[:-1]
    if not _is_binary(array.type):
        values = array.flatten()
        if pa.types.is_integer(values.type):  # the caller asks whether each is the same in the dtype, or was null
            return (pc.fill_null(values, 0) if values.null_count else values).to_numpy(zero_copy_only=False)
        if pa.types.is_decimal(values.type):
            values = values.cast(pa.float64())
        if values.null_count:
            values = pc.fill_null(values, np.float16("nan") if pa.types.is_float16(values.type) else float("nan"))
        with np.errstate(over="ignore"):  # a float64 beyond float32 becomes inf, which is rejected
            return values.to_numpy(zero_copy_only=False).astype(dtype, copy=False)
    if not pa.types.is_fixed_size_binary(array.type):
        array = array.cast(pa.binary(length))
    count = len(array) * length
    if count == 0:
        return np.zeros(0, dtype)
    return np.frombuffer(array.buffers()[1], np.uint8, count, array.offset * length).view(dtype)


def describe_column(kind: pa.DataType) -> tuple[tuple[int, ...] | None, str, str] | None:
    """Shape, dtype and default signature of a column of this type; None where it holds no observations.

    ``bytes`` as a dtype says that the signature, or who reads them, decides what they are; ``INTEGERS`` that it
    decides whether they are uint8 or float32.

    Example:
        >>> describe_column(pa.list_(pa.float32(), 20))
        ((20,), 'float32', 'embed')
    """
    if isinstance(kind, pa.FixedShapeTensorType):
        if list(kind.permutation or range(len(kind.shape))) != list(range(len(kind.shape))):
            return None  # its values lie in another order than its axes
        inner = describe_column(kind.storage_type)
        return inner and (tuple(kind.shape), *inner[1:])
    if pa.types.is_fixed_size_binary(kind):
        return (kind.byte_width,), "bytes", contract.signature(contract.EMBED, "uint8")
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return None, "bytes", contract.signature(contract.EMBED, "string")
    if pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind):
        shape = (kind.list_size,) if pa.types.is_fixed_size_list(kind) else None
        if kind.value_type == pa.uint8():
            return shape, "uint8", contract.signature(contract.EMBED, "uint8")
        if pa.types.is_integer(kind.value_type):
            return shape, INTEGERS, contract.signature(contract.EMBED, "float32")
        if pa.types.is_floating(kind.value_type) or pa.types.is_decimal(kind.value_type):
            return shape, "float32", contract.signature(contract.EMBED, "float32")
    return None
