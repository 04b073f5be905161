"""TFRecord framing and ``tf.Example``.

Writing them here, without TensorFlow, keeps a preprocessing worker small: importing TensorFlow costs seconds and
hundreds of megabytes. Features stand in the order of their names, so that equal rows are equal bytes.

A TFRecord is ``length: uint64 | masked crc32c of it | data | masked crc32c of it``, little endian. A
``tf.Example`` is a map from name to a list of bytes, floats or integers
(``tensorflow/core/example/example.proto``).
"""

import functools
import itertools
import struct
from collections.abc import Collection, Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from .. import extras, storage
from ..errors import PipelineError, RowError
from ..messages import Example, Features, Int64List, PackedExample
from .seekable_gzip import open_gzip

with extras.needed("pipelines"):
    import google_crc32c

_LENGTH = struct.Struct("<Q")
_CRC = struct.Struct("<I")
_FRAME_HEADER = _LENGTH.size + _CRC.size
_HEADER = struct.Struct("<QI")
SUFFIXES = tuple(f".{stem}{gz}" for stem in ("tfrecord", "tfrecords", "tfrec") for gz in ("", ".gz"))
_GZIP = b"\x1f\x8b"
_MOST_RECORD = 1 << 28  # bytes, of a file whose size is not known
_DELTA = 0xA282EAD8  # by which TFRecord masks a checksum
_MOST_BYTES = (1 << 63) - 1  # that a file can have
_BUFFER = 1 << 20  # bytes of a file that are read at once
_MAX_VALUES = 1 << 20  # of one feature, but for a list of floats in one piece: an integer takes more memory than bytes


def _masked_crc(data: bytes) -> int:
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + _DELTA) & 0xFFFFFFFF


def _masked(crcs: np.ndarray) -> np.ndarray:
    """The same of many checksums, uint32."""
    return (crcs >> np.uint32(15) | crcs << np.uint32(17)) + np.uint32(_DELTA)


@functools.lru_cache(maxsize=4096)
def _length_crc(length: int) -> int:
    """The checksum of a length; the records of a file have few different ones."""
    return _masked_crc(_LENGTH.pack(length))


def example(key: str, x: bytes, label: int | None = None) -> bytes:
    """A serialised ``tf.Example`` with the features ``key``, ``x`` and, where given, ``label``.

    Args:
        key: Name of the row.
        x: The observation as raw little-endian bytes.
        label: Class index, 0 or more.

    Example:
        >>> row = tf.train.Example.FromString(example("train-00000", np.uint8([0, 255]).tobytes(), 7))
        >>> row.features.feature["label"].int64_list.value
        [7]
    """
    features = _features(key=key.encode(), x=x) if label is None else _features(key=key.encode(), label=label, x=x)
    return Example(features=features).SerializeToString(deterministic=True)


def _features(**values: bytes | int) -> Any:
    """Features of one value each, in the order of their names, as a map is written deterministically."""
    features = Features()
    for name, value in values.items():
        feature = features.feature.add(key=name).value
        (feature.one_bytes if isinstance(value, bytes) else feature.one_integers).value.append(value)
    return features


@functools.lru_cache(maxsize=4096)
def _number(label: int) -> bytes:
    """A label as it stands in its list: what is left of that without a tag and a length, a byte each."""
    return Int64List(value=[label]).SerializeToString()[2:]


def frame(data: bytes) -> bytes:
    """One TFRecord around ``data``.

    Example:
        >>> with open("rows.tfrecord", "wb") as file:
        ...     file.write(frame(b"data"))
        20
        >>> [record.numpy() for record in tf.data.TFRecordDataset("rows.tfrecord")]
        [b'data']
    """
    length = _LENGTH.pack(len(data))
    return b"".join((length, _CRC.pack(_masked_crc(length)), data, _CRC.pack(_masked_crc(data))))


