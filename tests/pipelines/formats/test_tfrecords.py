"""The bytes written without TensorFlow are the bytes that TensorFlow writes and reads."""

import io

import numpy as np
import pytest

from pipelines.errors import PipelineError
from pipelines.formats import tfrecords

ROWS = [
    ("a", b"", None),
    ("ключ", b"\0" * 127, 0),
    ("k" * 300, b"\xff" * 70_000, 127),
    ("", b"x", 128),
    ("b", b"yz", 10**9),
]


@pytest.mark.parametrize(("key", "x", "label"), ROWS)
def test_an_example_is_what_tensorflow_serialises(key, x, label):
    import tensorflow as tf

    features = {
        "key": tf.train.Feature(bytes_list=tf.train.BytesList(value=[key.encode()])),
        "x": tf.train.Feature(bytes_list=tf.train.BytesList(value=[x])),
    }
    if label is not None:
        features["label"] = tf.train.Feature(int64_list=tf.train.Int64List(value=[label]))
    expected = tf.train.Example(features=tf.train.Features(feature=features))
    assert tfrecords.example(key, x, label) == expected.SerializeToString(deterministic=True)


@pytest.mark.parametrize("keys", [["a", "b", "c"], ["x", "ключ", "x2", "", "k" * 300], [], ["one"]])
@pytest.mark.parametrize("labels", [None, [3, 127, 128, 10**9, 0]])
@pytest.mark.parametrize("shape", [(784,), (2, 3), (1,), (0,)])
def test_rows_framed_together_are_the_rows_framed_one_by_one(keys, labels, shape):
    x = np.random.default_rng(0).normal(size=[len(keys), *shape]).astype(np.float32)
    mine = None if labels is None else np.array(labels[: len(keys)])
    each = zip(keys, x, [None] * len(keys) if mine is None else mine.tolist(), strict=True)
    expected = b"".join(tfrecords.frame(tfrecords.example(key, row.tobytes(), label)) for key, row, label in each)
    assert tfrecords.framed(keys, x, mine) == expected


def test_frames_are_tfrecords(tmp_path):
    import tensorflow as tf

    data = [tfrecords.example(*row) for row in ROWS]
    (tmp_path / "ours").write_bytes(b"".join(map(tfrecords.frame, data)))
    with tf.io.TFRecordWriter(str(tmp_path / "theirs")) as writer:
        for record in data:
            writer.write(record)
    content = (tmp_path / "ours").read_bytes()
    assert content == (tmp_path / "theirs").read_bytes()
    assert list(tfrecords.read_records(io.BytesIO(content), "file", 1, 3, len(content))) == data[1:4]


def test_every_cut_and_every_flipped_bit_is_noticed():
    content = b"".join(tfrecords.frame(data) for data in (b"one", b"", b"three"))

    def read(damaged):
        return list(tfrecords.read_records(io.BytesIO(damaged), "file", 0, 3, len(damaged)))

    assert read(content) == [b"one", b"", b"three"]
    for cut in range(len(content)):
        with pytest.raises(PipelineError, match="file"):
            read(content[:cut])
    for bit in range(8 * len(content)):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(PipelineError, match="file"):
            read(bytes(damaged))
