"""Parts in folders, and of a size: every row once, where its columns say; and other programs open the folder whole."""

import datetime
import json
import pathlib
import urllib.parse

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from pipelines import embed
from pipelines.errors import PipelineError

from ..conftest import Linear, rejections

ROWS = 60
COUNTRIES = ["at", "de", "öster reich/ü", "a=b%"]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Linear:
    return Linear(tmp_path_factory.mktemp("models") / "rows" / "1", (4,))


def write(path: pathlib.Path, first: int = 0, **columns) -> dict[str, np.ndarray]:
    """Rows of numbers in small row groups, their observations by key."""
    x = np.random.default_rng(first).uniform(0.1, 0.9, [ROWS, 4]).astype(np.float32)
    keys = [f"k{first + i}" for i in range(ROWS)]
    table = {"key": keys, "x": pa.FixedSizeListArray.from_arrays(x.ravel(), 4)} | columns
    path.parent.mkdir(exist_ok=True, parents=True)
    pq.write_table(pa.table(table), path, row_group_size=7)
    return dict(zip(keys, x, strict=True))


def read(output: pathlib.Path) -> dict[str, tuple]:
    """What each file has, and its folders say, by key; every file by itself."""
    found = {}
    for path in (output / "parts").rglob("*.parquet"):
        folders = [part.split("=", 1) for part in path.relative_to(output / "parts").parts[:-1]]
        values = tuple(urllib.parse.unquote(value) for _, value in folders)
        for row in pq.read_table(path, partitioning=None).to_pylist():
            assert row["key"] not in found and not row.keys() & {urllib.parse.unquote(name) for name, _ in folders}
            found[row["key"]] = (values, row["embedding"])
    return found


