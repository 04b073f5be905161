"""Every source: one truth in many formats, and the same bytes for any workers and order of arrival."""

import csv
import gzip
import io
import tarfile
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from pipelines import embed, preprocess
from pipelines.errors import PipelineError
from pipelines.formats import tfrecords
from pipelines.inputs import open_input
from pipelines.sources import SOURCES

from ..conftest import Linear, artifacts, png, read_dataset, read_to_embed, rejections, write_idx

ROWS = 60


def truth() -> tuple[list[str], np.ndarray, np.ndarray]:
    """Keys, bytes `[N, 8, 8, 1]` and labels; the last ten rows repeat the content of the first ten."""
    x = np.random.default_rng(0).integers(0, 256, (ROWS, 8, 8, 1), dtype=np.uint8)
    x[-10:] = x[:10]
    return [f"{'ab'[i % 2]}/{i:02d}.png" for i in range(ROWS)], x, np.arange(ROWS) % 2


def write_idx_files(path):
    path.mkdir()
    write_idx(path / "train-images-idx3-ubyte", truth()[1][..., 0])
    return {"source": "idx", "input": str(path)}


def write_npy(path):
    np.save(path, truth()[1])
    return {"source": "npy", "input": f"{path}.npy"}


def write_npz(path):
    keys, x, labels = truth()
    np.savez_compressed(path, x=x, y=labels, keys=np.array(keys))
    return {"source": "npz", "input": f"{path}.npz"}


def write_images(path):
    for key, image in zip(*truth()[:2], strict=True):
        (path / key).parent.mkdir(parents=True, exist_ok=True)
        (path / key).write_bytes(png(image))
    return {"source": "images", "input": str(path)}


def write_tar(path):
    with tarfile.open(f"{path}.tar.gz", "w:gz") as archive:
        for key, image in zip(*truth()[:2], strict=True):
            entry = tarfile.TarInfo(key)
            entry.size = len(png(image))
            archive.addfile(entry, io.BytesIO(png(image)))
    return {"source": "images", "input": f"{path}.tar.gz"}


def write_zip(path):
    with zipfile.ZipFile(f"{path}.zip", "w") as archive:
        for key, image in zip(*truth()[:2], strict=True):
            archive.writestr(key, png(image))
    return {"source": "images", "input": f"{path}.zip"}


