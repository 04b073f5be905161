"""The score of an embedding job: the ELBO from noise that belongs to the row's key."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.stats
import tensorflow as tf

from pipelines import embed
from pipelines.embedding.keyed_noise import standard_normal
from pipelines.errors import PipelineError

from ..conftest import Linear, command

ROWS, SAMPLES = 40, 5
KEYS = [f"Zeile {i}é" for i in range(ROWS)]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    """Its embedding is the row; its "ELBO" the sum of the row times each noise, which tells the noise."""
    module, path = tf.Module(), str(tmp_path_factory.mktemp("models") / "scored" / "1")
    x, noise = tf.TensorSpec([None, 3], tf.float32, "x"), tf.TensorSpec([None, None, 3], tf.float32, "noise")
    module.embed = tf.function(lambda x: {"embedding": tf.identity(x)}, input_signature=[x])

    @tf.function(input_signature=[x, noise])
    def score(x, noise):
        return {"elbo": tf.reduce_sum(noise * x[:, None], axis=[1, 2]) / tf.cast(tf.shape(noise)[1], tf.float32)}

    tf.saved_model.save(module, path, {"embed": module.embed, "score": score})
    return path


@pytest.fixture
def rows(tmp_path) -> tuple[str, np.ndarray]:
    x = np.random.default_rng(0).normal(size=[ROWS, 3]).astype(np.float32)
    table = pa.table({"key": KEYS, "x": pa.array(x.tolist(), pa.list_(pa.float32()))})
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=9)
    return str(tmp_path / "rows.parquet"), x


@pytest.mark.parametrize("batch_size", [4096, 7])
def test_a_score_depends_on_the_row_and_its_key_alone(batch_size, model, rows, tmp_path):
    path, x = rows
    assert embed.run(model, path, str(tmp_path / "out"), score=SAMPLES, batch_size=batch_size).rows == {"all": ROWS}
    table = embed.read_embeddings(str(tmp_path / "out"))
    assert table.schema.field("score").type == pa.float32()
    found = dict(zip(table["key"].to_pylist(), table["score"].to_pylist(), strict=True))
    for key, row in zip(KEYS, x, strict=True):
        noise = standard_normal([key], SAMPLES, 3)[0]
        assert found[key] == pytest.approx(float((noise * row).sum() / SAMPLES), rel=1e-4, abs=1e-5)


def test_the_noise_is_standard_normal_and_independent():
    noise = standard_normal([str(i) for i in range(2000)], 3, 5).astype(np.float64)
    assert scipy.stats.kstest(noise.ravel(), "norm").pvalue > 1e-3
    flat = noise.reshape(2000, 15)
    correlations = np.corrcoef(flat.T) - np.eye(15)
    assert np.abs(correlations).max() < 5 / np.sqrt(2000)
    neighbours = (flat[:-1] * flat[1:]).mean()
    assert abs(neighbours) < 5 / np.sqrt(flat[1:].size)
    np.testing.assert_array_equal(standard_normal(["7"], 3, 5)[0], noise[7].astype(np.float32))
    assert standard_normal([], 2, 3).shape == (0, 2, 3)


@pytest.mark.slow
def test_the_command_and_what_is_refused(model, rows, linear_digits: Linear, prepared_digits, tmp_path):
    done = command("pipelines.embed", "--model", model, "--input", rows[0], "--output", tmp_path / "out", "--score", 2)
    assert done.returncode == 0, done.stderr
    assert embed.read_embeddings(str(tmp_path / "out")).schema.names == ["key", "embedding", "score"]
    with pytest.raises(PipelineError, match=r"was made with other options \(score was "):
        embed.run(model, rows[0], str(tmp_path / "out"), score=3)
    with pytest.raises(PipelineError, match="no signature 'score_uint8' to score what 'embed_uint8' embeds"):
        embed.run(linear_digits.path, prepared_digits, str(tmp_path / "no"), score=1)
    with pytest.raises(PipelineError, match="score is -1, expected a whole number, 0 or more"):
        embed.run(model, rows[0], str(tmp_path / "no"), score=-1)
