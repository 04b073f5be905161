"""TFRecords as a source: what TensorFlow wrote is what is read; a damaged file is named as a whole, a bad row alone."""

import gzip

import numpy as np
import pytest

from pipelines import preprocess
from pipelines.errors import PipelineError
from pipelines.formats import seekable_gzip
from pipelines.sources import Fields, make_source

from ..conftest import artifacts, column, flat, png, read_all, read_dataset, rejections

ROWS = 30
KEYS = [f"Zeile {i:02d}é" for i in range(ROWS)]


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return np.random.default_rng(0).integers(1, 255, (ROWS, 8, 8, 1), dtype=np.uint8)


def serialized(**features) -> bytes:
    """An example: bytes and text are bytes lists, integers int64 lists, arrays float lists; None is left out."""
    import tensorflow as tf

    made = {}
    for name, value in features.items():
        if isinstance(value, np.ndarray):
            made[name] = tf.train.Feature(float_list=tf.train.FloatList(value=value))
        elif isinstance(value, int | np.integer):
            made[name] = tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
        elif value is not None:
            raw = value.encode() if isinstance(value, str) else value
            made[name] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[raw]))
    return tf.train.Example(features=tf.train.Features(feature=made)).SerializeToString()


def write(path, examples, compression=""):
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(path), compression) as writer:
        for example in examples:
            writer.write(example)
    return str(path)


def source(path, **fields):
    return make_source("tfrecord", str(path), fields=Fields(**fields))


FORMS = {
    "bytes": (lambda row: row.tobytes(), {"shape": (8, 8)}),
    "floats as bytes": (lambda row: (row / np.float32(255)).tobytes(), {"shape": (8, 8), "dtype": "float32"}),
    "image": (png, {}),
    "floats": (lambda row: row.ravel() / np.float32(255), {}),
    "shaped floats": (lambda row: row.ravel() / np.float32(255), {"shape": (8, 8)}),
}


@pytest.mark.parametrize("compression", ["", "GZIP"])
@pytest.mark.parametrize("form", FORMS)
def test_forms_of_an_observation_in_any_order_of_rows(form, compression, x, tmp_path, monkeypatch):
    monkeypatch.setattr(seekable_gzip, "_SPACING", 500)
    encode, fields = FORMS[form]
    examples = [
        serialized(key=key, x=encode(row), label=i % 3) for i, (key, row) in enumerate(zip(KEYS, x, strict=True))
    ]
    reader = source(write(tmp_path / "rows.tfrecord", examples, compression), **fields)
    plan, rows = read_all(reader)
    assert column(plan, "key") == KEYS and plan.schema.labels == ("0", "1", "2") and not plan.rejected
    expected = x / np.float32(255) if "floats" in form else x
    shape = {"floats": (64,), "shaped floats": (8, 8), "floats as bytes": (8, 8)}.get(form, (8, 8, 1))
    assert (plan.schema.shape, plan.schema.dtype) == (shape, expected.dtype.name)
    np.testing.assert_array_equal(np.stack([row.x for row in rows]), expected.reshape(ROWS, *shape))
    chosen = np.random.default_rng(1).permutation(ROWS)[:20]
    batch = reader.read_rows(plan.rows.take(chosen), plan.schema)
    np.testing.assert_array_equal(batch.x, expected[chosen].reshape(20, *shape))
    np.testing.assert_array_equal(batch.labels, chosen % 3)


def test_a_folder_of_shards_without_keys(x, tmp_path):
    for index, name in enumerate(("t.tfrecord-00000-of-00002", "t.tfrecord-00001-of-00002", "u.tfrec.gz")):
        part = x[index * 10 : index * 10 + 10]
        examples = [serialized(image=png(row), kind="ab"[i % 2]) for i, row in enumerate(part)]
        write(tmp_path / name, examples, "GZIP" if "gz" in name else "")
    (tmp_path / "dataset_info.json").write_text("{}")
    plan, rows = read_all(source(tmp_path, column="image", label="kind"))
    assert column(plan, "key")[9:11] == ["t.tfrecord-00000-of-00002:9", "t.tfrecord-00001-of-00002:0"]
    assert plan.schema.labels == ("a", "b") and [row.label for row in rows] == [0, 1] * 15
    np.testing.assert_array_equal(np.stack([row.x for row in rows]), x)


def test_a_prepared_dataset_is_an_input(prepared_digits, tmp_path):
    """Its records have the features that are looked for by default."""
    preprocess.run("tfrecord", prepared_digits, str(tmp_path / "out"), shape=[8, 8, 1])
    again = read_dataset(str(tmp_path / "out"), "train") | read_dataset(str(tmp_path / "out"), "test")
    first = read_dataset(prepared_digits, "train") | read_dataset(prepared_digits, "test")
    assert again.keys() == first.keys()
    assert all((again[key][0] == x).all() and again[key][1] == label for key, (x, label) in first.items())


