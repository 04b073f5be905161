"""What an input holds beside its rows is named in the summary, by both jobs alike, whatever the format."""

import io
import json
import tarfile
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from pipelines import preprocess
from pipelines.inputs import open_input
from pipelines.sources import make_source

from ..conftest import png, write_idx

X = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)


def npz(folder):
    np.savez(folder / "a.npz", x=X, y=np.arange(4), weight=np.ones(4), mask=np.ones(4))
    np.savez(folder / "b.npz", x=X, y=np.arange(4), weight=np.ones(4))
    return "npz", ["notes.txt", "weight", "mask"]


def splits_of_npz(folder):
    np.savez(folder / "a.npz", x_train=X, x_test=X, y_train=np.arange(4), y_test=np.arange(4), x_dev=X, keys=np.ones(4))
    return "npz", ["notes.txt", "x_dev", "keys"]


def npy(folder):
    for name in ("train", "train_labels", "weight"):
        np.save(folder / f"{name}.npy", np.arange(4) if name == "train_labels" else X)
    return "npy", ["notes.txt", "weight.npy"]


def idx(folder):
    write_idx(folder / "train-images-idx3-ubyte", X)
    (folder / "t10k-images.gz").write_bytes(b"")
    return "idx", ["notes.txt", "t10k-images.gz"]


def table():
    columns = {"key": list("abcd"), "label": [0, 1, 0, 1], "x": [row.ravel().tolist() for row in X]}
    return pa.table({**columns, "weight": [1.0] * 4, "note": list("abcd")})


def parquet(folder):
    pq.write_table(table().drop(["note"]), folder / "a.parquet")
    (folder / "day=1").mkdir()
    pq.write_table(table().drop(["weight"]), folder / "day=1" / "b.parquet")
    return "parquet", ["notes.txt", "weight", "note", "day"]


def tfrecord(folder):
    bytes_of = {"key": b"a", "x": X[0].tobytes(), "note": b"mine"}
    features = {k: tf.train.Feature(bytes_list=tf.train.BytesList(value=[v])) for k, v in bytes_of.items()}
    features["label"] = tf.train.Feature(int64_list=tf.train.Int64List(value=[1]))
    with tf.io.TFRecordWriter(str(folder / "a.tfrecord")) as file:
        file.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())
    return "tfrecord", ["notes.txt", "note"]


def csv(folder):
    (folder / "a.csv").write_text("key,label,1,2\na,0,1,2\nb,1,2,3\n")
    return "csv", ["notes.txt"]


def images(folder):
    (folder / "a.png").write_bytes(png(X[0][..., None]))
    (folder / "labels.json").write_text("a,1")
    (folder / "Thumbs.db").write_bytes(b"")
    return "images", ["Thumbs.db", "labels.json", "notes.txt"]


def zipped(folder):
    with zipfile.ZipFile(folder / "in.zip", "w") as archive:
        archive.writestr("a.png", png(X[0][..., None]))
        archive.writestr("labels.json", "a,1")
    return "images", ["labels.json"]


def packed(folder):
    with tarfile.open(folder / "in.tar", "w") as archive:
        for name, content in (("a.png", png(X[0][..., None])), ("labels.json", b"a,1")):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return "images", ["labels.json"]


@pytest.mark.parametrize("write", [npz, splits_of_npz, npy, idx, parquet, tfrecord, csv, images, zipped, packed])
def test_what_is_not_read_is_named_by_both(write, tmp_path):
    kind, expected = write(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / ".hidden").write_text("")
    path = str(next(tmp_path.glob("in.*"), tmp_path))
    fields = {"shape": (4, 3)} if kind == "tfrecord" else {}
    plan = make_source(kind, path, fields=preprocess.Fields(**fields)).plan()
    assert list(plan.unread) == expected
    assert list(open_input(path).unread) == expected


def test_the_summary_names_the_first_ten(tmp_path):
    arrays = {f"a{i:02d}": X for i in range(12)}
    np.savez(tmp_path / "a.npz", x=X, **arrays)
    for _ in range(2):  # and a second run over finished output says it again
        lines = preprocess.run("npz", str(tmp_path / "a.npz"), str(tmp_path / "out")).table().splitlines()
        assert f"not read         {', '.join(sorted(arrays)[:10])}, 2 more" in lines
    hostile = tmp_path / "a\nrows in train    7\n.csv"
    np.savez(tmp_path / "a.npz", x=X, **{str(hostile.name): X})
    summary = preprocess.run("npz", str(tmp_path / "a.npz"), str(tmp_path / "second"))
    assert repr(hostile.name) in summary.table() and summary.table().count("rows in train") == 2


def test_notes_of_other_programs_are_hidden_files(tmp_path):
    for name in ("a.parquet", "_a.parquet"):
        pq.write_table(table(), tmp_path / name)
    (tmp_path / "_SUCCESS").touch()
    plan = make_source("parquet", str(tmp_path)).plan()
    assert (plan.hidden, plan.unread, open_input(str(tmp_path)).hidden) == (1, ("weight", "note"), 1)


def test_other_features_of_a_prepared_dataset_are_named(tmp_path):
    preprocess.run("digits", None, str(tmp_path))
    assert open_input(str(tmp_path)).unread == ()
    (tmp_path / "manifest.json").unlink()
    (tmp_path / "_work").rename(tmp_path.parent / "moved")
    features = json.loads((tmp_path / "features.json").read_text())
    named = features["featuresDict"]["features"]
    named["weight"] = named["key"]
    (tmp_path / "features.json").write_text(json.dumps(features))
    assert open_input(str(tmp_path)).unread == ("weight",)
