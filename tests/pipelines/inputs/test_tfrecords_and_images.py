"""Embedding from TFRecords of tf.Example and from image files: every good row once, every bad row named."""

import numpy as np
import pyarrow.compute as pc
import pytest
import tensorflow as tf

from pipelines import embed
from pipelines.errors import PipelineError, first_line
from pipelines.inputs import tfrecords
from tfvae.exporting import guards

from ..conftest import command, read_dataset, rejections, write_png
from ..test_embed import assert_equals_numpy
from .test_parquet import ROWS, Decoding, flat, keys, png, run, truth


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return np.random.default_rng(1).integers(1, 255, (ROWS, 8, 8, 1), dtype=np.uint8)


@pytest.fixture(autouse=True)
def small_units(monkeypatch):
    monkeypatch.setattr(tfrecords, "UNIT_ROWS", 16)


def example(**features) -> bytes:
    """A serialised tf.Example, by TensorFlow's own protocol buffers."""

    def feature(value) -> tf.train.Feature:
        values = value if isinstance(value, list) else [value]
        if isinstance(values[0], bytes):
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
        if isinstance(values[0], float):
            return tf.train.Feature(float_list=tf.train.FloatList(value=values))
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))

    named = {name: feature(value) for name, value in features.items()}
    return tf.train.Example(features=tf.train.Features(feature=named)).SerializeToString()


def write(path, examples: list[bytes]):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in examples:
            writer.write(record)
    return path


def records(x: np.ndarray) -> list[bytes]:
    return [example(key=key.encode(), x=row.tobytes()) for key, row in truth(x).items()]


def test_raw_bytes_in_several_units_and_files(x, linear_digits, tmp_path):
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "a.tfrecord", records(x)[:37])
    write(tmp_path / "in" / "b.tfrecords", [])
    write(tmp_path / "in" / "c-train.tfrecord-00000-of-00001", records(x)[37:])
    (tmp_path / "in" / "notes.txt").write_text("not for embedding")
    summary = run(linear_digits, tmp_path / "in", tmp_path)
    assert_equals_numpy(tmp_path / "out", linear_digits, truth(x))
    assert summary.rows == {"all": ROWS} and summary.units == 4 and summary.exit_code == 0


def test_floats_with_other_names_and_what_is_kept(x, linear_digits, tmp_path):
    made = [
        example(id=i, pixels=(row / np.float32(255)).tolist(), who=f"w{i}".encode(), weight=i / 2)
        for i, row in enumerate(flat(x))
    ]
    path = write(tmp_path / "part-0", made)  # known by its first bytes
    run(linear_digits, path, tmp_path, key="id", column="pixels", keep=["who", "weight"])
    table = embed.read_embeddings(str(tmp_path / "out"))
    assert table["key"].to_pylist() == [str(i) for i in range(ROWS)]
    np.testing.assert_allclose(np.stack(table["embedding"].to_numpy()), linear_digits.embed(x), atol=1e-5)
    assert table["who"].to_pylist() == [f"w{i}".encode() for i in range(ROWS)]
    assert table["weight"].to_pylist() == [i / 2 for i in range(ROWS)]


def test_bad_records_are_named_and_the_others_kept(x, linear_digits, tmp_path):
    made = records(x)
    made[3] = b"\xff\xffjunk"
    made[17] = example(key=b"short", x=b"\1\2")
    made[18] = example(key=b"\xff\xfe", x=x[18].tobytes())
    made[30] = example(x=x[30].tobytes())
    made[31] = example(key=keys()[31].encode(), x=[1.0, 2.0])
    made[49] = example(key=keys()[0].encode(), x=x[49].tobytes())
    write(tmp_path / "rows.tfrecord", made)
    assert run(linear_digits, tmp_path / "rows.tfrecord", tmp_path).exit_code == 3
    bad = {3, 17, 18, 30, 31, 49}
    assert_equals_numpy(
        tmp_path / "out", linear_digits, {k: v for i, (k, v) in enumerate(truth(x).items()) if i not in bad}
    )
    found = {row["position"]: row for row in read_rejections(tmp_path / "out")}
    assert found.keys() == bad and {row["source"] for row in found.values()} == {"rows.tfrecord"}
    assert found[3]["reason"].startswith("not a tf.Example: ")
    assert found[17]["key"] == "short" and found[17]["reason"] == "x has 2 bytes, expected 64 for uint8 [8, 8, 1]"
    assert found[18]["reason"] == "the key is not UTF-8"
    assert found[30]["key"] == "rows.tfrecord:30"
    assert found[49]["reason"] == "duplicate key, first at rows.tfrecord:0"


