"""CSV as a source: the numbers that were written, whatever the quotes and line ends; every bad row by itself."""

import csv

import numpy as np
import pyarrow.csv
import pytest

from pipelines import preprocess
from pipelines.errors import PipelineError
from pipelines.sources import Fields, make_source

from ..conftest import column, read_all, read_dataset, rejections


def source(path, **fields):
    return make_source("csv", str(path), fields=Fields(**fields))


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
def test_what_was_written_and_what_arrow_reads(tmp_path, line_end, encoding, quoting):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 3)) * 10.0 ** rng.integers(-30, 30, (40, 3))
    keys = [f'row "{i}",\n{"ü" * i}' for i in range(40)]
    with open(tmp_path / "x.csv", "w", newline="", encoding=encoding) as file:
        writer = csv.writer(file, lineterminator=line_end, quoting=quoting)
        writer.writerow(["b", "key", "a", "label", "c d"])
        writer.writerows([b, key, a, i % 3, c] for i, (key, (b, a, c)) in enumerate(zip(keys, x.tolist(), strict=True)))
    reader = source(tmp_path / "x.csv")
    plan, rows = read_all(reader)
    assert column(plan, "key") == keys and plan.schema.labels == ("0", "1", "2") and not plan.rejected
    assert (plan.schema.shape, plan.schema.dtype) == ((3,), "float32")
    np.testing.assert_array_equal(np.stack([row.x for row in rows]), x.astype(np.float32))
    arrow = pyarrow.csv.read_csv(tmp_path / "x.csv", parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True))
    assert arrow["key"].to_pylist() == column(plan, "key") and arrow["label"].to_pylist() == [row.label for row in rows]
    np.testing.assert_array_equal(np.float32([row.x[2] for row in rows]), np.float32(arrow["c d"]))
    chosen = np.random.default_rng(1).permutation(40)[:15]
    batch = reader.read_rows(plan.rows.take(chosen), plan.schema)
    np.testing.assert_array_equal(batch.x, x[chosen].astype(np.float32))
    np.testing.assert_array_equal(batch.labels, chosen % 3)


def test_a_position_is_where_the_row_begins(tmp_path):
    text = '\ufeffkey,x\r\n"a\nb",1\r\n\r\nc,2'
    path = write(tmp_path / "x.csv", text)
    plan = source(path).plan()
    assert column(plan, "key") == ["a\nb", "c"]
    raw = path.read_bytes()
    assert [raw[position:][:1] for position in column(plan, "position")] == [b'"', b"c"]


def test_named_columns_words_and_a_last_line_without_an_end(tmp_path):
    path = write(tmp_path / "x.csv", "species,1,id,2\ncat,1,a,-2.5e-1\ndög,  3 ,b,4")
    plan, rows = read_all(source(path, key="id", label="species"))
    assert column(plan, "key") == ["a", "b"] and plan.schema.labels == ("cat", "dög")
    assert [(row.x.tolist(), row.label) for row in rows] == [([1, -0.25], 0), ([3, 4], 1)]


@pytest.mark.parametrize(
    ("labels", "names", "indices"),
    [
        ("2 0 2", ("0", "1", "2"), [2, 0, 2]),
        ("2 0 x", ("0", "2", "x"), [1, 0, 2]),
        ("02 0 2", ("0", "02", "2"), [1, 0, 2]),
        ("1 0 99999999", ("0", "1", "99999999"), [1, 0, 2]),
    ],
)
def test_labels_are_numbers_where_all_of_them_are(tmp_path, labels, names, indices):
    path = write(tmp_path / "x.csv", "x,label\n" + "".join(f"1,{label}\n" for label in labels.split()))
    plan, rows = read_all(source(path))
    assert plan.schema.labels == names and [row.label for row in rows] == indices


def test_a_folder_without_keys(tmp_path):
    for name, rows in (("b.csv", "3\n4\n"), ("a.csv", "1\n2\n")):
        write(tmp_path / name, f"x\n{rows}")
    plan, rows = read_all(source(tmp_path))
    assert column(plan, "key") == ["a.csv:0", "a.csv:1", "b.csv:0", "b.csv:1"] and plan.schema.labels is None
    assert [row.x.tolist() for row in rows] == [[1], [2], [3], [4]]


