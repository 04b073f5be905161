"""Folders ``NAME=VALUE`` are columns in every kind of source that has folders, to ``prepare`` and ``embed`` alike."""

import os
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from pipelines.errors import PipelineError
from pipelines.inputs import open_input
from pipelines.sources import Fields, make_source

from ..conftest import column, png, read_all, write_png

LABELS = (0, 2, 10)


@pytest.fixture
def x():
    return np.random.default_rng(0).integers(0, 256, (6, 4, 3, 1), dtype=np.uint8)


def example(**features) -> bytes:
    kinds = {bytes: "bytes_list", int: "int64_list", float: "float_list"}
    made = {name: tf.train.Feature(**{kinds[type(value)]: {"value": [value]}}) for name, value in features.items()}
    return tf.train.Example(features=tf.train.Features(feature=made)).SerializeToString()


def write_part(kind: str, folder, rows: np.ndarray, **beside) -> None:
    """Two rows in a folder of their own; ``beside`` are further columns."""
    folder.mkdir(parents=True, exist_ok=True)
    if kind == "csv":
        lines = [",".join([*(f"c{i}" for i in range(12)), *beside])]
        lines += [",".join(map(str, [*row.ravel(), *beside.values()])) for row in rows]
        (folder / "p.csv").write_text("\n".join(lines))
    elif kind == "parquet":
        table = pa.table({"x": rows.reshape(len(rows), -1).tolist(), **{k: [v] * len(rows) for k, v in beside.items()}})
        pq.write_table(table, folder / "p.parquet")
    elif kind == "tfrecord":
        with tf.io.TFRecordWriter(str(folder / "p.tfrecord")) as writer:
            for row in rows:
                writer.write(example(x=row.tobytes(), **beside))
    else:
        for i, row in enumerate(rows):
            write_png(folder / f"{i}.png", row[..., 0])


def opened(kind: str, root):
    if kind == "archive":
        with tarfile.open(root.parent / "all.tar", "w") as archive:
            for path in sorted(root.rglob("*.png")):
                archive.add(path, str(path.relative_to(root)))
        return make_source("images", str(root.parent / "all.tar"))
    fields = {
        "csv": Fields(dtype="uint8", shape=(4, 3)),
        "tfrecord": Fields(shape=(4, 3)),
        "parquet": Fields(dtype="uint8"),
    }
    return make_source(kind, str(root), fields=fields.get(kind))


@pytest.mark.parametrize("kind", ["csv", "parquet", "tfrecord", "images", "archive"])
def test_a_label_is_what_its_folder_says(kind, x, tmp_path):
    """Classes by number, 10 after 2; the value is the folder's and that of PyArrow's own reader of such folders."""
    for i, label in enumerate(LABELS):
        write_part(kind, tmp_path / "in" / f"label={label}", x[2 * i : 2 * i + 2])
    plan, rows = read_all(opened(kind, tmp_path / "in"))
    assert plan.schema.labels == tuple(map(str, range(11)))
    assert [row.label for row in rows] == [0, 0, 10, 10, 2, 2]  # in the order of the folders' names
    order = [0, 1, 4, 5, 2, 3]
    np.testing.assert_array_equal(np.stack([row.x for row in rows]).reshape(6, -1), x[order].reshape(6, -1))
    assert all(f"label={row.label}/" in key for key, row in zip(column(plan, "key"), rows, strict=True))
    if kind == "csv":
        arrow = pyarrow.dataset.dataset(str(tmp_path / "in"), format="csv", partitioning="hive").to_table()
        assert arrow["label"].to_pylist() == [row.label for row in rows]


@pytest.mark.parametrize("kind", ["csv", "parquet", "tfrecord", "images", "archive"])
def test_words_in_folders_are_classes_by_name(kind, x, tmp_path):
    for i, label in enumerate(("tabby%20cat", "x7", "dog")):
        write_part(kind, tmp_path / "in" / f"label={label}", x[2 * i : 2 * i + 2])
    plan, rows = read_all(opened(kind, tmp_path / "in"))
    assert plan.schema.labels == ("dog", "tabby cat", "x7")
    assert sorted(row.label for row in rows) == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("kind", ["csv", "parquet", "tfrecord", "images", "archive"])
@pytest.mark.parametrize("other", ["2", "dog"])
def test_the_null_of_hive_is_no_class(kind, other, x, tmp_path):
    for i, label in enumerate((other, "__HIVE_DEFAULT_PARTITION__")):
        write_part(kind, tmp_path / "in" / f"label={label}", x[2 * i : 2 * i + 2])
    plan, rows = read_all(opened(kind, tmp_path / "in"))
    assert plan.schema.labels == (("0", "1", "2") if other == "2" else ("dog",))
    reasons = [row for row in rows if isinstance(row, str)] + [row.reason for row in plan.rejected]
    assert set(reasons) == {"the label is empty" if kind == "csv" else "the label is null"} and len(reasons) == 2
    assert [row.label for row in rows if not isinstance(row, str)] == [len(plan.schema.labels) - 1] * 2


@pytest.mark.parametrize("kind", ["csv", "tfrecord"])
def test_a_column_that_the_file_has_too(kind, x, tmp_path):
    write_part(kind, tmp_path / "in" / "label=2", x[:2], label=1)
    with pytest.raises(PipelineError, match="has a column 'label' and lies in a folder label=2: leave one of them out"):
        opened(kind, tmp_path / "in").plan()