def read_rejections(output) -> list[dict]:
    import json

    lines = [line for path in (output / "rejected").glob("*.jsonl") for line in path.read_text().splitlines()]
    return [json.loads(line) for line in lines]


def test_floats_that_are_not_finite_are_rejected(x, linear_digits, tmp_path):
    rows = flat(x) / np.float32(255)
    rows[5, 3], rows[6, 0] = np.nan, np.inf
    made = [example(key=key.encode(), x=row.tolist()) for key, row in zip(keys(), rows, strict=True)]
    run(linear_digits, write(tmp_path / "rows.tfrecord", made), tmp_path)
    found = rejections(tmp_path / "out")
    assert found.keys() == {keys()[5], keys()[6]}
    assert {row["reason"] for row in found.values()} == {"x has values that are not finite"}


def test_encoded_images_in_records(x, linear_digits, tmp_path):
    made = [example(key=key.encode(), x=png(row)) for key, row in truth(x).items()]
    made[20] = example(key=keys()[20].encode(), x=b"no picture")
    model = Decoding(tmp_path / "model" / "1", linear_digits)
    run(model, write(tmp_path / "rows.tfrecord", made), tmp_path)
    good = {key: row for i, (key, row) in enumerate(truth(x).items()) if i != 20}
    assert_equals_numpy(tmp_path / "out", linear_digits, good)
    assert rejections(tmp_path / "out").keys() == {keys()[20]}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda data: data[:-3],
            r"rows\.tfrecord is truncated in the record at byte \d+: expected \d+ bytes of it, has \d+$",
        ),
        (
            lambda data: data[:5] + b"\x7f" + data[6:],
            r"rows\.tfrecord is damaged: the checksum of the length of the record at byte 0",
        ),
        (
            lambda data: data[:40] + b"\x7f\x7f" + data[42:],
            r"is damaged: the checksum of the record at byte 0",
        ),
        (lambda data: b"", "holds no rows"),
    ],
)
def test_a_file_that_is_broken_as_a_whole(damage, message, x, linear_digits, tmp_path):
    path = write(tmp_path / "rows.tfrecord", records(x))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(PipelineError, match=message):
        run(linear_digits, path, tmp_path)
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_records_that_make_no_sense(x, linear_digits, tmp_path):
    path = write(tmp_path / "rows.tfrecord", [example(key=b"a", x=x[0].tobytes(), n=1, f=1.0)])
    for more, message in (
        ({"column": "pixels"}, r"has no feature 'pixels', it has \['f', 'key', 'n', 'x'\]"),
        ({"column": "n"}, "holds integers, expected bytes or floats"),
        ({"key": "f"}, "holds floats, expected text or an integer"),
        ({"column": "f"}, r"column 'f' holds float32 \[1\]"),
        ({"split": "test"}, "no split 'test'"),
    ):
        with pytest.raises(PipelineError, match=message):
            run(linear_digits, path, tmp_path, **more)
    with pytest.raises(PipelineError, match=r"are not tf\.Examples: write each as tf\.train\.Example"):
        run(linear_digits, write(tmp_path / "junk.tfrecord", [b"\xff\xff"]), tmp_path)
    (tmp_path / "notes.txt").write_text("what is this, a text?")
    with pytest.raises(PipelineError, match="is none of Parquet, TFRecord, CSV"):
        run(linear_digits, tmp_path / "notes.txt", tmp_path)
    (tmp_path / "b.parquet").write_bytes(b"PAR1")
    with pytest.raises(PipelineError, match=r"more than one kind \(Parquet, TFRecord\)"):
        run(linear_digits, tmp_path, tmp_path / "elsewhere")


