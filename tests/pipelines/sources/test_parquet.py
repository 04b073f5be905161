"""Parquet as a source: every form of column gives the rows that were written, every bad row is named."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import csv

from pipelines import preprocess
from pipelines.errors import PipelineError
from pipelines.inputs import open_input
from pipelines.sources import Fields, Schema, make_source

from ..conftest import FORMS, Row, column, fixed_binary, flat, png, read_all, read_dataset, rejections

ROWS = 50
KEYS = [f"Zeile/{i:03d}é" for i in range(ROWS)]


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return np.random.default_rng(0).integers(1, 255, (ROWS, 8, 8, 1), dtype=np.uint8)


def write(path, column: pa.Array, row_group_size: int = 7, **columns):
    columns = {"key": KEYS[: len(column)], **columns}
    pq.write_table(pa.table({"x": column, **columns}), path, row_group_size=row_group_size)
    return str(path)


def source(path, **fields):
    return make_source("parquet", str(path), fields=Fields(**fields))


MORE_FORMS = FORMS | {
    "binary": lambda x: pa.array([row.tobytes() for row in x]),
    "large binary": lambda x: pa.array([row.tobytes() for row in x], pa.large_binary()),
    "images": lambda x: pa.array([png(row) for row in x]),
    "large images": lambda x: pa.array([png(row) for row in x], pa.large_binary()),
}


@pytest.mark.parametrize("form", MORE_FORMS)
def test_forms_of_a_column_in_any_order_of_rows(form, x, tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.sources.parquet._READ_BYTES", 300)  # several pieces a row group
    path = write(tmp_path / "rows.parquet", MORE_FORMS[form](x), label=np.arange(ROWS) % 3)
    shape = None if form in ("tensor", "images", "large images") else (8, 8)
    reader = source(path, shape=shape)
    plan, rows = read_all(reader)
    floats = "float" in form or "double" in form
    assert (
        column(plan, "key") == KEYS
        and column(plan, "position") == list(range(ROWS))
        and plan.schema.labels == ("0", "1", "2")
    )
    assert plan.schema.shape == ((8, 8) if floats else (8, 8, 1))
    expected = (x / np.float32(255))[..., 0] if floats else x
    np.testing.assert_array_equal(np.stack([row.x for row in rows]), expected)
    chosen = np.random.default_rng(1).permutation(ROWS)[:20]
    batch = reader.read_rows(plan.rows.take(chosen), plan.schema)
    np.testing.assert_array_equal(batch.x, expected[chosen])
    np.testing.assert_array_equal(batch.labels, chosen % 3)


def test_names_of_columns_and_labels_in_words(x, tmp_path):
    words = np.array(["dog", "cat", "dög"])[np.arange(ROWS) % 3]
    path = write(
        tmp_path / "rows.parquet", fixed_binary(x), id=np.arange(ROWS) * 7, kind=pa.array(words).dictionary_encode()
    )
    pq.write_table(pq.read_table(path).rename_columns(["pixels", "key", "id", "kind"]), path)
    plan, rows = read_all(source(path, key="id", column="pixels", label="kind", shape=(64,)))
    assert column(plan, "key") == [str(i * 7) for i in range(ROWS)] and plan.schema.labels == ("cat", "dog", "dög")
    assert [plan.schema.labels[row.label] for row in rows] == words.tolist()


def test_without_key_and_label_rows_are_numbered(x, tmp_path):
    for name, part in (("b/2.parquet", x[30:]), ("a.parquet", x[:30])):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        table = pa.table({"x": pa.FixedShapeTensorArray.from_numpy_ndarray(part)})
        pq.write_table(table, tmp_path / name, row_group_size=4)
    plan, rows = read_all(source(tmp_path))
    assert column(plan, "key") == [f"a.parquet:{i}" for i in range(30)] + [f"b/2.parquet:{i}" for i in range(20)]
    assert plan.schema.labels is None
    np.testing.assert_array_equal(np.stack([row.x for row in rows]), x)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (pa.array([False, True, None]), ["0", "1", None]),
        (pa.array([2.0, float("nan"), 0.0], pa.float64()), ["2", None, "0"]),
        (pa.array([1.0, 2.0, None], pa.float32()), ["1", "2", None]),
        (pa.array(np.float16([1, 2, np.nan])), ["1", "2", None]),
        (pa.array(["u", "v", None], pa.string_view()), ["u", "v", None]),
    ],
)
def test_labels_of_other_types_are_classes_or_refused(labels, expected, x, tmp_path):
    path = write(tmp_path / "rows.parquet", flat_lists(x[:3]), key=["a", "b", "c"], label=labels)
    plan, rows = read_all(source(path))
    found = [plan.schema.labels[row.label] if isinstance(row, Row) else None for row in rows]
    assert found == expected and "the label is null" in rows
    for odd, shown in ((1.5, r"1\.5"), (float("inf"), "inf"), (1e30, r"1e\+30")):
        path = write(tmp_path / "other.parquet", flat_lists(x[:2]), key=["a", "b"], label=pa.array([1.0, odd]))
        with pytest.raises(PipelineError, match=f"'label' holds {shown}, a number that is no class: name another --l"):
            source(path).plan()
    path = write(tmp_path / "list.parquet", flat_lists(x[:2]), key=["a", "b"], label=pa.array([[0], [1]]))
    with pytest.raises(PipelineError, match=r"'label' holds list<.*>, expected integers or text"):
        source(path).plan()


def flat_lists(x: np.ndarray) -> pa.Array:
    return pa.array(x.reshape(len(x), -1).tolist(), pa.list_(pa.uint8()))


def both(path, column="x", dtype=None, signature="uint8"):
    """What each command reads of the files, by key: x and the reasons."""
    own = None if column == "x" else column
    plan, rows = read_all(source(path, column=own, dtype=dtype))
    named = dict(zip(plan.rows["key"].to_pylist(), rows, strict=True))
    prepared = {key: row.x.ravel().tolist() for key, row in named.items() if isinstance(row, Row)}
    refused = {key: row for key, row in named.items() if isinstance(row, str)}
    opened = open_input(str(path), column=column).fitted((8, 8, 1), signature)
    blocks = [block for unit in opened.blocks("all") for block in opened.read(unit)]
    embedded = {key: x.ravel().tolist() for block in blocks for key, x in zip(block.keys, block.x, strict=True)}
    assert embedded == prepared
    assert {row.key: row.reason for block in blocks for row in block.rejected} == refused
    return prepared, refused


def test_a_null_in_a_list_of_fixed_size_is_one_bad_row(x, tmp_path):
    """Arrow writes such a file and cannot read it as what it wrote."""
    values = [None if i == 5 else row.ravel().tolist() for i, row in enumerate(x)]
    path = write(tmp_path / "rows.parquet", pa.array(values, pa.list_(pa.uint8(), 64)))
    read, refused = both(path)
    assert refused == {KEYS[5]: "x is null"}
    assert read == {key: x[i].ravel().tolist() for i, key in enumerate(KEYS) if i != 5}


@pytest.mark.parametrize("kind", [pa.int64(), pa.int8(), pa.uint32(), pa.float16(), pa.decimal128(21, 2)])
@pytest.mark.parametrize("size", [-1, 64])
def test_numbers_of_other_types_are_the_same_numbers(kind, size, x, tmp_path):
    values = (x // 2).reshape(ROWS, 64).tolist()
    path = write(tmp_path / "rows.parquet", pa.array(values).cast(pa.list_(kind, size)))
    read, refused = both(path, signature="float32")
    assert not refused and read == dict(zip(KEYS, values, strict=True))


@pytest.mark.parametrize("kind", [pa.list_view(pa.float32()), pa.large_list_view(pa.int16())])
def test_views_are_what_they_are_of(kind, x, tmp_path):
    values = x.reshape(ROWS, 64).tolist()
    path = write(tmp_path / "rows.parquet", pa.array(values, kind), key=pa.array(KEYS, pa.string_view()))
    read, refused = both(path, signature="float32")
    assert not refused and read == dict(zip(KEYS, values, strict=True))


def test_a_name_of_two_columns_is_told_where_it_is_read(x, tmp_path):
    lists, path = flat_lists(x), str(tmp_path / "rows.parquet")
    pq.write_table(pa.Table.from_arrays([pa.array(KEYS), lists, lists, lists], ["key", "x", "", ""]), path)
    assert len(read_all(source(path))[1]) == ROWS
    pq.write_table(pa.Table.from_arrays([pa.array(KEYS), lists, lists], ["key", "x", "x"]), path)
    for read in (lambda: source(path).plan(), lambda: open_input(path)):
        with pytest.raises(PipelineError, match="has 2 columns called 'x': rename one of"):
            read()


@pytest.mark.parametrize(("dtype", "odd"), [("uint8", 256), ("uint8", -1), ("float32", 2**24 + 1)])
def test_an_integer_that_would_change_is_a_bad_row(dtype, odd, x, tmp_path):
    values = x.reshape(ROWS, 64).tolist()
    values[3] = [odd] * 64
    path = write(tmp_path / "rows.parquet", pa.array(values, pa.list_(pa.int64())))
    read, refused = both(path, dtype=dtype, signature=dtype)
    assert refused == {KEYS[3]: f"x has {odd} to {odd}, of which {dtype} cannot hold all"} and len(read) == ROWS - 1


def test_folders_are_columns_and_texts_are_texts(x, tmp_path):
    kinds = {2: pa.string(), 10: pa.large_string(), 0: pa.dictionary(pa.int32(), pa.string())}
    for label, kind in kinds.items():
        (tmp_path / f"label={label}").mkdir()
        keys = pa.array([f"{label}-{i}" for i in range(ROWS)]).cast(kind)
        write(tmp_path / f"label={label}" / "p.parquet", pa.array(flat(x).tolist(), pa.list_(pa.uint8())), key=keys)
    assert len(both(tmp_path)[0]) == 3 * ROWS
    plan, rows = read_all(source(tmp_path))
    assert plan.schema.labels == tuple(map(str, range(11)))
    assert all(row.label == int(key.split("-")[0]) for key, row in zip(column(plan, "key"), rows, strict=True))
    kept = open_input(str(tmp_path), keep=["label"]).fitted((8, 8, 1), "uint8")
    blocks = [block for unit in kept.blocks("all") for block in kept.read(unit)]
    assert sorted(label for block in blocks for label in block.kept["label"].to_pylist()) == sorted([*kinds] * ROWS)
    write(tmp_path / "label=2" / "p.parquet", pa.array(flat(x).tolist()), label=[1] * ROWS)
    with pytest.raises(PipelineError, match="has a column 'label' and lies in a folder label=2"):
        source(tmp_path).plan()


def test_pictures_as_hugging_face_stores_them(x, tmp_path):
    cells = pa.array([{"bytes": None if i == 4 else png(row), "path": "a.png"} for i, row in enumerate(x)])
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"image": cells, "label": list(range(ROWS))}), path)
    _, rows = read_all(source(path, column="image"))
    assert rows[4] == "x is null"
    assert all((row.x == x[i]).all() and row.label == i for i, row in enumerate(rows) if i != 4)
    opened = open_input(str(path), column="image").fitted((), "string")
    [block] = [block for unit in opened.blocks("all") for block in opened.read(unit)]
    assert block.x.tolist() == [cell["bytes"] for i, cell in enumerate(cells.to_pylist()) if i != 4]
    assert [row.reason for row in block.rejected] == ["x is null"]


def test_bad_rows_are_named_and_the_others_kept(x, tmp_path):
    cells = [png(row) for row in x]
    cells[3], cells[4], cells[5] = None, b"no picture", cells[5][:-20]
    cells[6] = png(np.zeros((9, 8, 1), np.uint8))
    labels = [0] * ROWS
    labels[7], labels[8] = None, -1
    keys = [*KEYS[:10], None, *KEYS[11:]]
    path = write(tmp_path / "rows.parquet", pa.array(cells), key=keys, label=labels)
    summary = preprocess.run("parquet", path, str(tmp_path / "out"), test_fraction=0.3)
    rows = read_dataset(str(tmp_path / "out"), "train") | read_dataset(str(tmp_path / "out"), "test")
    assert rows.keys() == set(KEYS) - {KEYS[i] for i in (3, 4, 5, 6, 7, 8, 10)} and summary.rejected == 7
    assert all((rows[key][0] == x[i]).all() for i, key in enumerate(KEYS) if key in rows)
    found = rejections(tmp_path / "out")
    reasons = {row["position"]: row["reason"] for row in found.values()}
    assert reasons[3] == "x is null" and "not a readable PNG" in reasons[4] and "truncated" in reasons[5]
    assert reasons[6] == "shape [9, 8, 1], expected [8, 8, 1]"
    assert reasons[7] == "the label is null" and reasons[8] == "label -1, expected one of 1 classes"
    assert found["rows.parquet:10"]["reason"] == "the key is null"


def test_lists_of_another_length_are_rejected(x, tmp_path):
    lists = (flat(x) / np.float32(255)).tolist()
    lists[9], lists[20], lists[21][5] = lists[9][:-1], None, float("nan")
    plan, rows = read_all(source(write(tmp_path / "rows.parquet", pa.array(lists, pa.list_(pa.float32())))))
    assert plan.schema.shape == (64,)
    assert {i: str(row) for i, row in enumerate(rows) if not isinstance(row, Row)} == {
        9: "x has 63 values, expected 64 for float32 [64]",
        20: "x is null",
        21: "x has values that are not finite",
    }


def test_a_row_group_is_decoded_once_for_many_rows(x, tmp_path, monkeypatch):
    reader = source(write(tmp_path / "rows.parquet", FORMS["tensor"](x), row_group_size=10))
    plan = reader.plan()
    groups = []
    iter_batches = pq.ParquetFile.iter_batches
    monkeypatch.setattr(
        pq.ParquetFile, "iter_batches", lambda self, n, g, c: groups.extend(g) or iter_batches(self, n, g, c)
    )
    reader.read_rows(plan.rows.take([41, 7, 3, 49, 40, 0]), plan.schema)
    assert groups == [0, 4]


def test_one_large_image_that_stands_for_many_rows_is_not_multiplied(tmp_path):
    """A dictionary and its references are a few kilobytes on disk; spelt out they are 25 GB."""

    image = png(np.zeros((8, 8, 1), np.uint8)) + bytes(1 << 18)
    table = pa.table({"x": pa.DictionaryArray.from_arrays(np.zeros(100_000, np.int32), pa.array([image]))})
    pq.write_table(table, tmp_path / "bomb.parquet", compression="zstd", store_schema=False)
    assert (tmp_path / "bomb.parquet").stat().st_size < 20_000
    reader = source(tmp_path / "bomb.parquet")
    before = pa.default_memory_pool().max_memory()
    batch = reader.read("bomb.parquet", np.array([5, 99_999]), Schema((8, 8, 1), "uint8", None))
    assert batch.x.shape == (2, 8, 8, 1) and pa.default_memory_pool().max_memory() - before < 100 << 20


@pytest.mark.parametrize("damage", ["cut", "page", "empty", "text"])
def test_a_damaged_file_is_an_error_that_names_it(damage, x, tmp_path):
    path = write(tmp_path / "rows.parquet", FORMS["list"](x))
    data = bytearray((tmp_path / "rows.parquet").read_bytes())
    page = data[:4] + bytes(len(data) // 2) + data[4 + len(data) // 2 :]
    changed = {"cut": data[:-40], "page": page, "empty": b"", "text": b"key,x\na,1\n"}
    (tmp_path / "rows.parquet").write_bytes(changed[damage])
    with pytest.raises(PipelineError, match=r"rows\.parquet (cannot be read as Parquet|is truncated or damaged)"):
        read_all(source(path))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, r"say the --shape"),
        ({"shape": (63,)}, "64 values a row, expected 63"),
        ({"shape": (8, 8), "dtype": "float32"}, "64 bytes a row, expected 256"),
        ({"shape": (0,)}, r"--shape is \[0\]"),
        ({"column": "y"}, "no column 'y'"),
        ({"column": "label"}, "column 'label' .* expected lists of numbers"),
        ({"key": "id", "shape": (64,)}, "no column 'id'"),
        ({"key": "when", "shape": (64,)}, "expected text or integers"),
        ({"label": "when", "shape": (64,)}, "holds .*, a number that is no class"),
        ({"dtype": "uint8"}, "give --shape too"),
        ({"label": "far", "shape": (64,)}, "largest label is 1000000000"),
    ],
)
def test_options_that_make_no_sense(x, tmp_path, fields, message):
    columns = {"label": np.arange(ROWS), "when": np.linspace(0, 1, ROWS), "far": np.full(ROWS, 10**9)}
    with pytest.raises(PipelineError, match=message):
        source(write(tmp_path / "rows.parquet", fixed_binary(x), **columns), **fields).plan()


def test_a_table_of_plain_columns_is_told_to_pack_them(tmp_path):
    path = tmp_path / "table.parquet"
    pq.write_table(pa.table({"key": ["a", "b"], "height": [1.8, 1.7], "age": [30, 40]}), path)
    needed = "a column of lists is needed: write the table as CSV, or pack its columns into one$"
    expected = "expected lists of numbers, or binary: name another --column"
    for fields, message in (
        ({}, r"has no column 'x', expected one of \['key', 'height', 'age'\]: "),
        ({"column": "height"}, rf"'height' .* holds double, {expected}; "),
        ({"column": "key"}, rf"'key' .* holds string, {expected}$"),
    ):
        with pytest.raises(PipelineError, match=message if message.endswith("$") else message + needed):
            source(path, **fields).plan()
    csv.write_csv(pq.read_table(path), tmp_path / "table.csv")  # as the page on tables says
    _, rows = read_all(make_source("csv", str(tmp_path / "table.csv")))
    np.testing.assert_array_equal([row.x for row in rows], np.float32([[1.8, 30], [1.7, 40]]))


@pytest.mark.parametrize("kind", ["npy", "idx", "digits", "images"])
@pytest.mark.parametrize("field", [{"key": "k"}, {"column": "c"}, {"label": "l"}, {"shape": (1,)}, {"no_header": True}])
def test_options_of_another_source_are_refused(kind, field, tmp_path):
    with pytest.raises(
        PipelineError, match=f"source {kind} has no use for --{next(iter(field)).replace('_', '-')}: leave it out"
    ):
        make_source(kind, None if kind == "digits" else str(tmp_path), fields=Fields(**field))


def test_the_command(x, tmp_path, capsys):
    path = write(tmp_path / "rows.parquet", fixed_binary(x), label=np.arange(ROWS) % 2)
    flags = ["--source", "parquet", "--input", path, "--output", str(tmp_path / "out"), "--test-fraction", "0.3"]
    assert preprocess.main([*flags, "--shape", "8", "8", "--dtype", "uint8", "--key", "key"]) == 0
    rows = read_dataset(str(tmp_path / "out"), "train") | read_dataset(str(tmp_path / "out"), "test")
    assert all((rows[key][0] == x[i]).all() and rows[key][1] == i % 2 for i, key in enumerate(KEYS))
    assert preprocess.main(["--source", "npy", "--input", path, "--output", str(tmp_path / "no"), "--key", "k"]) == 1
    assert "has no use for --key" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "scale", "dtype", "hinted"),
    [
        (pa.int64(), 1, None, True),
        (pa.uint16(), 1, None, True),
        (pa.int64(), 1, "uint8", False),
        (pa.uint8(), 1, None, False),
        (pa.int64(), 2, None, False),
        (pa.int64(), -1, None, False),
        (pa.float32(), 1, None, False),
    ],
)
def test_integers_that_might_be_bytes_are_hinted_at(kind, scale, dtype, hinted, tmp_path):
    """The hint stands in the summary, again in that of a rerun; following it gives the bytes."""
    values = (scale * np.arange(256).reshape(32, 8)).tolist()
    pq.write_table(pa.table({"x": pa.array(values, pa.list_(kind))}), tmp_path / "rows.parquet")
    for _ in range(2):
        summary = preprocess.run("parquet", str(tmp_path / "rows.parquet"), str(tmp_path / "out"), dtype=dtype)
        assert bool(summary.hint) == hinted
        assert (
            "hint             x are whole numbers from 0 to 255 and are stored as float32" in summary.table()
        ) == hinted
    features = json.loads((tmp_path / "out" / "features.json").read_text())
    stored = "float32" if dtype is None and kind != pa.uint8() else "uint8"
    assert features["featuresDict"]["features"]["x"]["tensor"]["dtype"] == stored
