"""What our own densities add to the 22 of tests/conformance/test_reparameterisations.py."""

import numpy as np
import pytest
from scipy import special

import tfvae
from tfvae import families


def test_the_mean_of_a_gompertz_is_exact_over_its_range():
    c = np.array([1e-3, 0.02, 0.5, 1.0, 1.01, 3.0, 50.0], np.float32)
    np.testing.assert_allclose(families.Gompertz(c, 1.0).mean(), special.exp1(c) * np.exp(c), rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Rayleigh", "Reciprocal", "Gompertz", "F"])
def test_a_layer_takes_them_by_name_and_trains(name):
    vae = tfvae.VAE(
        tfvae.networks.mlp([8]),
        tfvae.networks.mlp([8]),
        tfvae.DistributionLayer(name, [2]),
        tfvae.DistributionLayer("Normal", [5]),
        prior=tfvae.priors.Family("Gamma", [2], concentration=1.0, rate=1.0),
        seed=0,
    )
    vae.compile()
    x = np.random.default_rng(0).normal(size=[64, 5]).astype(np.float32)
    history = vae.fit(x, batch_size=16, epochs=3, verbose=0).history
    assert np.isfinite(history["elbo"]).all()
    assert vae.posterior.get_config()["distribution"] == name
