"""A model that asks for a condition: each row's own, from its column; who has none is named."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import embed
from pipelines.errors import PipelineError

from ..conftest import rejections

ROWS, WIDTH, CLASSES = 12, 4, 3


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    """``embed`` is x @ 1 + 10 condition, and ``score`` the condition's sum: each known exactly."""
    import tensorflow as tf

    path, module = str(tmp_path_factory.mktemp("models") / "conditional"), tf.Module()
    x = tf.TensorSpec([None, WIDTH], tf.float32, "x")
    condition = tf.TensorSpec([None, CLASSES], tf.float32, "condition")
    noise = tf.TensorSpec([None, None, 2], tf.float32, "noise")
    module.embed = tf.function(
        lambda x, condition: {"embedding": tf.reduce_sum(x, 1, keepdims=True) + 10.0 * condition},
        input_signature=[x, condition],
    )
    module.score = tf.function(
        lambda x, condition, noise: {"elbo": tf.reduce_sum(condition, 1) + 0.0 * tf.reduce_sum(noise, [1, 2])},
        input_signature=[x, condition, noise],
    )
    tf.saved_model.save(module, f"{path}/1", {"embed": module.embed, "score": module.score})
    return path


@pytest.fixture(scope="module")
def rows() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.random((ROWS, WIDTH), np.float32), rng.random((ROWS, CLASSES), np.float32)


def write(path, x, condition) -> str:
    lists = pa.array(x.tolist(), pa.list_(pa.float32(), WIDTH))
    pq.write_table(pa.table({"key": [f"r{i}" for i in range(len(x))], "x": lists, "c": condition}), str(path))
    return str(path)


@pytest.mark.parametrize("kind", [pa.list_(pa.float32(), CLASSES), pa.list_(pa.float64())])
@pytest.mark.parametrize(("batch_size", "keep"), [(5, ()), (4096, ("c",))])
def test_each_row_gets_its_own_condition(kind, batch_size, keep, model, rows, tmp_path):
    x, condition = rows
    path = write(tmp_path / "rows.parquet", x, pa.array(condition.tolist(), kind))
    embed.run(model, path, str(tmp_path / "out"), condition="c", keep=keep, batch_size=batch_size, score=2)
    table = embed.read_embeddings(str(tmp_path / "out"))
    assert table.column_names == ["key", "embedding", "score", *keep]
    np.testing.assert_allclose(
        np.stack(table["embedding"].to_numpy()), x.sum(1, keepdims=True) + 10 * condition, rtol=1e-6
    )
    np.testing.assert_allclose(table["score"].to_numpy(), condition.sum(1), rtol=1e-6)


def test_rows_without_a_condition_are_named_and_the_others_kept(model, rows, tmp_path):
    x, condition = rows
    column = condition.tolist()
    column[2], column[5], column[7] = None, [1.0], [0.0, float("nan"), 0.0]
    path = write(tmp_path / "rows.parquet", x, pa.array(column, pa.list_(pa.float32())))
    assert embed.run(model, path, str(tmp_path / "out"), condition="c").rejected == 3
    found = {key: row["reason"] for key, row in rejections(tmp_path / "out").items()}
    assert found == {
        "r2": "the condition 'c' is null",
        "r5": "the condition 'c' has 1 values, expected 3 for float32 [3]",
        "r7": "the condition 'c' has values that are not finite",
    }
    good = [i for i in range(ROWS) if i not in (2, 5, 7)]
    table = embed.read_embeddings(str(tmp_path / "out"))
    assert table["key"].to_pylist() == [f"r{i}" for i in good]
    expected = (x.sum(1, keepdims=True) + 10 * condition)[good]
    np.testing.assert_allclose(np.stack(table["embedding"].to_numpy()), expected, rtol=1e-6)


def test_a_block_of_which_no_row_is_left(model, rows, tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.inputs.base.BLOCK_BYTES", 4 * 4 * WIDTH)
    x, condition = rows
    column = [None] * 4 + condition.tolist()[4:]
    path = write(tmp_path / "rows.parquet", x, pa.array(column, pa.list_(pa.float32())))
    assert embed.run(model, path, str(tmp_path / "out"), condition="c").rows == {"all": ROWS - 4}


def test_the_model_and_the_job_must_agree(model, linear_digits, prepared_digits, rows, tmp_path):
    x, condition = rows
    path = write(tmp_path / "rows.parquet", x, pa.array(condition.tolist(), pa.list_(pa.float32(), CLASSES)))
    with pytest.raises(PipelineError, match=r"takes a condition \[3\].*--condition"):
        embed.run(model, path, str(tmp_path / "out"))
    with pytest.raises(PipelineError, match="takes no condition: leave --condition label out"):
        embed.run(linear_digits.path, prepared_digits, str(tmp_path / "out"), condition="label")
    with pytest.raises(PipelineError, match="no column 'absent'"):
        embed.run(model, path, str(tmp_path / "out"), condition="absent")
