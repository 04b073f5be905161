"""CSV as a source: the numbers that were written, whatever the quotes and line ends; every bad row by itself."""

import csv
import gzip

import numpy as np
import PIL.Image
import pyarrow.csv
import pyarrow.parquet
import pytest

from pipelines import preprocess
from pipelines.errors import PipelineError
from pipelines.inputs import Preparation, open_input
from pipelines.jobs.commits import Output
from pipelines.sources import Fields, make_source
from pipelines.sources.csv_columns import Columns

from ..conftest import column, read_all, read_dataset, rejections

encode = Columns.encode


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


CELLS = (
    *("1", "-2.5", " 3 ", "\t4", "+5", "1e39", "-1e400", "4.9e-324", "1e-400", "0.1000000000000000055511151231257827"),
    *("", " ", "nan", "nan(1)", "inf", "-", "?", "NA", "1_0", "0x1", "1.", ".5", "1e", "１", "x", '"7"', '"8,1"', '"9'),
    *('"a\nb"', '"a""b"', 'a"b', '""', '"c"\r', "\0", "\ufeff", "ü", "\udce9", "1" * 150_000),
)


@pytest.mark.parametrize("seed", range(8))
def test_blocks_give_what_rows_give(tmp_path, monkeypatch, seed):
    """What Arrow reads is what Python's csv and float read: the same rows, bits and reasons, whatever the text."""
    rng = np.random.default_rng(seed)
    odd = rng.permutation(len(CELLS))[: 1 + seed * 2]
    lines = ["key,a,label,b"]
    for row in range(3000):
        cells = [f"k{row}", f"{rng.normal():.17g}", str(row % 3), f"{rng.normal() * 10.0 ** rng.integers(-40, 30):.9e}"]
        if rng.random() < 0.02:
            cells[rng.integers(4)] = CELLS[rng.choice(odd)]
        if rng.random() < 0.005:
            cells = cells[: rng.integers(5)] + ["1"] * rng.integers(3)
        lines.append(",".join(cells))
    content = ("\r\n" if seed % 2 else "\n").join(lines).encode("utf-8", "surrogateescape")
    (tmp_path / "x.csv").write_bytes(content)
    monkeypatch.setattr("pipelines.sources.csv._LARGEST", 50_000)
    monkeypatch.setattr("pipelines.sources.csv._SMALLEST", 500)

    def answer():
        try:
            plan = source(tmp_path / "x.csv").plan()
            batch = source(tmp_path / "x.csv").read_rows(plan.rows, plan.schema)
        except PipelineError as error:
            return [str(error)]
        columns = [plan.rows[name].to_pylist() for name in ("key", "file", "position")]
        rejected = sorted(plan.rejected, key=lambda row: row.position)
        return [columns, rejected, plan.schema, batch.x.tobytes(), batch.labels.tolist(), batch.reasons]

    found = answer()
    for name in ("_plain_texts", "_plain_values"):
        monkeypatch.setattr(f"pipelines.sources.csv.{name}", lambda *arguments: None)
    assert found == answer()


def test_most_rows_of_a_table_are_read_by_blocks(tmp_path, monkeypatch):
    lines = [f"{i},{i / 7!r}" if i % 100 else f"{i}," for i in range(5000)]
    path, opened = write(tmp_path / "x.csv", "\n".join(["a,b", *lines])), []
    monkeypatch.setattr(
        "pipelines.sources.csv.Columns.encode",
        lambda self, cells, *rest: opened.append(cells) or encode(self, cells, *rest),
    )
    rows = read_all(source(path))[1]
    assert [len(cells) for cells in opened] == [2] * 50
    assert [row if isinstance(row, str) else row.x[1] for row in rows] == [
        np.float32(i / 7) if i % 100 else "column 'b' is empty" for i in range(5000)
    ]


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
        ("10 -1 9", ("-1", "9", "10"), [2, 0, 1]),
        ("3.10 3.0 3.11", ("3.0", "3.10", "3.11"), [1, 0, 2]),
        ("2.0 10.0 x", ("10.0", "2.0", "x"), [1, 0, 2]),
    ],
)
def test_labels_are_numbers_where_all_of_them_are(tmp_path, labels, names, indices):
    path = write(tmp_path / "x.csv", "x,label\n" + "".join(f"1,{label}\n" for label in labels.split()))
    plan, rows = read_all(source(path))
    assert plan.schema.labels == names and [row.label for row in rows] == indices


