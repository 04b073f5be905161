"""Rows out of ``tf.Example`` records: TensorFlow's own kernels parse a block of them at a time."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from .. import contract
from ..errors import PipelineError, Rejection, first_line
from ..formats.arrays import finite_rows
from ..formats.images import MAGIC
from ..formats.text import key_text
from .base import Block, bisect

_DTYPES = {"bytes_list": "string", "float_list": "float32", "int64_list": "int64"}


@dataclasses.dataclass(frozen=True)
class Features:
    """Which features of a ``tf.Example`` make a row, and the dtype of each.

    Attributes:
        key: Name of the feature with the row's key, one text or one integer; None where rows are numbered.
        x: Name of the feature with the observation: one text of raw values or of an encoded image, or floats.
        keep: Names of the features that the output takes over, one value each.
        dtypes: ``string``, ``float32`` or ``int64``, by name.
    """

    key: str | None
    x: str
    keep: tuple[str, ...]
    dtypes: dict[str, str] = dataclasses.field(hash=False)

    def specification(self, shape: Sequence[int]) -> dict[str, Any]:
        """What ``tf.io.parse_example`` is to look for."""
        import tensorflow as tf

        size = int(np.prod(shape))
        shapes = {self.x: [size]} if self.dtypes[self.x] == "float32" else {}
        return {
            name: tf.io.FixedLenFeature(shapes.get(name, []), dtype)
            for name, dtype in self.dtypes.items()
            if name in (self.key, self.x, *self.keep)
        }


def dtypes_of(record: bytes, name: str, key: str, column: str, keep: Sequence[str]) -> tuple[dict[str, str], int, bool]:
    """What the named features of a first record hold, how many values the observation has, and if it is an image.

    Where the feature with the key is not named by the user, it may be absent: then it has no dtype.

    Raises:
        PipelineError: The record is no ``tf.Example``, or lacks a feature.
    """
    import tensorflow as tf

    try:
        found = tf.train.Example.FromString(record).features.feature
    except Exception as error:  # protobuf's DecodeError has moved between its versions
        raise PipelineError(f"the records of {name} are not tf.Examples: {first_line(error)}") from error
    kinds = {feature: found[feature].WhichOneof("kind") for feature in found}
    dtypes: dict[str, str] = {}
    keyed = key != contract.KEY or kinds.get(key) is not None
    for feature in (*([key] if keyed else []), column, *keep):
        if kinds.get(feature) is None:
            raise PipelineError(f"the first record of {name} has no feature {feature!r}, it has {sorted(kinds)}")
        dtypes[feature] = _DTYPES[kinds[feature]]
    if dtypes.get(key) == "float32":
        raise PipelineError(f"feature {key!r} of {name} holds floats, expected text or an integer: name another --key")
    if dtypes[column] == "int64":
        raise PipelineError(f"feature {column!r} of {name} holds integers, expected bytes or floats")
    value = found[column].bytes_list.value
    is_image = len(value) == 1 and value[0].startswith(MAGIC)
    return dtypes, len(found[column].float_list.value), is_image


def parse(
    file: str,
    first: int,
    serialized: Sequence[bytes],
    features: Features,
    shape: tuple[int, ...],
    dtype: str,
    missing: bool = False,
) -> Block:
    """A block from records of which the first is number ``first`` of ``file``.

    What cannot be parsed, or is not of that shape and dtype (``string`` is an encoded image), is rejected; so is NaN
    where no value may be ``missing``.

    Example:
        >>> from tfvae.pipelines.formats.tfrecords import example
        >>> features = Features("key", "x", (), {"key": "string", "x": "string"})
        >>> block = parse("a.tfrecord", 0, [example("a", b"\\1\\2"), b"junk"], features, (2,), "uint8")
        >>> block.keys, block.x.tolist(), block.rejected[0].key
        (['a'], [[1, 2]], 'a.tfrecord:1')
    """
    import tensorflow as tf

    reasons: dict[int, str] = {}
    with tf.device("CPU"):
        rows, columns = _columns(serialized, features.specification(shape), reasons)
        values = columns[features.key].numpy() if features.key else [f"{file}:{first + row}" for row in rows.tolist()]
        keys = _keys(rows, np.asarray(values), reasons)
        good, x = _observations(rows, columns[features.x], shape, dtype, reasons, missing)
    intact = np.array([int(row) not in reasons for row in good], bool)
    good, x = (good, x) if intact.all() else (good[intact], x[intact])
    names = dict(zip(rows.tolist(), keys, strict=True)) if reasons else {}
    rejected = [Rejection(names.get(i) or f"{file}:{first + i}", file, first + i, reasons[i]) for i in sorted(reasons)]
    kept = {name: columns[name].numpy()[np.searchsorted(rows, good)] for name in features.keep}
    table = pa.table({name: pa.array(values) for name, values in kept.items()}) if kept else None
    return Block(file, [names[row] for row in good.tolist()] if reasons else keys, x, good + first, rejected, table)


def _columns(
    serialized: Sequence[bytes], specification: dict[str, Any], reasons: dict[int, str]
) -> tuple[np.ndarray, dict[str, Any]]:
    """The rows that can be parsed, `[M]`, and their features, `[M, ...]` each; the reasons of the others."""
    import tensorflow as tf

    runs: list[tuple[int, int]] = []
    parsed: list[dict[str, Any]] = []

    def work(rows: Sequence[int]) -> None:
        parsed.append(tf.io.parse_example(list(serialized[rows[0] : rows[-1] + 1]), specification))
        runs.append((rows[0], rows[-1] + 1))

    def reject(row: int, error: Exception) -> None:
        reasons[row] = f"not a tf.Example with the features {sorted(specification)}: {first_line(error)}"

    bisect(range(len(serialized)), work, reject)
    if not parsed:
        nothing = tf.io.parse_example(tf.constant([], tf.string), specification)
        return np.zeros(0, np.int64), nothing
    columns = {name: tf.concat([part[name] for part in parsed], axis=0) for name in specification}
    return np.concatenate([np.arange(*run) for run in runs]), columns


def _keys(rows: np.ndarray, values: np.ndarray, reasons: dict[int, str]) -> list[str]:
    if values.dtype.kind != "O":
        return list(map(str, values.tolist()))
    raw, keys = values.tolist(), []
    try:
        return [key.decode() for key in raw]
    except UnicodeDecodeError:  # of one of them, at least
        for row, key in zip(rows.tolist(), raw, strict=True):
            text, intact = key_text(key)
            keys.append(text)
            if not intact:
                reasons[row] = "the key is not UTF-8"
    return keys


def _observations(
    rows: np.ndarray, column: Any, shape: tuple[int, ...], dtype: str, reasons: dict[int, str], missing: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The rows that can be taken, `[M]`, and their observations, `[M, *shape]`."""
    import tensorflow as tf

    if dtype == "string":
        return rows, column.numpy()
    if column.dtype == tf.string:
        expected = int(np.prod(shape)) * np.dtype(dtype).itemsize
        lengths = tf.strings.length(column).numpy()
        right = lengths == expected
        for row, length in zip(rows[~right].tolist(), lengths[~right], strict=True):
            reasons.setdefault(row, f"x has {length} bytes, expected {expected} for {dtype} {list(shape)}")
        column = tf.io.decode_raw(column if right.all() else tf.boolean_mask(column, right), dtype)
        rows = rows[right]
    x = column.numpy().reshape(len(rows), *shape)
    if x.dtype.kind == "f" and not (finite := finite_rows(x, missing)).all():
        for row in rows[~finite].tolist():
            reasons.setdefault(row, "x has values that are not finite")
    return rows, x