def test_a_folder_of_images(x, linear_digits, tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.inputs.images.UNIT_IMAGES", 16)
    names = [f"{i % 3}/Bild {i:02d}é.PNG" for i in range(ROWS)]
    for name, row in zip(names, x, strict=True):
        write_png(tmp_path / "in" / name, row[..., 0])
    (tmp_path / "in" / "0" / "broken.png").write_bytes(b"no picture")
    (tmp_path / "in" / "notes.txt").write_text("not for embedding")
    model = Decoding(tmp_path / "model" / "1", linear_digits)
    summary = run(model, tmp_path / "in", tmp_path)
    assert summary.exit_code == 3 and summary.units == 4
    assert_equals_numpy(tmp_path / "out", linear_digits, dict(zip(names, x, strict=True)))
    [bad] = rejections(tmp_path / "out").values()
    assert (bad["key"], bad["source"], bad["position"]) == ("0/broken.png", "0/broken.png", 0)
    again = run(model, tmp_path / "in", tmp_path)
    assert again.units_done == 0
    write_png(tmp_path / "in" / names[7], x[8][..., 0])
    assert 1 <= run(model, tmp_path / "in", tmp_path).units_done < 4
    changed = dict(zip(names, x, strict=True)) | {names[7]: x[8]}
    assert_equals_numpy(tmp_path / "out", linear_digits, changed)
    with pytest.raises(PipelineError, match="which have no columns"):
        run(model, tmp_path / "in", tmp_path, key="name")
    with pytest.raises(PipelineError, match=r"have at most a label to keep, not \['name'\]"):
        run(model, tmp_path / "in", tmp_path / "other", keep=["name"])


@pytest.mark.parametrize(
    ("folders", "labels"),
    [("0 3 10", [0, 3, 10]), pytest.param("cat dog 3", ["cat", "dog", "3"], marks=pytest.mark.slow)],
)
def test_the_label_that_a_folder_says_is_kept(x, linear_digits, tmp_path, folders, labels):
    names = [f"{folder}/{i}.png" for i in range(2) for folder in folders.split()]
    for name, row in zip(names, x, strict=False):
        write_png(tmp_path / "in" / name, row[..., 0])
    (tmp_path / "in" / folders.split()[0] / "broken.png").write_bytes(b"no picture")
    model = Decoding(tmp_path / "model" / "1", linear_digits)
    run(model, tmp_path / "in", tmp_path, keep=["label"], partition_by=["label"])
    found = embed.read_embeddings(str(tmp_path / "out"))
    kept = dict(zip(found["key"].to_pylist(), found["label"].to_pylist(), strict=True))
    assert kept == {name: labels[folders.split().index(name.split("/")[0])] for name in names}
    write_png(tmp_path / "loose" / "a.png", x[0][..., 0])
    with pytest.raises(PipelineError, match="has no labels to keep"):
        run(model, tmp_path / "loose", tmp_path / "other", keep=["label"])


def test_a_file_beyond_the_limit_is_rejected_unread(x, linear_digits, tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.inputs.images.MAX_BYTES", 1000)
    write_png(tmp_path / "in" / "good.png", x[0][..., 0])
    (tmp_path / "in" / "huge.png").write_bytes(b"\x89PNG" + bytes(1000))
    run(Decoding(tmp_path / "model" / "1", linear_digits), tmp_path / "in", tmp_path)
    assert "1004 bytes, expected at most 1000 for an image" in rejections(tmp_path / "out")["huge.png"]["reason"]


@pytest.mark.slow
def test_a_prepared_dataset_keeps_its_labels(linear_digits, prepared_digits, tmp_path):
    done = command("pipelines.embed", "--model", linear_digits.path, "--input", prepared_digits, "--output",
                   tmp_path / "out", "--keep", "label")  # fmt: skip
    assert done.returncode == 0, done.stderr
    table = embed.read_embeddings(str(tmp_path / "out"))
    labels = {key: label for key, (_, label) in read_dataset(prepared_digits, "test").items()}
    assert dict(zip(table["key"].to_pylist(), table["label"].to_pylist(), strict=True)) == labels
    assert pc.sum(table["label"]).as_py() > 0
    with pytest.raises(PipelineError, match=r"no feature 'who' to keep, expected one of \['label'\]"):
        run(linear_digits, prepared_digits, tmp_path, keep=["who"])


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((8, 8, 3), "the image has shape [8, 8, 3], expected [8, 8, 1]"),
        ((9, 7, 1), "the image has height and width [9, 7], expected [8, 8]"),
    ],
    ids=str,
)
def test_what_the_checks_of_an_export_say_is_one_sentence(shape, expected):
    """TensorFlow shows the parts of an assertion in brackets, in an error of many lines."""
    decode = tf.function(lambda content: guards.decoded(content, (8, 8, 1)))
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        decode(tf.io.encode_png(np.zeros(shape, np.uint8))[None])
    assert first_line(caught.value) == expected