def framed(keys: Sequence[str], x: np.ndarray, labels: np.ndarray | None = None) -> bytes:
    """The TFRecords of many rows, byte for byte ``frame(example(...))`` of each, in their order.

    Rows whose keys and labels have the same lengths have the same layout: they are filled in together.

    Args:
        keys: Names of the rows, `[N]`.
        x: Their observations, `[N, ...]`.
        labels: Class indices, `[N]`.

    Example:
        >>> framed(["a", "b"], np.uint8([[1], [2]])) == frame(example("a", b"\\1")) + frame(example("b", b"\\2"))
        True
    """
    if not keys:
        return b""
    raw = np.ascontiguousarray(x).reshape(len(keys), -1).view(np.uint8)
    names = [key.encode() for key in keys]
    numbers = [b""] * len(keys) if labels is None else [_number(int(label)) for label in labels]
    groups: dict[tuple[int, int], list[int]] = {}
    for row, layout in enumerate(zip(map(len, names), map(len, numbers), strict=True)):
        groups.setdefault(layout, []).append(row)
    rows: list[Any] = [b""] * len(keys)
    for members in groups.values():
        first = members[0]
        label, chosen = None if labels is None else int(labels[first]), raw if len(groups) == 1 else raw[members]
        template = frame(example(keys[first], raw[first].tobytes(), label))
        matrix = _filled(template, label, [names[row] for row in members], [numbers[row] for row in members], chosen)
        if len(groups) == 1:
            return matrix.tobytes()
        for row, record in zip(members, matrix, strict=True):
            rows[row] = record.tobytes()
    return b"".join(rows)


def _filled(template: bytes, label: int | None, names: list[bytes], numbers: list[bytes], x: np.ndarray) -> np.ndarray:
    """Records ``[N, bytes]`` laid out as the template, which has this label, with these keys, labels and rows of x."""
    count, width = x.shape
    matrix = np.tile(np.frombuffer(template, np.uint8), (count, 1))
    x_end = matrix.shape[1] - _CRC.size
    label_end = x_end - _features(x=bytes(width)).ByteSize()
    key_end = label_end - (0 if label is None else _features(label=label).ByteSize())
    for end, values in ((key_end, names), (label_end, numbers)):
        field = np.frombuffer(b"".join(values), np.uint8).reshape(count, -1)
        matrix[:, end - field.shape[1] : end] = field
    matrix[:, x_end - width : x_end] = x
    flat, size = matrix.tobytes(), matrix.shape[1]
    starts = range(0, len(flat), size)
    crcs = np.fromiter((google_crc32c.value(flat[i + _FRAME_HEADER : i + x_end]) for i in starts), np.uint32, count)
    matrix[:, x_end:] = _masked(crcs).astype("<u4")[:, None].view(np.uint8)
    return matrix


def read_records(
    file: BinaryIO, name: str, first: int, count: int, total_bytes: int | None, offset: int = 0
) -> Iterator[bytes]:
    """Records ``first`` to ``first + count`` of a TFRecord file, each checked against its checksums.

    Args:
        file: The open file, at ``offset``.
        name: What errors call it.
        first: How many records to pass over.
        count: How many records to read.
        total_bytes: Size of the file, against which a record's stated length is held before memory is taken; None for
            a packed file, of which no record may have more than 256 MiB.
        offset: Where the first of them begins.

    Raises:
        PipelineError: The file ends early, or a checksum does not agree: it is broken as a whole.
    """
    index, end = 0, first + count
    for begin, buffer, bounds in _whole_runs(file, name, offset, total_bytes) if count else ():
        some = slice(max(first - index, 0), max(end - index, 0) + 1)
        yield from _intact(name, begin, buffer, bounds[some])
        index += len(bounds) - 1
        if index >= end:
            return
    if count:
        raise PipelineError(f"{name} ends after {index} records, expected {end}: it is truncated; write it again")


def _runs(
    file: BinaryIO, name: str, offset: int, total_bytes: int | None, limit: int | None = None, step: int = _BUFFER
) -> Iterator[tuple[int, bytes, list[int]]]:
    """Runs of whole records: where a run begins in the file, its bytes, and where in them each record begins.

    The last place is where the last record ends. The checksums of the lengths agree.

    The file is read a megabyte at a time (``step``): a call for each header and each record costs more than all else.
    A record of more than ``limit`` bytes comes by itself, and of its bytes there is only the header. Without a limit,
    ``total_bytes`` must be known, against which a length is held before memory is taken.
    """
    buffer, known, length, intact = b"", b"", 0, True
    while True:
        at, bounds, end = 0, [0], 0
        while len(buffer) - at >= _FRAME_HEADER:
            if (header := buffer[at : at + _FRAME_HEADER]) != known:  # as often as lengths differ
                length, crc = _HEADER.unpack(header)
                known, intact = header, crc == _length_crc(length)
            end = at + _FRAME_HEADER + length + _CRC.size
            if not intact or end > len(buffer):
                break
            bounds.append(end)
            at = end
        if at:
            yield offset, buffer, bounds
            offset, buffer, end = offset + at, buffer[at:], end - at
        if not intact:
            raise PipelineError(f"{name} is damaged: the checksum of the length of {_record(offset)} differs")
        if end > len(buffer):  # the record goes on behind the buffer
            if offset + end > (_MOST_BYTES if total_bytes is None else total_bytes):
                raise _truncated(name, offset, end, (total_bytes or offset + len(buffer)) - offset)
            if limit is not None and length > limit:
                if file.seek(offset + end - 1) != offset + end - 1 or not file.read(1):
                    raise _truncated(name, offset, end, file.tell() - offset)
                yield offset, buffer[:_FRAME_HEADER], [0, end]
                offset, buffer = offset + end, b""
        more = file.read(max(step, end - len(buffer)))
        if not more and buffer:
            raise _truncated(name, offset, max(end, _FRAME_HEADER), len(buffer))
        if not more:
            return
        buffer += more