@pytest.mark.parametrize("labels", ["0.0 1.0 10.0", "0 1. 2", "-1.00 3"])
def test_whole_numbers_that_were_written_as_floats_are_no_names_of_classes(tmp_path, labels):
    path = write(tmp_path / "x.csv", "x,label\n" + "".join(f"1,{label}\n" for label in labels.split()))
    with pytest.raises(PipelineError, match=r"is a whole one that was written as a float: write it '-?[01]'"):
        source(path).plan()


@pytest.mark.parametrize(
    ("cells", "told"),
    [
        (["1, 2", "1, 10"], r"labels of .* have ' (2|10)', which is another one than"),
        (["1,cat", "1,cat "], "have 'cat ', which is another one than 'cat': take off the blanks"),
        (["1, 2.5", "1, 3.5"], "have ' [23].5'"),
    ],
    ids=["numbers", "words", "fractions"],
)
def test_blanks_that_make_other_labels_are_told(tmp_path, cells, told):
    with pytest.raises(PipelineError, match=told):
        source(write(tmp_path / "x.csv", "x,label\n" + "\n".join(cells) + "\n")).plan()
    column = "\n".join(["1,red,0", "2,red ,0", ""])
    with pytest.raises(PipelineError, match=r"column 'colour' of .* have 'red ', which is another one than 'red'"):
        source(write(tmp_path / "y.csv", f"x,colour,label\n{column}"), categories=("colour",)).plan()


def test_words_that_all_begin_with_a_blank_are_names(tmp_path):
    plan, rows = read_all(source(write(tmp_path / "x.csv", "x,label\n1, cat\n2, dog\n")))
    assert plan.schema.labels == (" cat", " dog") and [row.label for row in rows] == [0, 1]


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


@pytest.mark.parametrize("bad", [2**24 + 1, -(2**31) + 3, 2**60 + 1, 10**30 + 7])
def test_a_whole_number_that_float32_does_not_hold_is_not_rounded(tmp_path, bad):
    held = [str(2**24), str(2**60), f"{2**24 + 1}.0", "123456789.125", " 33554436"]
    path = write(tmp_path / "x.csv", "".join(["key,a\n", *(f"k{i},{cell}\n" for i, cell in enumerate([*held, bad]))]))
    summary = preprocess.run("csv", str(path), str(tmp_path / "out"), test_fraction=0.0)
    rows = read_dataset(str(tmp_path / "out"), "train")
    assert {key: x.tolist() for key, (x, _) in rows.items()} == {
        f"k{i}": [float(np.float32(cell))] for i, cell in enumerate(held)
    }
    [reason] = [row["reason"] for row in rejections(tmp_path / "out").values()]
    assert summary.rejected == 1 and reason.startswith(f"column 'a' is '{bad}', a whole number that float32 does not")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no header"),
        ("a,,b\n1,2,3\n", "columns \\[''\\], which are no names"),
        ("a,b,a\n1,2,3\n", "columns \\['a', 'a'\\], which are no names, or not different"),
        ("a;b\n1,5;2\n", "cells seem to be separated by ';': save it with commas, and with decimal points"),
        ("a\tb\n1\t2\n", r"separated by '\\t'"),
        ("a,b\r1,2\r", "lines end in CR alone: let them end in LF"),
        ("key\na\n", "expected some with numbers beside them"),
        ("a,b\n", r"there are no rows in .*x\.csv: expected one at least"),
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


def test_a_column_may_be_named_twice(tmp_path):
    path = write(tmp_path / "x.csv", "name,a,c\nb,1,u\na,2,v\n")
    plan, rows = read_all(make_source("csv", path, fields=Fields(key="name", label="name", categories=("c", "c"))))
    assert column(plan, "key") == ["b", "a"] and [row.label for row in rows] == [1, 0]
    np.testing.assert_array_equal([row.x for row in rows], [[1, 1, 0], [2, 0, 1]])


@pytest.mark.parametrize("cells", ["pixel0,pixel1,pixel2,pixel3", "a,b,c,d"])
def test_no_byte_stands_for_a_missing_number(cells, tmp_path):
    path = write(tmp_path / "x.csv", f"{cells}\n1,2,3,4\n5,,7,8\n5,NA,7,8\n")
    _, rows = read_all(make_source("csv", path, fields=Fields(missing=True, dtype="uint8")))
    assert rows[0].x.ravel().tolist() == [1, 2, 3, 4] and "is empty" in rows[1] and "is 'NA', expected" in rows[2]


