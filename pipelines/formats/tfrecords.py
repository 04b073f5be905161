"""TFRecord framing and ``tf.Example``, in the bytes of their wire formats.

Writing them here, without TensorFlow, keeps a preprocessing worker small (importing TensorFlow costs
seconds and hundreds of megabytes) and makes the bytes deterministic by construction: features in the order
of their names, nothing else to choose.

A TFRecord is ``length: uint64 | masked crc32c of it | data | masked crc32c of it``, little endian. A
``tf.Example`` is a map from name to a list of bytes, floats or integers
(``tensorflow/core/example/example.proto``).
"""

import functools
import struct
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, BinaryIO

import google_crc32c
import numpy as np

from pipelines.errors import PipelineError, RowError

_LENGTH = struct.Struct("<Q")
_CRC = struct.Struct("<I")
_FRAME_HEADER = _LENGTH.size + _CRC.size
_HEADER = struct.Struct("<QI")
_BUFFER = 1 << 20  # bytes of a file that are read at once
_VARINT, _DELIMITED, _FIXED32 = 0, 2, 5  # protobuf's wire types
_FIXED = {1: 8, _FIXED32: 4}
_MAX_VALUES = 1 << 20  # of one feature, but for a list of floats in one piece: an integer takes more memory than bytes


def _masked_crc(data: bytes) -> int:
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _masked(crcs: np.ndarray) -> np.ndarray:
    """The same of many checksums, uint32."""
    return (crcs >> np.uint32(15) | crcs << np.uint32(17)) + np.uint32(0xA282EAD8)


@functools.lru_cache(maxsize=4096)
def _length_crc(length: int) -> int:
    """The checksum of a length; the records of a file have few different ones."""
    return _masked_crc(_LENGTH.pack(length))


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _header(number: int, length: int) -> bytes:
    """What stands before a length-delimited protobuf field."""
    return bytes((number << 3 | 2,)) + _varint(length)


@functools.lru_cache(maxsize=4096)
def _entry_header(name: bytes, kind: int, length: int) -> bytes:
    """One entry of the feature map up to its value of ``length`` bytes; kind 1 is a list of bytes, 3 of
    integers.

    Rows of a dataset have few different lengths, so that nearly every row finds its headers here.
    """
    item = _header(1, length)
    values = _header(kind, len(item) + length) + item
    feature = _header(2, len(values) + length) + values
    entry = _header(1, len(name)) + name + feature
    return _header(1, len(entry) + length) + entry


@functools.lru_cache(maxsize=4096)
def _label_entry(label: int | None) -> bytes:
    if label is None:
        return b""
    number = _varint(label)
    return _entry_header(b"label", 3, len(number)) + number


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
    name = key.encode()
    key_header, x_header = _entry_header(b"key", 1, len(name)), _entry_header(b"x", 1, len(x))
    entries = b"".join((key_header, name, _label_entry(label), x_header, x))
    return _header(1, len(entries)) + entries


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
    numbers = [b""] * len(keys) if labels is None else [_varint(int(label)) for label in labels]
    groups: dict[tuple[int, int], list[int]] = {}
    for row, layout in enumerate(zip(map(len, names), map(len, numbers), strict=True)):
        groups.setdefault(layout, []).append(row)
    rows: list[Any] = [b""] * len(keys)
    for members in groups.values():
        first = members[0]
        template = frame(example(keys[first], raw[first].tobytes(), None if labels is None else int(labels[first])))
        chosen = raw if len(groups) == 1 else raw[members]
        matrix = _filled(template, [names[row] for row in members], [numbers[row] for row in members], chosen)
        if len(groups) == 1:
            return matrix.tobytes()
        for row, record in zip(members, matrix, strict=True):
            rows[row] = record.tobytes()
    return b"".join(rows)


def _filled(template: bytes, names: list[bytes], numbers: list[bytes], x: np.ndarray) -> np.ndarray:
    """Records `[N, bytes]` of the template's layout, with these keys, labels and observations."""
    count, width = x.shape
    matrix = np.tile(np.frombuffer(template, np.uint8), (count, 1))
    x_end = matrix.shape[1] - _CRC.size
    label_end = x_end - width - len(_entry_header(b"x", 1, width))
    key_end = label_end - len(numbers[0]) - (len(_entry_header(b"label", 3, len(numbers[0]))) if numbers[0] else 0)
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
    file: BinaryIO, name: str, first: int, count: int, total_bytes: int, offset: int = 0
) -> Iterator[bytes]:
    """Records ``first`` to ``first + count`` of a TFRecord file, each checked against its checksums.

    Args:
        file: The open file, at ``offset``.
        name: What errors call it.
        first: How many records to pass over.
        count: How many records to read.
        total_bytes: Size of the file, against which a record's stated length is held before memory is taken.
        offset: Where the first of them begins.

    Raises:
        PipelineError: The file ends early, or a checksum does not agree: it is broken as a whole.
    """
    index, end = 0, first + count
    for _, buffer, bounds in _runs(file, name, total_bytes, offset) if count else ():
        some = range(max(first - index, 0), min(end - index, len(bounds) - 1))
        data = [buffer[bounds[i] + _FRAME_HEADER : bounds[i + 1] - _CRC.size] for i in some]
        stored = [_CRC.unpack_from(buffer, bounds[i + 1] - _CRC.size)[0] for i in some]
        crcs = _masked(np.fromiter(map(google_crc32c.value, data), np.uint32, len(data)))
        differ = np.flatnonzero(crcs != np.array(stored, np.uint32))
        yield from data[: differ[0]] if len(differ) else data
        if len(differ):
            damaged = index + some[differ[0]]
            raise PipelineError(f"{name} is damaged: the checksum of record {damaged} differs; write it again")
        index += len(bounds) - 1
        if index >= end:
            return
    if count:
        raise PipelineError(f"{name} ends after {index} records, expected {end}: it is truncated; write it again")


