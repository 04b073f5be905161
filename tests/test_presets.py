"""What ``tfvae train`` offers can be built for pictures, and is what its line says."""

import numpy as np
import pytest

from tfvae.presets import EXPERIMENTS


@pytest.mark.parametrize(
    ("name", "likelihood", "parameters"),
    [
        ("mlp", "Bernoulli", 64 * 500 + 500 + 2 * (500 * 3 + 3) + 3 * 500 + 500 + 500 * 64 + 64),
        ("gaussian-mlp", "Normal", 64 * 200 + 200 + 2 * (200 * 3 + 3) + 3 * 200 + 200 + 2 * (200 * 64 + 64)),
        ("conv", "Bernoulli", None),
    ],
)
def test_an_experiment_is_the_model_it_says(name, likelihood, parameters):
    vae = EXPERIMENTS[name].build((8, 8, 1), 3, 0)
    x = np.random.default_rng(0).integers(0, 256, [4, 8, 8, 1], dtype=np.uint8)
    assert np.isfinite(vae.elbo(x)).all()
    assert vae.likelihood.family.__name__ == likelihood
    assert parameters is None or vae.count_params() == parameters
    assert vae.latent_dim == 3