BAD = {
    "empty": (",2,0", "column 'x' is empty"),
    "blank": (" ,2,0", "column 'x' is empty"),
    "word": ("1,two,0", "column 'y' is 'two', expected a number"),
    "grouped": ("1_0,2,0", "column 'x' is '1_0', expected a number"),
    "digits of another script": ("１,2,0", "column 'x' is '\\uff11', expected a number"),
    "short": ("1,0", "3 cells, expected 4"),
    "long": ("1,2,0,9", "5 cells, expected 4"),
    "nan": ("nan,2,0", "1 of 2 values are not finite"),
    "large": ("1e39,-inf,0", "2 of 2 values are not finite"),
    "no label": ("1,2,", "the label is empty"),
}


def test_bad_rows_are_named_and_the_others_kept(tmp_path):
    good = [f"good{i},{i},{i / 4},{i % 2}" for i in range(20)]
    bad = [f"{name},{cells}" for name, (cells, _) in BAD.items()]
    lines = [line for pair in zip(good, bad, strict=False) for line in pair] + good[len(bad) :]
    text = "\n".join(["key,x,y,label", *lines, ",1,2,0"]).encode() + b"\n\xff,1,2,0\nlatin,1,2,\xe9\n"
    (tmp_path / "x.csv").write_bytes(text)
    summary = preprocess.run("csv", str(tmp_path / "x.csv"), str(tmp_path / "out"), test_fraction=0.3)
    rows = read_dataset(str(tmp_path / "out"), "train") | read_dataset(str(tmp_path / "out"), "test")
    assert {key: (x.tolist(), label) for key, (x, label) in rows.items()} == {
        f"good{i}": ([i, i / 4], i % 2) for i in range(20)
    }
    found = {row["position"]: row["reason"] for row in rejections(tmp_path / "out").values()}
    assert len(found) == summary.rejected == len(BAD) + 3
    for name, (_, reason) in BAD.items():
        assert found[text.index(f"\n{name},".encode()) + 1] == reason
    assert found[text.index(b"\n,1,2,0") + 1] == "the key is empty"
    assert found[text.index(b"\xff,1")] == "the key is not UTF-8"
    assert found[text.index(b"latin")] == "the label is not UTF-8"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no header"),
        ("a,,b\n1,2,3\n", "columns \\[''\\], which are no names"),
        ("a,b,a\n1,2,3\n", "columns \\['a', 'a'\\], which are no names, or not different"),
        ("key\na\n", "expected some with numbers beside them"),
        ("a,b\n", "none of the 0 rows"),
        ("key,a\n,1\n", "none of the 1 rows can be taken; the first, x.csv:6: the key is empty"),
        ("a\n1\n2\r3\n", "cannot be read at byte 4"),
        ('key,a\n"b,1\nc,2\n', "cannot be read at byte 6"),
        ('key,a\n"b"c,1\n', "cannot be read at byte 6"),
        ("a,label\n1,\n2,\n", "no row of .* has a label: name another --label"),
    ],
)
def test_files_that_make_no_sense(tmp_path, text, message):
    path = write(tmp_path / "x.csv", text)
    with pytest.raises(PipelineError, match=message):
        source(path).plan()


def test_other_mistakes(tmp_path):
    with pytest.raises(PipelineError, match=r"names no \.csv"):
        source(tmp_path / "absent.csv").plan()
    with pytest.raises(PipelineError, match="UTF-16"):
        source(write(tmp_path / "x.csv", "a\n1\n", "utf-16")).plan()
    path = write(tmp_path / "a.csv", "a,b\n1,2\n")
    for field in ("key", "label"):
        with pytest.raises(PipelineError, match=r"no column 'id', expected one of \['a', 'b'\]"):
            source(path, **{field: "id"}).plan()
    with pytest.raises(PipelineError, match="no use for --column"):
        source(path, column="a")
    write(tmp_path / "x.csv", "b,a\n1,2\n")
    with pytest.raises(PipelineError, match=r"x\.csv and a\.csv have different columns"):
        source(tmp_path).plan()


def test_a_row_without_an_end_takes_no_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.sources.csv._MAX_ROW_BYTES", 1000)
    for row in ("1" * 5000, ",".join(['"\n"'] * 500)):
        with pytest.raises(PipelineError, match="has a row of more than 1000 bytes at byte 2"):
            source(write(tmp_path / "x.csv", f"a\n{row}\n2\n")).plan()


def test_a_file_that_changed_since_the_plan(tmp_path):
    reader = source(write(tmp_path / "x.csv", "a,b\n1,2\n3,4\n"))
    plan = reader.plan()
    write(tmp_path / "x.csv", "a,b\n1,2\n")
    with pytest.raises(PipelineError, match="it has changed"):
        reader.read_rows(plan.rows.slice(1, 1), plan.schema)
    assert not reader.read_rows(plan.rows.slice(0, 1), plan.schema).reasons