def _runs(file: BinaryIO, name: str, total_bytes: int, offset: int) -> Iterator[tuple[int, bytes, list[int]]]:
    """Bytes that hold whole records: where in the file they begin, the bytes, and where in them each record begins and
    the last ends. The checksums of the lengths agree.

    The file is read a megabyte at a time: a call for each header and each record costs more than all else.
    """
    buffer, index, intact = b"", 0, True
    while True:
        at, bounds = 0, [0]
        while len(buffer) - at >= _FRAME_HEADER:
            length, crc = _HEADER.unpack_from(buffer, at)
            intact = crc == _length_crc(length)
            end = at + _FRAME_HEADER + length + _CRC.size
            if not intact or end > len(buffer):
                break
            bounds.append(end)
            at = end
        if at:
            yield offset, buffer, bounds
            index += len(bounds) - 1
        if not intact:
            raise PipelineError(f"{name} is damaged: the checksum of the length of record {index} differs")
        wanted = _BUFFER
        if len(buffer) - at >= _FRAME_HEADER:  # the record goes on behind the buffer
            if offset + end > total_bytes:
                raise PipelineError(
                    f"{name} is truncated in record {index}: expected {offset + end} bytes, has {total_bytes}"
                )
            wanted = max(wanted, end - len(buffer))
        offset, buffer = offset + at, buffer[at:]
        more = file.read(wanted)
        if not more and buffer:
            raise PipelineError(f"{name} is truncated in record {index}, of which it has {len(buffer)} bytes")
        if not more:
            return
        buffer += more


def index_records(file: BinaryIO, name: str, total_bytes: int, run: int) -> tuple[int, list[int]]:
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
    for offset, _, bounds in _runs(file, name, total_bytes, 0):
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
    offset = 0
    while (length := _length(file, name, f"the record at byte {offset}")) is not None:
        end = offset + _FRAME_HEADER + length + _CRC.size
        if length > limit:
            if end >= 1 << 63 or file.seek(end - 1) != end - 1 or not file.read(1):
                raise PipelineError(f"{name} is truncated: the record at byte {offset} has {length} bytes")
            yield offset, length, None
        else:
            yield offset, length, _data(file, name, f"the record at byte {offset}", length)
        offset = end


def read_record(file: BinaryIO, name: str, offset: int, limit: int) -> bytes:
    """The data of the record at an offset; see ``scan_records``."""
    file.seek(offset)
    length = _length(file, name, f"the record at byte {offset}")
    if length is None or length > limit:
        raise PipelineError(f"{name} has no record of at most {limit} bytes at byte {offset}: it has changed")
    return _data(file, name, f"the record at byte {offset}", length)


def is_record_header(header: bytes) -> bool:
    """Whether a file that begins so is a plain TFRecord file; an empty one is."""
    return not header or (
        len(header) >= _FRAME_HEADER
        and _CRC.unpack_from(header, _LENGTH.size)[0] == _masked_crc(header[: _LENGTH.size])
    )


def _length(file: BinaryIO, name: str, which: str) -> int | None:
    """The length of the record that begins here, or None at the end of the file."""
    header = file.read(_FRAME_HEADER)
    if not header:
        return None
    if len(header) < _FRAME_HEADER:
        raise PipelineError(f"{name} is truncated: {which} has {len(header)} bytes")
    if not is_record_header(header):
        raise PipelineError(f"{name} is damaged: the checksum of the length of {which} differs")
    return _LENGTH.unpack_from(header)[0]


def _data(file: BinaryIO, name: str, which: str, length: int) -> bytes:
    data, crc = file.read(length), file.read(_CRC.size)
    if len(crc) < _CRC.size:
        raise PipelineError(f"{name} is truncated in {which}: expected {length} bytes, has {len(data)}")
    if _CRC.unpack(crc)[0] != _masked_crc(data):
        raise PipelineError(f"{name} is damaged: the checksum of {which} differs; get it again")
    return data