@pytest.mark.parametrize("kind", ["npy", "npz", "parquet", "png", "jpeg"])
def test_files_of_other_kinds_are_told_by_how_they_begin(tmp_path, kind):
    path, x = tmp_path / f"x.{kind}", np.zeros((4, 4), np.uint8)
    write_as = {
        "npy": lambda: np.save(path, x),
        "npz": lambda: np.savez(path, x=x),
        "parquet": lambda: pyarrow.parquet.write_table(pyarrow.table({"x": [1.0]}), path),
    }
    write_as.get(kind, lambda: PIL.Image.fromarray(x).save(path))()
    source_of = {"png": "images", "jpeg": "images"}.get(kind, kind)
    with pytest.raises(PipelineError, match=rf"x\.{kind} is no CSV file, but an? .*: say --source {source_of}"):
        source(path).plan()


def test_other_mistakes(tmp_path):
    with pytest.raises(PipelineError, match=r"names no \.csv"):
        source(tmp_path / "absent.csv").plan()
    with pytest.raises(PipelineError, match="UTF-16"):
        source(write(tmp_path / "x.csv", "a\n1\n", "utf-16")).plan()
    with pytest.raises(PipelineError, match="begins with text that is not UTF-8"):
        source(write(tmp_path / "x.csv", "größe\n1\n", "latin-1")).plan()
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
    monkeypatch.setattr("pipelines.formats.csv_text.MAX_ROW_BYTES", 1000)
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


@pytest.mark.parametrize(
    "text",
    ["0.5,-1\n1,-2\n", "7,0,0,0\n2,0,0,1\n", "5.1,3.5,Iris-setosa\n4.9,3,Iris-setosa\n", "1,2\n", "1,2\n\n3,x\n"],
)
def test_a_first_row_is_not_taken_for_names(tmp_path, text):
    path = write(tmp_path / "x.csv", text)
    for open_it in (lambda: source(path).plan(), lambda: open_input(str(path))):
        with pytest.raises(PipelineError, match=r"begins with .* looks like a row: say --no-header"):
            open_it()


def test_columns_without_names_are_called_by_their_numbers(tmp_path):
    path = write(tmp_path / "x.csv", "\ufeff7,0.5,a\n2,1.5,b\n")
    plan, rows = read_all(source(path, no_header=True, label="0", key="2"))
    assert column(plan, "key") == ["a", "b"] and [(row.x.tolist(), row.label) for row in rows] == [
        ([0.5], 7),
        ([1.5], 2),
    ]
    dataset = open_input(str(path), key="2", keep=["0"], fields=Fields(no_header=True)).fitted([1], "float32")
    assert dataset.plan.rows.equals(plan.rows) and dataset.schema == plan.schema
    with pytest.raises(PipelineError, match="no column '3', expected one of"):
        source(path, no_header=True, label="3").plan()


def test_numbers_may_be_names_beside_a_word(tmp_path):
    plan, rows = read_all(source(write(tmp_path / "x.csv", "time,400,405\n1,2,3\n")))
    assert [name for name, _ in plan.schema.columns] == ["time", "400", "405"] and rows[0].x.tolist() == [1, 2, 3]


def test_gzip(tmp_path):
    text = "a,b\n" + "".join(f"{i},{i / 3!r}\n" for i in range(3000))
    plain, packed = tmp_path / "plain" / "z.csv", tmp_path / "packed" / "z.csv.gz"
    for path, content in ((plain, text.encode()), (packed, gzip.compress(text.encode()))):
        path.parent.mkdir()
        path.write_bytes(content)
    (plan, rows), (gz_plan, gz_rows) = read_all(source(plain.parent)), read_all(source(packed.parent))
    assert column(plan, "position") == column(gz_plan, "position") and column(gz_plan, "file") == ["z.csv.gz"] * 3000
    np.testing.assert_array_equal([row.x for row in gz_rows], [row.x for row in rows])
    packed.write_bytes(packed.read_bytes()[:-20])
    with pytest.raises(PipelineError, match=r"z\.csv\.gz is broken"):
        source(packed).plan()
    assert open_input(str(plain.parent)).plan.rows.num_rows == 3000