def _whole_runs(
    file: BinaryIO, name: str, offset: int, total_bytes: int | None
) -> Iterator[tuple[int, bytes, list[int]]]:
    """Runs of which no record is passed over."""
    for begin, buffer, bounds in _runs(file, name, offset, total_bytes, None if total_bytes else _MOST_RECORD):
        if bounds[-1] > len(buffer):
            raise PipelineError(f"{name}: {_record(begin)} has more than {_MOST_RECORD} bytes: unpack the file first")
        yield begin, buffer, bounds


def _intact(name: str, offset: int, buffer: bytes, bounds: Sequence[int]) -> Iterator[bytes]:
    """The data of a run's records, whose checksums agree; ``offset`` is where the run begins in the file."""
    data = [buffer[begin + _FRAME_HEADER : end - _CRC.size] for begin, end in itertools.pairwise(bounds)]
    stored = [_CRC.unpack_from(buffer, end - _CRC.size)[0] for end in bounds[1:]]
    crcs = [((crc >> 15 | crc << 17) + _DELTA) & 0xFFFFFFFF for crc in map(google_crc32c.value, data)]
    intact = len(data) if crcs == stored else [a == b for a, b in zip(crcs, stored, strict=True)].index(False)
    yield from data[:intact]
    if intact < len(data):
        damaged = _record(offset + bounds[intact])
        raise PipelineError(f"{name} is damaged: the checksum of {damaged} differs; get it again")


def _record(offset: int) -> str:
    return f"the record at byte {offset}"


def _truncated(name: str, offset: int, expected: int, found: int) -> PipelineError:
    return PipelineError(f"{name} is truncated in {_record(offset)}: expected {expected} bytes of it, has {found}")


def index_records(file: BinaryIO, name: str, total_bytes: int | None, run: int) -> tuple[int, list[int]]:
    """How many records a TFRecord file has, and where each ``run`` of them begins, from the records' lengths alone.

    Raises:
        PipelineError: The file is no TFRecord file, or is truncated.

    Example:
        >>> import io
        >>> content = frame(b"one") + frame(b"two") + frame(b"three")
        >>> index_records(io.BytesIO(content), "rows.tfrecord", len(content), 2)
        (3, [0, 38])
    """
    starts: list[int] = []
    count = 0
    for offset, _, bounds in _whole_runs(file, name, 0, total_bytes):
        starts += [offset + begin for begin in bounds[-count % run : -1 : run]]
        count += len(bounds) - 1
    return count, starts


def scan_records(file: BinaryIO, name: str, limit: int) -> Iterator[tuple[int, int, bytes | None]]:
    """Every record of a TFRecord file: its offset, its length and its data, checked against the checksums.

    Args:
        file: The open file, at its start.
        name: What errors call it.
        limit: A longer record is passed over; its data are None, and no memory is taken for them.

    Raises:
        PipelineError: See ``read_records``.

    Example:
        >>> import io
        >>> list(scan_records(io.BytesIO(frame(b"one") + frame(b"three")), "rows.tfrecord", limit=4))
        [(0, 3, b'one'), (19, 5, None)]
    """
    for offset, buffer, bounds in _runs(file, name, 0, None, limit):
        lengths = [end - begin - _FRAME_HEADER - _CRC.size for begin, end in itertools.pairwise(bounds)]
        whole = bounds if bounds[-1] <= len(buffer) else bounds[:1]
        data = itertools.chain(_intact(name, offset, buffer, whole), itertools.repeat(None))
        for begin, length, content in zip(bounds, lengths, data):  # noqa: B905
            yield offset + begin, length, content if length <= limit else None


def read_record(file: BinaryIO, name: str, offset: int, limit: int) -> bytes:
    """The data of the record at an offset; see ``scan_records``."""
    file.seek(offset)
    for _, buffer, bounds in _runs(file, name, offset, None, limit, step=_FRAME_HEADER):
        if bounds[-1] - _FRAME_HEADER - _CRC.size <= limit:
            return next(_intact(name, offset, buffer, bounds))
        break
    raise PipelineError(f"{name} has no record of at most {limit} bytes at byte {offset}: it has changed")