def write_csv(path):
    with open(f"{path}.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["key", *range(64), "label"])
        writer.writerows([key, *image.ravel().tolist(), label] for key, image, label in zip(*truth(), strict=True))
    return {"source": "csv", "input": f"{path}.csv"}


def write_parquet(path):
    keys, x, labels = truth()
    column = pa.array([row.tobytes() for row in x], pa.binary(64))
    pq.write_table(pa.table({"key": keys, "x": column, "label": labels}), f"{path}.parquet", row_group_size=7)
    return {"source": "parquet", "input": f"{path}.parquet", "shape": [8, 8]}


def write_tfrecord(path):
    with gzip.open(f"{path}.tfrecord.gz", "wb") as file:
        file.write(tfrecords.framed(*truth()))
    return {"source": "tfrecord", "input": f"{path}.tfrecord.gz", "shape": [8, 8]}


WRITERS = {
    "idx": write_idx_files,
    "npy": write_npy,
    "npz": write_npz,
    "images": write_images,
    "images in tar.gz": write_tar,
    "images in zip": write_zip,
    "csv": write_csv,
    "parquet": write_parquet,
    "tfrecord": write_tfrecord,
}
UNKEYED = ("idx", "npy")


def test_every_source_that_reads_files_is_here():
    assert {name.split()[0] for name in WRITERS} == SOURCES.keys() - {"digits", "tfds"}


@pytest.mark.parametrize("name", WRITERS)
def test_the_same_bytes_for_any_workers_and_order(name, tmp_path, monkeypatch):
    arguments = WRITERS[name](tmp_path / "in") | {"rows_per_shard": 9, "test_fraction": 0.3, "deduplicate": True}
    preprocess.run(**arguments, output=str(tmp_path / "a"))
    preprocess.run(**arguments, output=str(tmp_path / "b"), beam_args=["--direct_num_workers", "2"])
    create = preprocess.beam.Create
    monkeypatch.setattr(preprocess.beam, "Create", lambda units: create(list(reversed(units))))
    monkeypatch.setattr(SOURCES[arguments["source"]], "block_bytes", 400)  # a few rows at a time
    preprocess.run(**arguments, output=str(tmp_path / "c"))
    first = artifacts(tmp_path / "a")
    assert len([file for file in first if ".tfrecord-" in file]) >= 6
    assert first == artifacts(tmp_path / "b")
    # The moments of floats are added up by blocks: beyond the last digit, statistics do not depend on their size.
    same = [file for file in first if file.endswith(".jsonl") or ".tfrecord-" in file]
    assert {file: first[file] for file in same} == {file: artifacts(tmp_path / "c")[file] for file in same}


@pytest.mark.parametrize("name", WRITERS)
def test_every_row_once_and_equal_ones_rejected(name, tmp_path):
    arguments = WRITERS[name](tmp_path / "in") | {"rows_per_shard": 9, "test_fraction": 0.3, "deduplicate": True}
    preprocess.run(**arguments, output=str(tmp_path / "out"))
    rows = read_dataset(str(tmp_path / "out"), "train") | read_dataset(str(tmp_path / "out"), "test")
    keys, x, labels = truth()
    if name in UNKEYED:
        keys = [f"{'train' if name == 'idx' else 'row'}-{i:05d}" for i in range(ROWS)]
    order = range(ROWS) if name != "images" else sorted(range(ROWS), key=keys.__getitem__)
    first: dict[bytes, str] = {}
    kept = [i for i in order if first.setdefault(x[i].tobytes(), keys[i]) == keys[i]]
    assert rows.keys() == {keys[i] for i in kept} and len(kept) == ROWS - 10
    for i in kept:
        found, label = rows[keys[i]]
        np.testing.assert_array_equal(found.reshape(8, 8, 1), x[i])
        assert label == (None if name in UNKEYED else labels[i])
    reasons = {row["reason"].partition(",")[0] for row in rejections(tmp_path / "out").values()}
    assert reasons == {"duplicate content"} and len(rejections(tmp_path / "out")) == 10


def dtype_of(name: str) -> str:
    return {"csv": "float32", "images": "string"}.get(name, "uint8")


@pytest.mark.parametrize("name", WRITERS)
def test_what_is_embedded_is_what_is_prepared(name, tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.inputs.base.BLOCK_ROWS", 7)
    arguments = WRITERS[name](tmp_path / "in")
    preprocess.run(**arguments, output=str(tmp_path / "out"), test_fraction=0.3)
    prepared = read_dataset(str(tmp_path / "out"), "train") | read_dataset(str(tmp_path / "out"), "test")
    rows = open_input(arguments["input"])
    rows = rows.fitted((), "string") if name == "images" else rows.fitted((8, 8, 1), dtype_of(name))
    embedded, rejected = read_to_embed(rows, tmp_path / "embedded")
    assert embedded.keys() == prepared.keys() and len(embedded) == ROWS and not rejected
    for key, x in embedded.items():
        np.testing.assert_array_equal(x, prepared[key][0].reshape(8, 8, 1))


def unkeyed_parquet(path):
    _, x, _ = truth()
    table = pa.table({"x": pa.array([row.tobytes() for row in x], pa.binary(64))})
    pq.write_table(table, f"{path}.parquet", row_group_size=7)
    return {"source": "parquet", "input": f"{path}.parquet", "shape": [8, 8]}


def unkeyed_records(path):
    def feature(row):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[row.tobytes()]))

    with tf.io.TFRecordWriter(f"{path}.tfrec") as file:
        for row in truth()[1]:
            features = tf.train.Features(feature={"x": feature(row)})
            file.write(tf.train.Example(features=features).SerializeToString())
    return {"source": "tfrecord", "input": f"{path}.tfrec", "shape": [8, 8]}