class TestFolders:
    def test_every_row_lies_in_its_folder(self, model, tmp_path, monkeypatch):
        monkeypatch.setattr("pipelines.inputs.base.BLOCK_ROWS", 11)
        countries, years = np.random.default_rng(0).choice(COUNTRIES, ROWS), np.arange(ROWS) % 2 + 2025
        truth = write(tmp_path / "in" / "a.parquet", country=countries, year=years)
        embed.run(model.path, str(tmp_path / "in"), str(tmp_path / "out"), partition_by=["country", "year"])
        found = read(tmp_path / "out")
        assert found.keys() == truth.keys()
        for i, (key, x) in enumerate(truth.items()):
            assert found[key][0] == (countries[i], str(years[i]))
            np.testing.assert_allclose(found[key][1], model.embed(x[None])[0], atol=1e-6)
        whole = embed.read_embeddings(str(tmp_path / "out")).select(["key", "country", "year"]).to_pylist()
        told = {row["key"]: (row["country"], row["year"]) for row in whole}
        assert told == {key: (countries[i], years[i]) for i, key in enumerate(truth)}

    def test_repeated_keys_are_known_by_their_places(self, model, tmp_path):
        """In a folder rows lie in another order than in the input."""
        folder, output = tmp_path / "in", tmp_path / "out"
        write(folder / "b.parquet", country=np.resize(["at", "de", "ch"], ROWS))
        run = lambda: embed.run(model.path, str(folder), str(output), partition_by=["country"])  # noqa: E731
        run()
        write(folder / "a.parquet", first=ROWS - 2, country=np.resize(["it"], ROWS))
        assert run().rejected == 2
        assert {key: (row["position"], row["reason"]) for key, row in rejections(output).items()} == {
            "k58": (58, "duplicate key, first at a.parquet:0"),
            "k59": (59, "duplicate key, first at a.parquet:1"),
        }
        found = read(output)
        assert len(found) == 2 * ROWS - 2 and found["k58"][0] == ("it",) and found["k57"][0] == ("at",)
        (folder / "a.parquet").unlink()
        assert run().rejected == 0 and read(output)["k58"][0] == ("de",)
        assert not (output / "parts" / "country=it").exists()

    def test_rows_without_a_folder_are_rejected(self, model, tmp_path):
        countries = ["at"] * (ROWS - 3) + [None, "", "x" * 300]
        write(tmp_path / "in" / "a.parquet", country=countries)
        summary = embed.run(model.path, str(tmp_path / "in"), str(tmp_path / "out"), partition_by=["country"])
        reasons = [row["reason"] for row in rejections(tmp_path / "out").values()]
        assert summary.rows == {"all": ROWS - 3} and reasons == [
            "the column 'country' of the folders is empty",
            "the column 'country' of the folders is empty",
            "the column 'country' of the folders has more than 200 bytes",
        ]

    @pytest.mark.parametrize(
        ("values", "reasons"),
        [
            (["7", "007", "-3", "true", "NULL", ".", "..", "a/b%2F=", "\n", "ü", "u\u0308", "AT", "at", "\x7f"], []),
            (["__HIVE_DEFAULT_PARTITION__", "at", "__hive_default_partition__"], ["by which they mean a null"] * 2),
            (pa.array([b"a", b"\xff", b"\xfe"], pa.binary()), ["is not UTF-8"] * 2),
            ([7, -3, 2**62], []),
            (pa.array([2**64 - 1, 1], pa.uint64()), []),
            ([True, False], []),
            ([datetime.date(2026, 1, 2), datetime.date(1, 1, 1)], []),
        ],
    )
    def test_a_value_comes_back_as_it_was_or_its_row_is_rejected(self, model, tmp_path, values, reasons):
        """PyArrow reads text alike where it is told that it is text."""
        values = pa.array(values)
        write(tmp_path / "in" / "a.parquet", value=values.take(pa.array(np.arange(ROWS) % len(values))))
        embed.run(model.path, str(tmp_path / "in"), str(tmp_path / "out"), partition_by=["value"])
        told = {row["reason"] for row in rejections(tmp_path / "out").values()}
        assert len(told) <= len(reasons) and all(reason.endswith(tuple(reasons)) for reason in told)
        table = embed.read_embeddings(str(tmp_path / "out"))
        found = dict(zip(table["key"].to_pylist(), table["value"].to_pylist(), strict=True))
        bad = rejections(tmp_path / "out").keys()
        assert len(bad) >= len(reasons) and table["value"].type == values.type
        assert found == {f"k{i}": values[i % len(values)].as_py() for i in range(ROWS) if f"k{i}" not in bad}
        if values.type == pa.string():
            text = pyarrow.dataset.partitioning(pa.schema([("value", pa.string())]), flavor="hive")
            theirs = pyarrow.dataset.dataset(tmp_path / "out" / "parts", partitioning=text).to_table(["key", "value"])
            assert {row["key"]: row["value"] for row in theirs.to_pylist()} == found

    def test_an_output_that_its_own_input_would_read_is_refused(self, model, tmp_path):
        write(tmp_path / "in" / "a.parquet")
        (tmp_path / "text").mkdir()
        (tmp_path / "text" / "a.csv").write_text("a,b\n1,2\n")
        for path in (tmp_path / "in", tmp_path / "in" / "**" / "*.parquet", tmp_path / "text"):
            with pytest.raises(PipelineError, match=r"lies in the input .*, which would read it"):
                embed.run(model.path, str(path), str(tmp_path / path.relative_to(tmp_path).parts[0] / "out"))
        with pytest.raises(PipelineError, match="partition_by is 'country', expected a list of names"):
            embed.run(model.path, str(tmp_path / "in"), str(tmp_path / "out"), partition_by="country")
        with pytest.raises(PipelineError, match="batch_size is '3', expected a whole number, 1 or more"):
            embed.run(model.path, str(tmp_path / "in"), str(tmp_path / "out"), batch_size="3")

    def test_what_makes_no_folders(self, model, tmp_path):
        write(tmp_path / "in" / "a.parquet", score_of=np.arange(ROWS) / 7, number=np.arange(ROWS))
        arguments = (model.path, str(tmp_path / "in"), str(tmp_path / "out"))
        with pytest.raises(PipelineError, match=r"'score_of' holds double, which makes no folders: name one of text"):
            embed.run(*arguments, partition_by=["score_of"])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("pipelines.embedding.parquet_parts._MOST_FOLDERS", 50)
            with pytest.raises(PipelineError, match=r"number makes more than 50 folders of the rows of a.parquet"):
                embed.run(*arguments, partition_by=["number"], overwrite=True)

    def test_from_the_folders_of_the_input(self, model, tmp_path):
        for number, country in enumerate(("at", "de")):
            write(tmp_path / "in" / f"country={country}" / "a.parquet", first=number * ROWS)
        embed.run(model.path, str(tmp_path / "in"), str(tmp_path / "out"), partition_by=["country"])
        found = read(tmp_path / "out")
        assert len(found) == 2 * ROWS and found["k3"][0] == ("at",) and found[f"k{ROWS}"][0] == ("de",)