def open_records(path: str) -> tuple[BinaryIO, int | None]:
    """The content of a file, plain, gzip or zlib whatever its name says, and its size, which a packed one's has not.

    Raises:
        PipelineError: It cannot be read.
    """
    try:
        stream = storage.open_to_read(path)
        header = stream.read(_FRAME_HEADER)
        stream.seek(0)
    except OSError as error:
        raise PipelineError(f"{path} cannot be read: {error.strerror}") from error
    if not is_record_header(header) and (header.startswith(_GZIP) or _is_zlib(header)):
        stream.close()
        return open_gzip(path), None
    return stream, storage.identify(path).size


def _is_zlib(header: bytes) -> bool:
    """Whether a stream begins as RFC 1950 says: deflate, and two bytes that are a multiple of 31."""
    return (
        len(header) > 1 and header[0] & 15 == 8 and header[0] >> 4 < 8 and int.from_bytes(header[:2], "big") % 31 == 0
    )


def is_record_header(header: bytes) -> bool:
    """Whether a file that begins so is a plain TFRecord file; an empty one is."""
    return not header or (
        len(header) >= _FRAME_HEADER
        and _CRC.unpack_from(header, _LENGTH.size)[0] == _masked_crc(header[: _LENGTH.size])
    )


# The inverse of ``example``.

Feature = list[bytes] | list[int] | np.ndarray


def parse_example(data: bytes, names: Collection[str] | None = None) -> dict[str, Feature]:
    """The features of a serialised ``tf.Example`` by name: lists of bytes, float32 arrays or lists of integers.

    Args:
        data: The content of one record; it may be hostile.
        names: Which features are wanted; None is all. The others are passed over.

    Raises:
        RowError: It is no ``tf.Example``, or one of the features has more values than are taken.

    Example:
        >>> parse_example(example("train-00000", b"\\0\\xff", 7))
        {'key': [b'train-00000'], 'label': [7], 'x': [b'\\x00\\xff']}
    """
    try:
        Example.FromString(data)  # floats that are not whole are none, whoever asks for them
        features = PackedExample.FromString(data).features
        if len(UnknownFieldSet(features)):  # which TensorFlow's parser refuses, as it does an entry without a value
            raise ValueError("there are other fields among its features")
        for entry in features.feature:
            if len(UnknownFieldSet(entry)) or not entry.HasField("value"):  # of which readers of protobuf disagree
                raise ValueError("an entry of the map has other fields than a name and a value")
        return {entry.key: _values(entry, data) for entry in features.feature if names is None or entry.key in names}
    except (DecodeError, ValueError) as error:
        raise RowError(f"not a tf.Example: {error}") from error


def malformed(records: Sequence[bytes]) -> list[int]:
    """The numbers of those that are no ``tf.Example``, in a feature that nobody asks for perhaps.

    Example:
        >>> malformed([example("a", b"\\0"), b"junk"])
        [1]
    """
    read, found = Example.FromString, []
    for number, record in enumerate(records):
        try:
            read(record)
        except DecodeError:
            found.append(number)
    return found


def feature_names(data: bytes | None) -> list[str]:
    """The names of the features of a record, in order; none of what is no ``tf.Example``.

    Example:
        >>> feature_names(example("train-00000", b"\\0\\xff", 7)), feature_names(b"junk")
        (['key', 'label', 'x'], [])
    """
    try:
        return sorted({entry.key for entry in PackedExample.FromString(data or b"").features.feature})
    except DecodeError:
        return []


def _values(entry: Any, data: bytes) -> Feature:
    """The values of an entry of the map in the record ``data``."""
    kind = entry.value.WhichOneof("kind")
    if kind == "one_floats":
        return _floats(entry, data)
    values = list(getattr(entry.value, kind).value) if kind else []
    if len(values) > _MAX_VALUES:
        raise ValueError(f"more than {_MAX_VALUES} values")
    return values


def _floats(entry: Any, data: bytes) -> np.ndarray:
    packed = entry.value.one_floats
    if len(UnknownFieldSet(packed)):  # single numbers, as encoders of other languages write them
        exact = [other for other in Example.FromString(data).features.feature if other.key == entry.key]
        return np.array(exact[-1].value.one_floats.value, np.float32)
    if odd := [len(run) for run in packed.value if len(run) % 4]:
        raise ValueError(f"{odd[0]} bytes of floats")
    return np.frombuffer(b"".join(packed.value), "<f4")