@pytest.mark.parametrize("write", [unkeyed_parquet, unkeyed_records])
def test_rows_without_a_key_have_the_same_one(write, tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.inputs.tfrecords.UNIT_ROWS", 16)
    arguments = write(tmp_path / "in")
    preprocess.run(**arguments, output=str(tmp_path / "out"), test_fraction=0.3)
    prepared = read_dataset(str(tmp_path / "out"), "train") | read_dataset(str(tmp_path / "out"), "test")
    embedded, _ = read_to_embed(open_input(arguments["input"]).fitted((8, 8, 1), "uint8"), tmp_path / "embedded")
    assert embedded.keys() == prepared.keys() and len(embedded) == ROWS
    for key, x in embedded.items():
        np.testing.assert_array_equal(x, prepared[key][0])
    with pytest.raises(PipelineError, match=r"no (column|feature) 'id'"):
        open_input(arguments["input"], key="id")


def test_links_are_rejected_by_both(tmp_path):
    arguments = write_images(tmp_path / "in")
    (tmp_path / "in" / "a" / "link.png").symlink_to(tmp_path / "in" / "b" / "01.png")
    preprocess.run(**arguments, output=str(tmp_path / "out"))
    embedded, rejected = read_to_embed(open_input(arguments["input"]), tmp_path / "embedded")
    reasons = {key: row["reason"] for key, row in rejections(tmp_path / "out").items()}
    assert rejected == reasons == {"a/link.png": "a link: links are not followed"} and len(embedded) == ROWS


def test_a_csv_file_through_a_model(tmp_path):
    keys, x, labels = truth()
    values = (x.reshape(ROWS, 64) / 256).astype(np.float32)
    lines = [",".join(["key", *map(str, range(64)), "label"])]
    lines += [",".join([key, *map(str, row), str(label)]) for key, row, label in zip(keys, values, labels, strict=True)]
    lines += ["bad," + ",".join(["1"] * 63) + ",,1", "a/00.png," + ",".join(["1"] * 64) + ",1"]
    (tmp_path / "in.csv").write_text("\n".join(lines))
    arguments = {"input": str(tmp_path / "in.csv")}
    model = Linear(tmp_path / "model" / "1", (8, 8, 1))
    done = embed.run(model.path, arguments["input"], str(tmp_path / "out"), keep=["label"])
    table = embed.read_embeddings(str(tmp_path / "out"))
    assert table["key"].to_pylist() == keys and table["label"].to_pylist() == labels.tolist()
    np.testing.assert_allclose(np.stack(table["embedding"].to_numpy()), model.embed(values), rtol=1e-5, atol=1e-5)
    found = rejections(tmp_path / "out")
    assert done.exit_code == 3 and found["bad"]["reason"] == "column '63' is empty" and len(found) == 2
    assert found["a/00.png"]["reason"].startswith("duplicate key, first at in.csv:")
    again = embed.run(model.path, arguments["input"], str(tmp_path / "out"), keep=["label"])
    assert again.units_done == 0
    dropped = [embed.run(model.path, arguments["input"], str(tmp_path / "d"), drop=["label"]) for _ in range(2)]
    assert [run.units_done for run in dropped] == [1, 0]
    with pytest.raises(PipelineError, match="has no split 'test', it has none of its own"):
        embed.run(model.path, arguments["input"], str(tmp_path / "other"), split="test")


def hide(name: str, path) -> None:
    """Puts beside the data what a Mac and a notebook leave there."""
    fork = b"\x00\x05\x16\x07" + bytes(100)
    if name == "images":
        for hidden in ("a/._00.png", "__MACOSX/a/._00.png", ".ipynb_checkpoints/00.png"):
            (path / hidden).parent.mkdir(parents=True, exist_ok=True)
            (path / hidden).write_bytes(fork)
        return
    if name == "images in zip":
        with zipfile.ZipFile(f"{path}.zip", "a") as archive:
            for hidden in ("__MACOSX/a/._00.png", "a/._00.png", ".hidden/00.png"):
                archive.writestr(hidden, fork)
        return
    if name == "images in tar.gz":
        with gzip.open(f"{path}.tar.gz") as file, tarfile.open(fileobj=io.BytesIO(file.read())) as old:
            members = [(entry, old.extractfile(entry).read()) for entry in old.getmembers()]
        with tarfile.open(f"{path}.tar.gz", "w:gz") as archive:
            for hidden in ("./._a", "a/._00.png", "__MACOSX/._00.png", ".hidden/1.png"):
                entry = tarfile.TarInfo(hidden)
                entry.size = len(fork)
                archive.addfile(entry, io.BytesIO(fork))
            for entry, content in members:
                archive.addfile(entry, io.BytesIO(content))
        return
    suffix = {"csv": "csv", "parquet": "parquet", "tfrecord": "tfrecord.gz", "npz": "npz"}[name]
    for hidden in (f"._in.{suffix}", f"__MACOSX/._in.{suffix}", f".hidden/in.{suffix}"):
        (path.parent / hidden).parent.mkdir(parents=True, exist_ok=True)
        (path.parent / hidden).write_bytes(fork)


@pytest.mark.parametrize("name", [name for name in WRITERS if name not in UNKEYED])
def test_hidden_files_are_no_data_and_are_counted(name, tmp_path):
    (tmp_path / "data").mkdir()
    arguments = WRITERS[name](tmp_path / "data" / "in")
    if not name.startswith("images"):
        arguments["input"] = str(tmp_path / "data")
    hide(name, tmp_path / "data" / "in")
    summary = preprocess.run(**arguments, output=str(tmp_path / "out"))
    assert (sum(summary.rows.values()), summary.rejected, summary.hidden) == (ROWS, 0, 3)
    assert "hidden files     3 passed over" in summary.table()
    rows = open_input(arguments["input"])
    rows = rows.fitted((), "string") if name == "images" else rows.fitted((8, 8, 1), dtype_of(name))
    embedded, rejected = read_to_embed(rows, tmp_path / "embedded")
    assert (len(embedded), len(rejected), rows.hidden) == (ROWS, 0, 3)
