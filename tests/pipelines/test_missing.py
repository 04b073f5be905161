"""Missing values: NaN from every source, by `--missing` alone; moments of what is there; embeddings and scores."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import embed, preprocess
from pipelines.dataset.moments import ColumnMoments, Moments
from pipelines.inputs import open_input
from pipelines.sources import Fields, make_source

from .conftest import column, read_all, read_to_embed
from .test_embed import read_parts

X = np.float32([[1, 2, 3], [4, np.nan, 6], [np.nan, np.nan, np.nan], [7, np.inf, 9], [1.5, -2, np.nan]])
GOOD = [0, 1, 2, 4]


def write_csv(path):
    cells = ["1,2,3", "4,,6", "NA,?,nan", "7,inf,9", '1.5,"-2",NULL', "1,2", "1,abc,3"]
    path.write_text("a,b,c\n" + "\n".join(cells) + "\n")


def write_parquet(path):
    rows = [[None if np.isnan(value) else value for value in row] for row in X.tolist()]
    pq.write_table(pa.table({"x": pa.array(rows, pa.list_(pa.float32()))}), path)


def write_records(path):
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(path)) as writer:
        for row in X:
            floats = tf.train.Feature(float_list=tf.train.FloatList(value=row))
            writer.write(tf.train.Example(features=tf.train.Features(feature={"x": floats})).SerializeToString())


WRITERS = {
    "csv": write_csv,
    "npy": lambda path: np.save(path, X),
    "npz": lambda path: np.savez(path, x=X),
    "parquet": write_parquet,
    "tfrecord": write_records,
}


@pytest.mark.parametrize("kind", WRITERS)
def test_every_source_and_input_takes_nan_where_it_is_said_and_rejects_it_elsewhere(tmp_path, kind):
    path = tmp_path / f"x.{kind}"
    WRITERS[kind](path)
    fields = Fields(missing=True)
    plan, rows = read_all(make_source(kind, str(path), fields=fields))
    found = [row.x for row in rows if not isinstance(row, str)]
    np.testing.assert_array_equal(np.stack(found), X[GOOD])
    embedded, rejected = read_to_embed(open_input(str(path), fields=fields).fitted([3], "float32"), tmp_path / "lists")
    np.testing.assert_array_equal(np.stack(list(embedded.values())), X[GOOD])
    assert {key for key, row in zip(column(plan, "key"), rows, strict=True) if isinstance(row, str)} <= rejected.keys()
    _, rows = read_all(make_source(kind, str(path)))
    assert [i for i, row in enumerate(rows[:5]) if not isinstance(row, str)] == [0]
    embedded, _ = read_to_embed(open_input(str(path)).fitted([3], "float32"), tmp_path / "others")
    np.testing.assert_array_equal(np.stack(list(embedded.values())), X[:1])


@pytest.mark.parametrize("size", [-1, 2])
def test_a_missing_integer_is_nan_and_no_byte(tmp_path, size):
    path, kind = str(tmp_path / "x.parquet"), pa.list_(pa.int64(), size)
    pq.write_table(pa.table({"x": pa.array([[1, None], None, [2**24 + 1, None], [3, 4]], kind)}), path)
    _, rows = read_all(make_source("parquet", path, fields=Fields(missing=True)))
    np.testing.assert_array_equal(np.stack([rows[0].x, rows[3].x]), np.float32([[1, np.nan], [3, 4]]))
    assert rows[1] == "x is null" and "16777217, of which float32 cannot hold all" in rows[2]
    found = open_input(path, fields=Fields(missing=True)).fitted([2], "float32")
    np.testing.assert_array_equal(list(read_to_embed(found, tmp_path)[0].values()), np.float32([[1, np.nan], [3, 4]]))
    _, rows = read_all(make_source("parquet", path, fields=Fields(missing=True, dtype="uint8")))
    assert rows[0] == "x has values that are null" and rows[3].x.tolist() == [3, 4]


def test_moments_are_of_what_is_there():
    x = np.random.default_rng(0).normal(3, 2, [40, 4]).astype(np.float32)
    x[np.random.default_rng(1).random(x.shape) < 0.3] = np.nan
    x[:, 3] = np.nan
    parts = [
        ColumnMoments.from_json(json.loads(json.dumps(ColumnMoments.of(part).to_json()))) for part in (x[:7], x[7:])
    ]
    for found in (ColumnMoments.of(x), parts[0] + parts[1]):
        summary = found.summary()
        np.testing.assert_allclose(summary["mean"][:3], np.nanmean(x[:, :3].astype(np.float64), axis=0), rtol=1e-12)
        np.testing.assert_allclose(summary["std"][:3], np.nanstd(x[:, :3].astype(np.float64), axis=0), rtol=1e-12)
        np.testing.assert_array_equal(summary["min"][:3], np.nanmin(x[:, :3], axis=0))
        assert summary["missing"] == np.isnan(x).sum(axis=0).tolist() and summary["max"][3] is None
    whole = Moments.of(x).summary()
    assert whole["mean"] == pytest.approx(np.nanmean(x.astype(np.float64))) and whole["max"] == np.nanmax(x)
    assert Moments.from_json(json.loads(json.dumps(Moments.of(x[:, 3]).to_json()))).summary()["mean"] is None


@pytest.mark.slow
def test_a_table_with_holes_is_prepared_embedded_and_scored(tmp_path):
    from tests.models.test_missing import model
    from tfvae import data, export

    rng = np.random.default_rng(0)
    x = rng.normal(3, 2, [60, 4])
    x[rng.random(x.shape) < 0.2] = np.nan
    lines = [",".join("" if np.isnan(value) else repr(value) for value in row) for row in x.tolist()]
    (tmp_path / "x.csv").write_text("a,b,c,d\n" + "\n".join(lines) + "\n")
    prepared = str(tmp_path / "prepared")
    done = preprocess.run("csv", str(tmp_path / "x.csv"), prepared, missing=True, standardize=True, test_fraction=0.3)
    assert sum(done.rows.values()) == 60 and not done.rejected
    train = data.load(prepared, "train")
    np.testing.assert_allclose(np.nanmean(train, axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(np.nanstd(train, axis=0), 1, rtol=1e-5)
    statistics = json.loads((tmp_path / "prepared" / "statistics.json").read_text())["splits"]["train"]
    assert statistics["columns"]["missing"] == np.isnan(train).sum(axis=0).tolist()

    vae = model(1.3)
    export(vae, tmp_path / "models" / "table")
    for source, more in ((prepared, {"split": "all"}), (str(tmp_path / "x.csv"), {"prepared_with": prepared})):
        output = tmp_path / f"embedded-{len(more)}-{'split' in more}"
        done = embed.run(str(tmp_path / "models" / "table"), source, str(output), score=3, **more)
        assert sum(done.rows.values()) == 60 and not done.rejected
        again = embed.run(str(tmp_path / "models" / "table"), source, str(output), score=3, **more)
        assert again.units_done == 0
        found = read_parts(output)
        key = next(key for key in found if key.endswith(":5"))
        by = json.loads((tmp_path / "prepared" / "manifest.json").read_text())["standardized"]
        standardized = (x[5] - by["mean"]) / by["deviation"]
        np.testing.assert_allclose(found[key]["embedding"], vae.embed(standardized[None])[0], rtol=1e-4, atol=1e-5)
        assert all(np.isfinite(row["score"]) for row in found.values())
