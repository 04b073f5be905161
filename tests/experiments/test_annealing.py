"""AIS beside importance sampling, of a model so small that log p(x) is a sum over a grid."""

import numpy as np
import pytest
import tensorflow as tf

from tfvae.experiments import checkpoints, datasets
from tfvae.experiments.annealing import quality


def on_a_grid(vae, x: np.ndarray) -> float:
    """The mean log p(x) of the draws of x that seed 0 gives, by a sum over a grid of the 1-D z."""
    batch = vae.batch(vae.drawn(vae.checked(x), tf.constant([0, 0], tf.int32)))
    z = np.linspace(-6, 6, 4001, dtype=np.float32)
    log_joint = vae.log_joint(batch, np.repeat(z[:, np.newaxis, np.newaxis], len(x), axis=1)).numpy()
    return float(np.mean(np.logaddexp.reduce(log_joint.astype(np.float64), axis=0) + np.log(z[1] - z[0])))


@pytest.mark.slow
def test_both_estimates_are_of_the_same_images_and_agree(as_graphs, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    x = (rng.normal(size=[260, 1]) * np.linspace(-1, 1, 784) + rng.normal(size=[260, 784]) > 0).astype(np.float32)
    x = np.clip(x, 0.1, 0.9)  # greys: each draw of an image is another
    monkeypatch.setattr(datasets, "mnist", lambda directory: (x[:200], x[200:]))
    monkeypatch.setattr(quality, "_HIDDEN", (6,))
    monkeypatch.setattr(quality, "_LATENT_DIM", 1)
    annealed, sampled = quality.quality(str(tmp_path), epochs=60, test_rows=8, temperatures=150, num_samples=5000)
    vae = checkpoints.load(tmp_path / "checkpoints" / "annealing")
    assert annealed["log_marginal"] == pytest.approx(on_a_grid(vae, x[200:208]), abs=0.25)
    assert sampled["log_marginal"] < annealed["log_marginal"] + 0.1  # q(z|x) is too narrow here
    assert annealed["ahead"] == pytest.approx(annealed["log_marginal"] - sampled["log_marginal"], abs=1e-4)
    assert 0 < annealed["ahead_error"] < annealed["standard_error"] / 2  # the images differ more than the two estimates
    assert abs(annealed["gap"]) < 0.5 and 0 < annealed["gap_error"] < 0.5 and sampled["gap"] is None
    assert annealed["standard_error"] == pytest.approx(sampled["standard_error"], rel=0.1)
    for measured in ("_sampled", "_annealed", "_sandwich"):
        monkeypatch.setattr(quality, measured, None)
    assert quality.quality(str(tmp_path), epochs=60, test_rows=8, temperatures=150)[0] == annealed  # is read
    assert len(checkpoints.read_points(tmp_path / "checkpoints" / "annealing")) == 1
    with pytest.raises(ValueError, match="test_rows must lie between 2 and 60, received 1"):
        quality.quality(str(tmp_path), test_rows=1)