def test_bad_rows_are_named_and_the_others_kept(x, tmp_path):
    rows = [{"key": key, "x": png(row), "label": 1} for key, row in zip(KEYS, x, strict=True)]
    rows[3]["x"], rows[4]["x"], rows[5]["x"] = None, b"no picture", flat(x)[5].astype(np.float32)
    rows[6]["key"], rows[7]["key"], rows[8]["key"] = None, b"\xff", 77
    rows[9]["label"], rows[10]["label"] = None, -2
    examples = [serialized(**row) for row in rows]
    examples[11] = b"not an example"
    path = write(tmp_path / "rows.tfrecord", examples)
    summary = preprocess.run("tfrecord", path, str(tmp_path / "out"), test_fraction=0.3)
    good = read_dataset(str(tmp_path / "out"), "train") | read_dataset(str(tmp_path / "out"), "test")
    bad = {3, 4, 5, 6, 7, 9, 10, 11}
    names = {i: "77" if i == 8 else key for i, key in enumerate(KEYS) if i not in bad}
    assert good.keys() == set(names.values()) and summary.rejected == 8
    assert all((good[name][0] == x[i]).all() for i, name in names.items())
    offsets = np.cumsum([0, *(len(example) + 16 for example in examples)])
    reasons = {row["position"]: row["reason"] for row in rejections(tmp_path / "out").values()}
    assert sorted(reasons) == sorted(offsets[list(bad)])
    for row, reason in (
        (3, "no feature 'x'"),
        (4, "not a readable PNG"),
        (5, "x has 64 values of float32, expected uint8"),
        (6, "no feature 'key', expected the key"),
        (7, "the key is not one integer or one string of UTF-8"),
        (9, "the label is null"),
        (10, "label -2, expected one of 2 classes"),
        (11, "not a tf.Example"),
    ):
        assert reason in reasons[offsets[row]], row


@pytest.mark.parametrize("compression", ["", "GZIP"])
def test_every_kind_of_damage_is_an_error_that_names_the_file(compression, x, tmp_path):
    examples = [serialized(key=key, x=png(row)) for key, row in zip(KEYS, x, strict=True)]
    path = write(tmp_path / "rows.tfrecord", examples, compression)
    content = (tmp_path / "rows.tfrecord").read_bytes()
    rng = np.random.default_rng(0)
    for cut in rng.integers(1, len(content), 20):
        (tmp_path / "rows.tfrecord").write_bytes(content[:cut])
        with pytest.raises(PipelineError, match=r"rows\.tfrecord"):
            source(path).plan()
    for where in rng.integers(12 if compression else 0, len(content), 40):
        damaged = bytearray(content)
        damaged[where] ^= 1 << rng.integers(0, 8)
        (tmp_path / "rows.tfrecord").write_bytes(damaged)
        with pytest.raises(PipelineError, match=r"rows\.tfrecord"):
            source(path).plan()


def test_a_record_too_large_for_an_image_is_passed_over(x, tmp_path):
    examples = [serialized(key=key, x=png(row)) for key, row in zip(KEYS[:3], x, strict=False)]
    examples[1] = serialized(key=KEYS[1], x=png(x[1]), more=bytes(2 << 20))
    for compression in ("", "GZIP"):
        path = write(tmp_path / f"{compression}.tfrecord", examples, compression)
        plan = make_source("tfrecord", path, max_pixels=100).plan()
        assert column(plan, "key") == [KEYS[0], KEYS[2]] and "which is too many" in plan.rejected[0].reason
        assert len(column(make_source("tfrecord", path).plan(), "key")) == 3
    truncated = (tmp_path / ".tfrecord").read_bytes()[: 1 << 20]
    (tmp_path / ".tfrecord").write_bytes(truncated)
    with pytest.raises(PipelineError, match="is truncated"):
        make_source("tfrecord", str(tmp_path / ".tfrecord"), max_pixels=100).plan()


def test_a_bomb_of_gzip_takes_no_memory(x, tmp_path):
    """A record of a gigabyte of zeros is one megabyte on disk: it is passed over as it is unpacked."""
    import resource

    from pipelines.formats import tfrecords

    good = serialized(key="a", x=png(x[0]))
    length = (1 << 30).to_bytes(8, "little")
    with gzip.open(tmp_path / "bomb.tfrecord.gz", "wb", compresslevel=1) as file:
        file.write(tfrecords.frame(good) + length + tfrecords._CRC.pack(tfrecords._masked_crc(length)))
        for _ in range(1 << 10):
            file.write(bytes(1 << 20))
        file.write(bytes(4) + tfrecords.frame(good))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    plan = source(tmp_path / "bomb.tfrecord.gz").plan()
    assert column(plan, "key") == ["a", "a"] and "a record of 1073741824 bytes" in plan.rejected[0].reason
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10  # kilobytes


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"key": "id"}, "none of the 1 rows .* no feature 'id', expected the key"),
        ({"column": "y"}, "no record"),
        ({"label": "y"}, "no row of .* has a label"),
        ({"dtype": "float32"}, "give --shape too"),
    ],
)
def test_options_that_make_no_sense(x, tmp_path, fields, message):
    path = write(tmp_path / "rows.tfrecord", [serialized(key="a", x=png(x[0]))])
    with pytest.raises(PipelineError, match=message):
        source(path, **fields).plan()


def test_files_that_are_none(tmp_path):
    for content in (b"", b"text that is no record", b"\x1f\x8b\x08"):
        (tmp_path / "rows.tfrecord").write_bytes(content)
        with pytest.raises(PipelineError, match=r"rows\.tfrecord"):
            source(tmp_path / "rows.tfrecord").plan()
    with pytest.raises(PipelineError, match=r"names no \.tfrecord or"):
        source(tmp_path / "absent").plan()


def test_gzip_or_not_the_dataset_is_the_same(x, tmp_path):
    examples = [serialized(key=key, x=png(row), label=1) for key, row in zip(KEYS, x, strict=True)]
    for compression in ("", "GZIP"):
        path = write(tmp_path / f"{compression}rows.tfrecord", examples, compression)
        preprocess.run("tfrecord", path, str(tmp_path / f"{compression}out"), test_fraction=0.3, rows_per_shard=5)
    plain, packed = (artifacts(tmp_path / name) for name in ("out", "GZIPout"))
    shards = [name for name in plain if ".tfrecord-" in name]
    assert len(shards) > 5 and all(plain[name] == packed[name] for name in shards)
