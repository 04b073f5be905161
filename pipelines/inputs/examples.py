"""Rows out of ``tf.Example`` records: TensorFlow's own kernels parse a block of them at a time."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from .. import contract
from ..errors import PipelineError, Rejection
from ..formats.arrays import finite_rows
from ..formats.images import MAGIC
from ..formats.text import EMPTY_KEY, key_text
from ..formats.tfrecords import feature_names, malformed
from ..sources.base import Fields
from ..sources.tfrecord import TfRecord
from .base import Block, bisect

_ENCODED_KEY = b"\n\3" + contract.KEY.encode()  # as protobuf writes the name of an entry of a map
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


def dtypes_of(
    records: Sequence[bytes], name: str, key: str, column: str, keep: Sequence[str]
) -> tuple[bytes, dict[str, str], int, bool]:
    """The first record with the named features, what they hold, how many values the observation has, if it is an image.

    The feature with the key, where the user did not name it, may be absent from all of them: then it has no dtype.

    Raises:
        PipelineError: No record is a ``tf.Example`` with the features, which the error tells of the first.
    """
    import tensorflow as tf

    parsed: list[Any] = []
    for record in records:
        try:
            parsed.append(tf.train.Example.FromString(record).features.feature)
        except Exception as error:  # protobuf's DecodeError has moved between its versions
            parsed.append(error)
    keyed = key != contract.KEY or any(not isinstance(one, Exception) and _kind(one, key) for one in parsed)
    wanted = (*([key] if keyed else []), column, *keep)
    refused: PipelineError | None = None
    for record, found in zip(records, parsed, strict=True):
        try:
            dtypes = _dtypes(found, name, key, column, wanted)
        except PipelineError as error:
            refused = refused or error
            continue
        value = found[column].bytes_list.value
        is_image = len(value) == 1 and value[0].startswith(MAGIC)
        return record, dtypes, len(found[column].float_list.value), is_image
    raise refused or PipelineError(f"{name} holds no rows")


def _kind(features: Any, name: str) -> str | None:
    return features[name].WhichOneof("kind") if name in features else None


def _dtypes(found: Any, name: str, key: str, column: str, wanted: Sequence[str]) -> dict[str, str]:
    """What the features of a record hold.

    Raises:
        PipelineError: It lacks one, or one holds what it cannot.
    """
    if isinstance(found, Exception):
        raise PipelineError(
            f"the records of {name} are not tf.Examples: write each as tf.train.Example(...).SerializeToString()"
        ) from found
    kinds = {feature: _kind(found, feature) for feature in wanted}
    for feature, kind in kinds.items():
        if kind is None:
            raise PipelineError(f"the first record of {name} has no feature {feature!r}, it has {sorted(found)}")
    dtypes = {feature: _DTYPES[kind] for feature, kind in kinds.items() if kind}
    if dtypes.get(key) == "float32":
        raise PipelineError(f"feature {key!r} of {name} holds floats, expected text or an integer: name another --key")
    if dtypes[column] == "int64":
        raise PipelineError(f"feature {column!r} of {name} holds integers, expected bytes or floats")
    return dtypes


def parse(
    file: str,
    first: int,
    serialized: Sequence[bytes],
    features: Features,
    shape: tuple[int, ...],
    dtype: str,
    missing: bool = False,
    every_feature: bool = False,
) -> Block:
    """A block from records of which the first is number ``first`` of ``file``.

    What cannot be parsed, or is not of that shape and dtype (``string`` is an encoded image), is rejected; so is NaN
    where no value may be ``missing``, and with ``every_feature`` a record with a malformed one that no row is made of:
    TensorFlow does not look at those, ``pipelines.preprocess`` does.

    Example:
        >>> from tfvae.pipelines.formats.tfrecords import example
        >>> features = Features("key", "x", (), {"key": "string", "x": "string"})
        >>> block = parse("a.tfrecord", 0, [example("a", b"\\1\\2"), b"junk"], features, (2,), "uint8")
        >>> block.keys, block.x.tolist(), block.rejected[0].key
        (['a'], [[1, 2]], 'a.tfrecord:1')
    """
    import tensorflow as tf

    reasons: dict[int, str] = {}
    own: dict[int, str] = {}  # keys of records that are bad
    if features.key is None:
        _refuse_keys(serialized, file, first)
    source = TfRecord("tfrecord", file, fields=Fields(key=features.key, column=features.x))

    def why(row: int) -> str:
        key, reason = source.fault(serialized[row], shape, dtype, features.key is not None)
        if key is not None:
            own[row] = key
        return reason

    with tf.device("CPU"):
        rows, columns = _columns(serialized, features.specification(shape), reasons, why)
        odd = {row: why(row) for row in (malformed(serialized) if every_feature else ()) if row not in reasons}
        reasons |= odd
        values = columns[features.key].numpy() if features.key else [f"{file}:{first + row}" for row in rows.tolist()]
        keys = _keys(rows, np.asarray(values), reasons)
        good, x = _observations(rows, columns[features.x], shape, dtype, reasons, missing)
    intact = np.array([int(row) not in reasons for row in good], bool)
    good, x = (good, x) if intact.all() else (good[intact], x[intact])
    read = (pair for pair in zip(rows.tolist(), keys, strict=True) if pair[0] not in odd)
    names = own | dict(read) if reasons else {}
    rejected = [Rejection(names.get(i) or f"{file}:{first + i}", file, first + i, reasons[i]) for i in sorted(reasons)]
    kept = {name: columns[name].numpy()[np.searchsorted(rows, good)] for name in features.keep}
    table = pa.table({name: pa.array(values) for name, values in kept.items()}) if kept else None
    return Block(file, [names[row] for row in good.tolist()] if reasons else keys, x, good + first, rejected, table)


def _refuse_keys(serialized: Sequence[bytes], file: str, first: int) -> None:
    """Rows are numbered where the first records have no keys; one that has a key would lose it."""
    for row, record in enumerate(serialized):
        if _ENCODED_KEY in record and contract.KEY in feature_names(record):
            raise PipelineError(
                f"record {first + row} of {file} has a feature {contract.KEY!r} and the first ones have none: "
                "give all of them one"
            )


def _columns(
    serialized: Sequence[bytes], specification: dict[str, Any], reasons: dict[int, str], why: Callable[[int], str]
) -> tuple[np.ndarray, dict[str, Any]]:
    """The rows that can be parsed, `[M]`, and their features, `[M, ...]` each; the reasons of the others."""
    import tensorflow as tf

    runs: list[tuple[int, int]] = []
    parsed: list[dict[str, Any]] = []

    def work(rows: Sequence[int]) -> None:
        parsed.append(tf.io.parse_example(list(serialized[rows[0] : rows[-1] + 1]), specification))
        runs.append((rows[0], rows[-1] + 1))

    def reject(row: int, error: Exception) -> None:
        others = f"its features {sorted(specification)} are not all there, or of other kinds than the first record's"
        reasons[row] = why(row) or others

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
    if b"" in raw:
        reasons |= {row: EMPTY_KEY for row, key in zip(rows.tolist(), raw, strict=True) if key == b""}
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
