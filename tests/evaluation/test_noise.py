"""A model with noise: every number in nats is of the drawn x, by closed forms."""

import numpy as np
import pytest
import tensorflow as tf

from tfvae import VAE, DistributionLayer, evaluation, networks, observations, runs

LEVEL, ROWS, SCALE = 3, 4000, 0.01


def prior_as_posterior(likelihood: DistributionLayer, noise: observations.Noise) -> VAE:
    """p(x) = p(x|z), for a likelihood that sees no z, and q(z|x) = p(z), so that one sample is exact."""
    posterior = DistributionLayer("Normal", [1], loc=0.0, scale=1.0)
    vae = VAE(networks.mlp([1]), networks.mlp([1]), posterior, likelihood, noise=noise, seed=0)
    vae.compile(jit_compile=False)
    return vae


def numbers(vae: VAE, x: np.ndarray) -> dict[str, float]:
    """Each way to a mean of log p(x)."""
    return {
        "evaluate": vae.evaluate(x, verbose=0, return_dict=True)["elbo"],
        "elbo": float(np.mean(vae.elbo(x, seed=tf.constant([1, 2])))),
        "log_marginal": evaluation.log_marginal(vae, x, 10, batch_size=1000).mean,
    }


def test_a_dequantised_level_is_scored_by_the_mean_of_its_cell():
    vae = prior_as_posterior(DistributionLayer("Normal", [1], loc=0.0, scale=SCALE), observations.Dequantized())
    x = np.full([ROWS, 1], LEVEL, np.uint8)
    # E x² of x uniform on [b, b + 1] / 256
    square = (LEVEL**2 + LEVEL + 1 / 3) / 256**2
    expected = -np.log(SCALE * np.sqrt(2 * np.pi)) - square / (2 * SCALE**2)
    undrawn = -np.log(SCALE * np.sqrt(2 * np.pi)) - (LEVEL / 255) ** 2 / (2 * SCALE**2)
    spread = (LEVEL + 1) ** 2 / 256**2 / (2 * SCALE**2) / np.sqrt(ROWS)  # at most
    assert abs(undrawn - expected) > 10 * spread
    for name, found in numbers(vae, x).items():
        assert found == pytest.approx(expected, abs=3 * spread), name


def test_a_grey_is_scored_as_the_0_or_1_that_was_drawn_of_it():
    vae = prior_as_posterior(DistributionLayer("Bernoulli", [1], probs=0.1), observations.Binarized())
    x = np.full([ROWS, 1], 0.25, np.float32)
    found = evaluation.log_marginal(vae, x, 10, batch_size=1000).log_marginal
    ones = np.isclose(found, np.log(0.1), atol=1e-4)
    assert np.all(ones | np.isclose(found, np.log(0.9), atol=1e-4))
    assert np.mean(ones) == pytest.approx(0.25, abs=4 * np.sqrt(0.25 * 0.75 / ROWS))
    again, other = (evaluation.log_marginal(vae, x, 10, batch_size=1000, seed=s).log_marginal for s in (0, 1))
    np.testing.assert_array_equal(found, again)
    assert np.any(found != other)
    assert runs._observation_kind(vae, x) == "Bernoulli, of draws by Binarized"


def test_what_is_0_and_1_already_stays_so():
    vae = prior_as_posterior(DistributionLayer("Bernoulli", [1], probs=0.1), observations.Binarized())
    x = (np.arange(ROWS) % 2).astype(np.float32)[:, None]
    found = evaluation.log_marginal(vae, x, 10, batch_size=1000).log_marginal
    np.testing.assert_allclose(found, np.log(np.where(x[:, 0] == 1, 0.1, 0.9)), atol=1e-4)