@pytest.mark.parametrize("names", [[f"pixel{i}" for i in range(9)], [f"{r}x{c}" for r in (1, 2, 3) for c in (1, 2, 3)]])
def test_pixels_are_pictures(tmp_path, names):
    x = np.random.default_rng(0).integers(0, 256, (5, 3, 3))
    lines = [",".join(map(str, [i % 2, *row.ravel()])) for i, row in enumerate(x)]
    path = write(
        tmp_path / "x.csv", "\n".join([",".join(["label", *names]), *lines, "0" + ",1" * 8 + ",256", "0" + ",1.5" * 9])
    )
    plan, rows = read_all(source(path))
    assert (plan.schema.shape, plan.schema.dtype, plan.schema.labels) == ((3, 3, 1), "uint8", ("0", "1"))
    np.testing.assert_array_equal([row.x[..., 0] for row in rows[:5]], x)
    assert rows[5] == f"column {names[8]!r} is '256', expected a whole number from 0 to 255, or --dtype float32"
    assert rows[6] == f"column {names[0]!r} is '1.5', expected a whole number from 0 to 255, or --dtype float32"
    assert source(path, dtype="float32").plan().schema.shape == (9,)
    assert source(path, dtype="float32", shape=(3, 3)).plan().schema.shape == (3, 3)
    with pytest.raises(PipelineError, match=r"has 9 values a row, expected 8 for --shape \[2, 4\]"):
        source(path, shape=(2, 4)).plan()


def test_a_column_of_words(tmp_path):
    path = write(tmp_path / "x.csv", "height,colour,weight\n1.5,red,2\n2.5,blue,3\n3.5,,4\n4.5,red,x\n")
    for open_it in (lambda: source(path).plan(), lambda: open_input(str(path))):
        with pytest.raises(
            PipelineError, match=r"'colour' of .* holds text such as 'red'.*--key.*--categories.*--drop col"
        ):
            open_it()
    texts = write(tmp_path / "texts.csv", "a,b,my c\nx,1,y\n")
    with pytest.raises(PipelineError, match=r"columns 'a', 'my c' of .* such as 'x', 'y', .*--drop a 'my c'$"):
        source(texts).plan()
    with pytest.raises(PipelineError, match=r"say what it is, --key 'my c', --label 'my c' or --categories 'my c' "):
        source(write(tmp_path / "one.csv", "my c,b\nx,1\n")).plan()
    with pytest.raises(PipelineError, match=r"has no column 'a, b', expected one of .*: give the names apart, a b$"):
        source(texts, drop=("a, b",)).plan()
    assert [row.x.tolist() for row in read_all(source(path, drop=("colour",)))[1][:3]] == [[1.5, 2], [2.5, 3], [3.5, 4]]
    plan, rows = read_all(source(path, categories=("colour",)))
    assert plan.schema.columns == (("height", None), ("colour", ("blue", "red")), ("weight", None))
    assert [row.x.tolist() for row in rows[:2]] == [[1.5, 0, 1, 2], [2.5, 1, 0, 3]] and len(rows) == 3
    assert rows[2] == "column 'weight' is 'x', expected a number"
    assert [(row.position, row.reason) for row in plan.rejected] == [(42, "column 'colour' is empty")]
    with pytest.raises(PipelineError, match="'colour' cannot be of categories and the key"):
        source(path, categories=("colour",), key="colour").plan()
    with pytest.raises(PipelineError, match="no column 'hue'"):
        source(path, drop=("hue",)).plan()


def test_more_categories_than_a_column_of_words_has(tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.sources.csv._MAX_CATEGORIES", 3)
    path = write(tmp_path / "x.csv", "a,b\n" + "".join(f"{i},w{i}\n" for i in range(5)))
    with pytest.raises(PipelineError, match=r"column 'b' of x\.csv has more than 3 categories: take it for the --key"):
        source(path, categories=("b",)).plan()


def test_later_data_are_read_as_those_that_were_prepared(tmp_path):
    text = "id,height,colour,kind,note\n" + "".join(
        f"r{i},{i},{'red' if i % 2 else 'blue'},{i % 3},n\n" for i in range(40)
    )
    path, later = write(tmp_path / "x.csv", text), write(tmp_path / "y.csv", "id,height,colour\na,1,red\nb,2,green\n")
    options = {"key": "id", "label": "kind", "drop": ["note"], "categories": ["colour"]}
    preprocess.run("csv", str(path), str(tmp_path / "out"), **options)
    fields = Preparation.of(str(tmp_path / "out")).fields
    dataset = open_input(str(later), fields=fields).fitted([3], "float32")
    blocks = dataset.blocks(None)
    dataset = dataset.listed_in(str(tmp_path / "lists"))
    dataset.write_lists(Output(str(tmp_path)).writing, "lists", blocks)
    [block] = dataset.read(blocks[0])
    assert block.keys == ["a"] and block.x.tolist() == [[1, 0, 1]]
    assert block.rejected[0].key == "b"
    assert block.rejected[0].reason == "column 'colour' is 'green', which is none of its 2 categories"
    with pytest.raises(PipelineError, match=r"has the columns \['colour', 'height'\], expected \['height', 'colour'\]"):
        open_input(str(write(tmp_path / "z.csv", "id,colour,height\na,red,1\n")), fields=fields)