@pytest.mark.parametrize("name", ["br[ack]et", "star*", "what?", "with space", "日本", "new\nline", "tab\t"])
@pytest.mark.parametrize("kind", ["images", "csv"])
def test_a_folder_of_any_name_is_read_alike(kind, name, x, tmp_path):
    folder = tmp_path / name
    folder.mkdir()
    if kind == "images":
        (folder / "a.png").write_bytes(png(x[0]))
    else:
        (folder / "a.csv").write_text("key,u,v\na.png,1,2\n")
    plan = make_source(kind, str(folder)).plan()
    assert plan.rows["key"].to_pylist() == ["a.png"] and not plan.rejected
    rows = open_input(str(folder))
    assert sum(block.rows for block in rows.blocks(None)) == 1 and not rows.rejected


def test_other_columns_of_a_table(x, tmp_path):
    """Numbers are part of x, words are asked about or categories, and ``embed`` gives what ``prepare`` does."""
    for height in (1.5, 2):
        for colour in ("red", "blue"):
            write_part("csv", tmp_path / "in" / f"height={height}" / f"colour={colour}", x[:1] + np.uint8(height))
    with pytest.raises(PipelineError, match=r"column 'colour' of .* holds text such as 'blue', expected numbers"):
        make_source("csv", str(tmp_path / "in")).plan()
    plan, rows = read_all(make_source("csv", str(tmp_path / "in"), fields=Fields(categories=("colour",))))
    assert plan.schema.columns[-2:] == (("height", None), ("colour", ("blue", "red")))
    assert [row.x[-3:].tolist() for row in rows] == [[1.5, 1, 0], [1.5, 0, 1], [2, 1, 0], [2, 0, 1]]
    listed = open_input(str(tmp_path / "in"), keep=["colour"], fields=Fields(label="colour"))
    assert listed.shape == (13,) and listed.schema.labels == ("blue", "red")
    dropped = make_source("csv", str(tmp_path / "in"), fields=Fields(drop=("colour", "height"))).plan()
    assert dropped.schema.shape == (12,)
    write_part("csv", tmp_path / "in" / "height=3", x[:1])
    with pytest.raises(PipelineError, match=r"height=3/p.csv has no column 'colour'"):
        make_source("csv", str(tmp_path / "in"), fields=Fields(categories=("colour",))).plan()


def test_a_row_that_is_not_plain_has_its_folders_cells_too(tmp_path):
    (tmp_path / "in" / "label=3" / "w=0.5").mkdir(parents=True)
    (tmp_path / "in" / "label=3" / "w=0.5" / "p.csv").write_text('key,a\n"one\nline",1\ntwo,2,3\nthree,x\nfour, 4\n')
    plan, rows = read_all(make_source("csv", str(tmp_path / "in")))
    assert [(row.x.tolist(), row.label) for row in rows if not isinstance(row, str)] == [
        ([1.0, 0.5], 3),
        ([4.0, 0.5], 3),
    ]
    assert [rejection.reason for rejection in plan.rejected] == ["3 cells, expected 2"]


@pytest.mark.parametrize("kind", ["csv", "parquet", "tfrecord", "images", "archive"])
def test_a_name_that_folders_say_twice_has_one_value(kind, x, tmp_path):
    """``embed`` refuses in the same words, where it has a reader of its own that takes columns from folders."""
    write_part(kind, tmp_path / "in" / "label=2" / "label=2", x[:2])
    assert column(opened(kind, tmp_path / "in").plan(), "key")
    write_part(kind, tmp_path / "in" / "label=1" / "label=2", x[2:4])
    told = r"the folders label=1/label=2 say 'label' twice, 1 and 2: rename one of them"
    with pytest.raises(PipelineError, match=told):
        opened(kind, tmp_path / "in").plan()
    if kind in ("parquet", "images"):
        with pytest.raises(PipelineError, match=told):
            open_input(str(tmp_path / "in")).blocks(None)


def test_images_partly_in_such_folders(x, tmp_path):
    write_part("images", tmp_path / "in" / "label=2", x[:2])
    write_part("images", tmp_path / "in" / "cat", x[:2])
    with pytest.raises(PipelineError, match=r"2 images lie in no folder label=VALUE \(cat/0.png, ...\), the others do"):
        opened("images", tmp_path / "in").plan()


def test_a_label_is_a_float_in_tfrecords(x, tmp_path):
    """A whole one is its class; another, which was dropped without a word, is refused by name."""
    for name, labels in (("whole", (2.0, 0.0)), ("share", (2.0, 0.5))):
        with tf.io.TFRecordWriter(str(tmp_path / f"{name}.tfrecord")) as writer:
            for row, label in zip(x, labels, strict=False):
                writer.write(example(x=row.tobytes(), label=label))
    source = make_source("tfrecord", str(tmp_path / "whole.tfrecord"), fields=Fields(shape=(4, 3)))
    assert [row.label for row in read_all(source)[1]] == [2, 0]
    with pytest.raises(PipelineError, match=r"feature 'label' holds 0\.5, a number that is no class: name another"):
        make_source("tfrecord", str(tmp_path / "share.tfrecord"), fields=Fields(shape=(4, 3))).plan()


@pytest.mark.parametrize(
    ("kind", "suffix"), [("csv", "csv"), ("parquet", "parquet"), ("tfrecord", "tfrecord"), ("npz", "npz")]
)
def test_a_pipe_among_files_is_refused_and_not_waited_for(tmp_path, x, kind, suffix):
    os.mkfifo(tmp_path / f"b.{suffix}")
    (tmp_path / f"a.{suffix}").write_bytes(b"")
    with pytest.raises(PipelineError, match=rf"b.{suffix} is a pipe, a socket or a device, expected a file"):
        make_source(kind, str(tmp_path), Fields()).plan()
    if kind != "npz":
        with pytest.raises(PipelineError, match=rf"b.{suffix} is a pipe, a socket or a device, expected a file"):
            open_input(str(tmp_path))
