"""A tf.Example is read as TensorFlow reads it, and whatever is none is refused."""

import numpy as np
import pytest

from pipelines.errors import RowError
from pipelines.formats import tfrecords


def random_example(rng):
    import tensorflow as tf

    features = {}
    for _ in range(rng.integers(0, 5)):
        name = "".join(rng.choice(list("xyé☃"), rng.integers(0, 4)))
        count = int(rng.choice([0, 1, 2, 30]))
        kind = rng.integers(0, 4)
        if kind == 0:
            values = [rng.bytes(int(rng.choice([0, 1, 127, 128, 300]))) for _ in range(count)]
            features[name] = tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
        elif kind == 1:
            values = rng.integers(0, 1 << 32, count, dtype=np.uint32).view(np.float32)
            features[name] = tf.train.Feature(float_list=tf.train.FloatList(value=values))
        elif kind == 2:
            values = (rng.integers(-(1 << 63), (1 << 63) - 1, count) >> rng.integers(0, 63)).tolist()
            features[name] = tf.train.Feature(int64_list=tf.train.Int64List(value=values))
        else:
            features[name] = tf.train.Feature()
    return tf.train.Example(features=tf.train.Features(feature=features))


def as_tensorflow_reads(data: bytes) -> dict:
    """TensorFlow's features in our types; raises DecodeError."""
    import tensorflow as tf

    read = tf.train.Example.FromString(data).features.feature
    found = {}
    for name, feature in read.items():
        kind = feature.WhichOneof("kind")
        values = list(getattr(feature, kind).value) if kind else []
        found[name] = np.array(values, np.float32) if kind == "float_list" else values
    return found


def assert_same(ours: dict, theirs: dict) -> None:
    assert ours.keys() == theirs.keys()
    for name, values in theirs.items():
        assert type(ours[name]) is type(values), name
        if isinstance(values, np.ndarray):
            assert len(values) == len(ours[name])
            # Through Python's doubles a signalling NaN comes back quiet.
            np.testing.assert_array_equal(ours[name], values)
        else:
            assert ours[name] == values


def test_random_examples_are_read_as_tensorflow_reads_them():
    rng = np.random.default_rng(0)
    for _ in range(300):
        data = random_example(rng).SerializeToString()
        assert_same(tfrecords.parse_example(data), as_tensorflow_reads(data))


def test_what_is_taken_of_mutated_bytes_is_what_tensorflow_takes():
    from google.protobuf.message import DecodeError

    rng = np.random.default_rng(1)
    taken = refused = 0
    for _ in range(4000):
        data = bytearray(random_example(rng).SerializeToString())
        if rng.random() < 0.3:
            data = data[: rng.integers(0, len(data) + 1)]
        if rng.random() < 0.2:  # messages that come twice are merged
            data += random_example(rng).SerializeToString()
        for _ in range(rng.integers(0, 4)):
            if data:
                data[rng.integers(0, len(data))] = rng.integers(0, 256)
        try:
            ours = tfrecords.parse_example(bytes(data))
        except RowError:
            refused += 1
            continue
        taken += 1
        try:
            theirs = as_tensorflow_reads(bytes(data))
        except DecodeError:
            pytest.fail(f"TensorFlow refuses {bytes(data)!r}")
        assert_same(ours, theirs)
    assert taken > 500 and refused > 500


def test_numbers_outside_of_a_packed_list():
    """As encoders of other languages write them; and a second list of another kind replaces the first."""

    def field(number, wire, payload):
        head = bytes((number << 3 | wire,))
        return head + (bytes((len(payload),)) if wire == 2 else b"") + payload

    floats = field(2, 2, field(1, 5, np.float32(1.5).tobytes()) + field(1, 2, np.float32([2, 3]).tobytes()))
    integers = field(3, 2, field(1, 0, b"\x07") + field(1, 2, b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"))
    for feature, expected in (
        (floats, np.float32([1.5, 2, 3])),
        (integers, [7, 8, -1]),
        (floats + integers, [7, 8, -1]),
        (integers + integers, [7, 8, -1, 7, 8, -1]),
    ):
        data = field(1, 2, field(1, 2, field(1, 2, b"x") + field(2, 2, feature)))
        found = tfrecords.parse_example(data)
        assert_same(found, as_tensorflow_reads(data))
        np.testing.assert_array_equal(found["x"], expected)


def test_features_that_are_not_wanted_are_passed_over():
    data = tfrecords.example("a", b"xyz", 3)
    assert tfrecords.parse_example(data, ["x", "absent"]) == {"x": [b"xyz"]}


@pytest.mark.parametrize(
    "data",
    [
        b"\x0a\xff\xff\xff\xff\x07",  # claims two gigabytes
        b"\x0a\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",  # a length without an end
        b"\x0b\x0a\x00",  # a group without an end
        b"\x0b" * 1000 + b"\x0c" * 1000,  # groups in groups
        b"\x00",  # field 0
        b"\x0a",
    ],
)
def test_hostile_lengths(data):
    with pytest.raises(RowError, match="not a tf"):
        tfrecords.parse_example(data)


def test_a_group_is_a_field_that_nobody_knows():
    """The format's forgotten way to nest: what it holds is passed over, as TensorFlow does."""
    row = tfrecords.example("a", b"xyz", 3)
    for data in (b"\x0b\x0a\x00\x0c", b"\x0b\x0a\x00\x0c" + row, row + b"\x0b\x0c", row + b"\x13\x08\x01\x14"):
        assert_same(tfrecords.parse_example(data), as_tensorflow_reads(data))


@pytest.mark.parametrize("more", [b"\x18\x01", b"\x1a\x01x", b"\x08\x01", b"\x13\x14"])
def test_an_entry_of_the_map_with_other_fields_is_refused(more):
    """Readers of protobuf do not agree about them: some drop the fields, some the entry."""
    entry = b"\x0a\x01x\x12\x05\x0a\x03\x0a\x01y"
    features = bytes((0x0A, len(entry))) + entry
    assert tfrecords.parse_example(bytes((0x0A, len(features))) + features) == {"x": [b"y"]}
    features = bytes((0x0A, len(entry + more))) + entry + more
    for names in (None, ["other"]):
        with pytest.raises(RowError, match="other fields than a name and a value"):
            tfrecords.parse_example(bytes((0x0A, len(features))) + features, names)


def test_more_values_than_are_taken_are_not_spelt_out(monkeypatch):
    monkeypatch.setattr(tfrecords, "_MAX_VALUES", 100)
    import tensorflow as tf

    for count, taken in ((100, True), (101, False)):
        feature = tf.train.Feature(int64_list=tf.train.Int64List(value=[1] * count))
        data = tf.train.Example(features=tf.train.Features(feature={"x": feature})).SerializeToString()
        if taken:
            assert tfrecords.parse_example(data) == {"x": [1] * count}
        else:
            with pytest.raises(RowError, match="more than 100 values"):
                tfrecords.parse_example(data)
        assert tfrecords.parse_example(data, ["y"]) == {}