@pytest.mark.parametrize("folders", [(), ("country",)])
def test_files_of_a_size(folders, model, tmp_path, monkeypatch):
    """Cut at the row, in the order of the input; the metadata of a file come on top."""
    monkeypatch.setattr(embed, "MEGABYTE", 200)
    countries = np.resize(["at", "de"], ROWS)
    truth = write(tmp_path / "in" / "a.parquet", country=countries)
    embed.run(model.path, str(tmp_path / "in"), str(tmp_path / "out"), partition_by=folders, part_size=1)
    assert read(tmp_path / "out").keys() == truth.keys()
    sizes = [pq.read_table(path, partitioning=None).nbytes for path in (tmp_path / "out" / "parts").rglob("*.parquet")]
    assert len(sizes) >= sum(sizes) / 200 and max(sizes) <= 230
    [line] = (tmp_path / "out" / "lineage.jsonl").read_text().splitlines()
    assert len(json.loads(line)["parts"]) == len(sizes)


@pytest.fixture(scope="module")
def outputs(model, tmp_path_factory) -> dict[str, tuple[str, list]]:
    """Two outputs, one in folders, each with the rows that it has: key, country, first number of the embedding."""
    folder = tmp_path_factory.mktemp("readers")
    countries = np.resize(["at", "de"], ROWS)
    truth = {}
    for name in ("a", "b"):
        truth |= write(folder / "in" / f"{name}.parquet", first=ROWS * (name == "b"), country=countries)
    for name, options in (("plain", {"keep": ["country"]}), ("folders", {"partition_by": ["country"]})):
        embed.run(model.path, str(folder / "in"), str(folder / name), **options)
    z = model.embed(np.stack([*truth.values()]))
    rows = sorted(zip(truth, ["at", "de"] * ROWS, (round(float(number), 4) for number in z[:, 0]), strict=True))
    return {name: (str(folder / name / "parts"), rows) for name in ("plain", "folders")}


def pandas_rows(path):
    table = pytest.importorskip("pandas").read_parquet(path)
    return zip(table["key"], table["country"].astype(str), table["embedding"], strict=True)


def polars_rows(path):
    return pytest.importorskip("polars").read_parquet(path).select("key", "country", "embedding").iter_rows()


def duckdb_rows(path):
    found = f"SELECT key, country, embedding FROM '{path}/**/*.parquet'"
    return pytest.importorskip("duckdb").sql(found).fetchall()


def arrow_rows(path):
    table = pyarrow.dataset.dataset(path, partitioning="hive").to_table()
    return zip(*(table[name].to_pylist() for name in ("key", "country", "embedding")), strict=True)


def spark_rows(path):
    spark = pytest.importorskip("pyspark.sql").SparkSession.builder.master("local[1]").getOrCreate()
    try:
        return [(row.key, row.country, row.embedding) for row in spark.read.parquet(path).collect()]
    finally:
        spark.stop()


def lance_rows(path):
    lancedb = pytest.importorskip("lancedb")
    dataset = pyarrow.dataset.dataset(path, partitioning="hive")
    table = lancedb.connect(f"{path}/../../lance").create_table(
        "rows", dataset.to_batches(), dataset.schema, "overwrite"
    )
    return [(row["key"], row["country"], row["embedding"]) for row in table.to_arrow().to_pylist()]


@pytest.mark.parametrize("reader", [pandas_rows, polars_rows, duckdb_rows, arrow_rows, spark_rows, lance_rows])
@pytest.mark.parametrize("kind", ["plain", "folders"])
def test_other_programs_open_the_folder_whole(reader, kind, outputs):
    path, rows = outputs[kind]
    assert (pathlib.Path(path) / "_SUCCESS").read_bytes() == b""
    assert sorted((key, country, round(float(z[0]), 4)) for key, country, z in reader(path)) == rows