# The inverse of ``example``.

Feature = list[bytes] | list[int] | np.ndarray


def parse_example(data: bytes, names: Collection[str] | None = None) -> dict[str, Feature]:
    """The features of a serialised ``tf.Example`` by name: lists of bytes, float32 arrays or lists of integers.

    Args:
        data: Of one record; it may be hostile.
        names: Which features are wanted; None is all. The others are passed over.

    Raises:
        RowError: It is no ``tf.Example``, or one of the features has more values than are taken.

    Example:
        >>> parse_example(example("train-00000", b"\\0\\xff", 7))
        {'key': [b'train-00000'], 'label': [7], 'x': [b'\\x00\\xff']}
    """
    found: dict[str, Feature] = {}
    try:
        for features in _messages(memoryview(data), 1):
            for entry in _messages(features, 1):
                name, values = _entry(entry)
                if names is None or name in names:
                    found[name] = _feature(values)
    except (IndexError, ValueError) as error:
        raise RowError(f"not a tf.Example: {error}") from error
    return found


def _entry(data: memoryview) -> tuple[str, list[memoryview]]:
    """An entry of the map: its name, and its value, which may come in pieces."""
    name, values = b"", []
    for number, kind, value in _fields(data):
        if kind != _DELIMITED or number > 2:  # readers of protobuf do not agree about what else there may be
            raise ValueError("an entry of the map has other fields than a name and a value")
        if number == 1:
            name = bytes(value)
        else:
            values.append(value)
    return name.decode(), values


def _messages(data: memoryview, number: int) -> Iterator[memoryview]:
    """The length-delimited fields of this number."""
    return (value for found, kind, value in _fields(data) if found == number and kind == _DELIMITED)


def _fields(data: memoryview) -> Iterator[tuple[int, int, Any]]:
    """Number, wire type and value of each field of a message."""
    offset = 0
    end = len(data)
    while offset < end:
        tag = data[offset]
        if tag < 0x80:  # as nearly all are
            offset += 1
        else:
            tag, offset = _read_varint(data, offset, 32)
        number, kind = tag >> 3, tag & 7
        if number == 0:
            raise ValueError("a field has the number 0")
        if kind == _VARINT:
            value, offset = _read_varint(data, offset, 64)
            yield number, kind, value
            continue
        length = _FIXED.get(kind)
        if kind == _DELIMITED:
            length, offset = _read_varint(data, offset, 31)
        if length is None or offset + length > end:
            raise ValueError(f"field {number} of wire type {kind} is not whole")
        yield number, kind, data[offset : offset + length]
        offset += length


def _read_varint(data: memoryview, offset: int, bits: int) -> tuple[int, int]:
    """A number below ``2 ** bits``, in no more bytes than such a number can have, and the offset behind it."""
    number = data[offset]
    if number < 0x80:
        return number, offset + 1
    number = 0
    for i in range(-(-bits // 7)):
        byte = data[offset + i]
        number |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            break
    if byte >= 0x80 or number >> bits:
        raise ValueError(f"the number at byte {offset} does not end")
    return number, offset + i + 1


def _feature(messages: Iterable[memoryview]) -> Feature:
    """The values of a feature. As protobuf has it, a list of another kind replaces what came before it."""
    current = 1
    values: list[Any] = []
    for message in messages:
        for kind, wire, payload in _fields(message):
            if kind not in (1, 2, 3) or wire != _DELIMITED:
                continue
            current, values = kind, values if kind == current else []
            for number, value_wire, value in _fields(payload):
                if number == 1:
                    values += _READ_VALUES[kind](value_wire, value)
                if len(values) > _MAX_VALUES:
                    raise ValueError(f"more than {_MAX_VALUES} values")
    return np.frombuffer(b"".join(values), "<f4") if current == 2 else values


def _byte_values(wire: int, value: Any) -> list[bytes]:
    return [bytes(value)] if wire == _DELIMITED else []


def _float_values(wire: int, value: Any) -> list[bytes]:
    """Runs of floats, as bytes: a list in one piece, or a value by itself."""
    if wire == _DELIMITED and len(value) % 4:
        raise ValueError(f"{len(value)} bytes of floats")
    return [bytes(value)] if wire in (_DELIMITED, _FIXED32) else []


def _integer_values(wire: int, value: Any) -> list[int]:
    numbers, offset = [value] if wire == _VARINT else [], 0
    while wire == _DELIMITED and offset < len(value):
        number, offset = _read_varint(value, offset, 64)
        numbers.append(number)
        if len(numbers) > _MAX_VALUES:
            raise ValueError(f"more than {_MAX_VALUES} values")
    return [number - (1 << 64) if number >> 63 else number for number in numbers]


_READ_VALUES: dict[int, Callable[[int, Any], list[Any]]] = {1: _byte_values, 2: _float_values, 3: _integer_values}
