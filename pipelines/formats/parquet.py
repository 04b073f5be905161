"""Parquet columns as keys and arrays: what both pipelines read of such files.

A column of observations is a tensor (fixed-size binary, fixed-size or variable lists of uint8, float32 or float64,
Arrow's fixed-shape tensor) or bytes, whose meaning the reader knows. A bad row gets a reason and the others are taken,
without a copy where Arrow's layout allows.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .. import contract
from ..errors import PipelineError, first_line
from .arrays import finite_rows
from .files import Found

_FLOATS = (pa.float32(), pa.float64())
_KEY_KINDS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_integer, pa.types.is_binary)


@dataclasses.dataclass(frozen=True)
class ParquetLayout:
    """What the footers of some Parquet files say, which all have the columns in question.

    Attributes:
        kinds: The types of those columns, by name.
        groups: How many rows each row group of a file has, by file.
    """

    kinds: dict[str, pa.DataType]
    groups: dict[str, tuple[int, ...]]


def open_columns(path: str, found: Found, names: Callable[[pa.Schema], Sequence[str]]) -> ParquetLayout:
    """The columns of Parquet files that must agree on them.

    Args:
        path: What errors call the files together.
        found: The files.
        names: From a file's schema to the columns that are wanted of it.

    Raises:
        PipelineError: A file is no Parquet, or lacks a column; they disagree; there are no rows.

    Example:
        >>> from tfvae.pipelines.formats.files import find_files
        >>> pq.write_table(pa.table({"key": ["a", "b"]}), "rows.parquet")
        >>> open_columns("rows.parquet", find_files("rows.parquet", (".parquet",)), lambda schema: ["key"]).groups
        {'rows.parquet': (2,)}
    """
    groups: dict[str, tuple[int, ...]] = {}
    kinds: dict[tuple[tuple[str, pa.DataType], ...], str] = {}
    for file in found.files:
        schema, groups[file] = _look(found, file)
        wanted = names(schema)
        missing = [name for name in wanted if name not in schema.names]
        if missing:
            raise PipelineError(f"{found.path(file)} has no column {missing[0]!r}, expected one of {schema.names}")
        kinds.setdefault(tuple((name, narrow(schema.field(name).type)) for name in wanted), file)
    if len(kinds) > 1:
        first, second, *_ = kinds.values()
        raise PipelineError(f"{first} and {second} in {found.root} have columns of different types: take them apart")
    if not any(map(sum, groups.values())):
        raise PipelineError(f"{path} holds no rows")
    return ParquetLayout(dict(next(iter(kinds))), groups)


def narrow(kind: pa.DataType) -> pa.DataType:
    """The type with 32-bit offsets for one with 64, which holds the same values: writers choose either by size.

    Example:
        >>> str(narrow(pa.large_string())), str(narrow(pa.large_list(pa.float32())))
        ('string', 'list<element: float>')
    """
    if pa.types.is_large_list(kind) or pa.types.is_list(kind):  # of elements that may be called otherwise, too
        return pa.list_(narrow(kind.value_type))
    return {pa.large_string(): pa.string(), pa.large_binary(): pa.binary()}.get(kind, kind)


def _look(found: Found, file: str) -> tuple[pa.Schema, tuple[int, ...]]:
    """The columns of a file and the rows of its row groups, from its footer."""
    try:
        with found.open(file) as raw, pq.ParquetFile(raw) as parquet:
            metadata = parquet.metadata
            rows = tuple(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))
            return parquet.schema_arrow, rows
    except (pa.ArrowInvalid, OSError) as error:
        raise PipelineError(f"{found.path(file)} cannot be read as Parquet: {first_line(error)}") from error


def unreadable(path: str, error: Exception) -> PipelineError:
    """What to say of a file that Arrow stops reading: it is broken, or holds what Arrow cannot read."""
    if "Expected all lists to be of size" in str(error):
        return PipelineError(
            f"{path} has null for a list in a column of lists of one length, which Arrow writes and cannot read: "
            "leave those rows out, or write the column as lists of any length (pa.list_ without a size)"
        )
    return PipelineError(f"{path} is truncated or damaged: {first_line(error)}")


def check_columns(
    path: str, columns: ParquetLayout, column: str, key: str | None
) -> tuple[tuple[int, ...] | None, str, str]:
    """What ``describe_column`` says of the column with the observations.

    Raises:
        PipelineError: It holds none, or ``key`` no keys.
    """
    described = describe_column(columns.kinds[column])
    if described is None:
        expected = "lists of uint8 or floats, or binary: name another --column"
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
        keys = [None if key is None else key.decode("utf-8", "backslashreplace") for key in column.to_pylist()]
        intact = [key is None or _is_utf8(key) for key in column.to_pylist()]
        reasons |= {row: "the key is not UTF-8" for row, good in enumerate(intact) if not good}
    for row in np.flatnonzero(column.is_null().to_numpy()) if column.null_count else ():
        reasons[int(row)] = "the key is null"
    return keys


def _is_utf8(key: bytes) -> bool:
    try:
        key.decode()
    except UnicodeDecodeError:
        return False
    return True


def tensors(
    array: pa.Array, shape: tuple[int, ...], dtype: str, reasons: dict[int, str]
) -> tuple[np.ndarray, np.ndarray]:
    """The rows that can be taken, as indices `[M]`, and their observations `[M, *shape]`.

    Args:
        array: Lists of numbers, or bytes.
        shape: An observation's shape.
        dtype: An observation's dtype; ``string`` leaves bytes as they are, objects ``[M]``.
        reasons: Told why the others cannot be taken, unless they have a reason already.

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
    for row in np.flatnonzero(holes := _with_holes(array) & ~bad):
        reasons.setdefault(int(row), "x has values that are null")
    bad |= holes
    good = np.flatnonzero(~bad)
    x = _values(array if len(good) == len(array) else array.take(pa.array(good)), wanted, dtype)
    x = x.reshape(len(good), *shape)
    if x.dtype.kind == "f" and not (finite := finite_rows(x)).all():
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
    whole = _is_binary(array.type) or pa.types.is_floating(array.type.value_type)
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
        if pa.types.is_floating(values.type):
            values = pc.fill_null(values, float("nan"))
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

    ``bytes`` as a dtype says that the signature, or who reads them, decides what they are.

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
        if kind.value_type in _FLOATS:
            return shape, "float32", contract.signature(contract.EMBED, "float32")
    return None
