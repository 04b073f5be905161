"""A resampled prior against quadrature: its integral, its gradient, its draws, and N(0, I) where all is accepted."""

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from tests import linear_gaussian
from tfvae import priors

GRID = np.linspace(-8.0, 8.0, 4001)


def wavy(truncation: int = 20) -> priors.Resampled:
    """a(z) that lies near 0 for half of the numbers and near 1 for others."""
    prior = priors.Resampled(1, hidden=[5], truncation=truncation, decay=0.9)
    rng = np.random.default_rng(0)
    for weight in prior.trainable_variables:
        weight.assign(3.0 * rng.normal(size=weight.shape))
    return prior


def exact(prior: priors.Resampled, z: np.ndarray) -> np.ndarray:
    """p(z) by equation 7 in float64, Z by the rectangle rule."""

    def accepted(points: np.ndarray) -> np.ndarray:
        y = points[:, None]
        for i, layer in enumerate(prior.acceptance):
            kernel, bias = (weight.numpy().astype(np.float64) for weight in layer.weights)
            y = np.tanh(y @ kernel + bias) if i == 0 else y @ kernel + bias
        return 1 / (1 + np.exp(-y[:, 0]))

    normalizer = np.sum(accepted(GRID) * scipy.stats.norm.pdf(GRID)) * (GRID[1] - GRID[0])
    alpha = (1 - normalizer) ** (prior.truncation - 1)
    return scipy.stats.norm.pdf(z) * ((1 - alpha) * accepted(z) / normalizer + alpha)


@pytest.mark.parametrize("truncation", [1, 2, 20])
def test_its_density_is_equation_7_s_and_integrates_to_one(truncation):
    prior = wavy(truncation)
    prior.normalize()
    density = np.exp(prior().log_prob(GRID[:, None].astype(np.float32)).numpy().astype(np.float64))
    assert np.sum(density) * (GRID[1] - GRID[0]) == pytest.approx(1.0, abs=0.01)
    np.testing.assert_allclose(density, exact(prior, GRID), rtol=0.02)


def test_what_accepts_everything_alike_is_the_standard_normal():
    prior = wavy()
    for weight in prior.trainable_variables:
        weight.assign(tf.zeros_like(weight))
    z = np.random.default_rng(1).normal(size=[9, 1]).astype(np.float32)
    np.testing.assert_allclose(prior().log_prob(z), scipy.stats.norm.logpdf(z[:, 0]), rtol=1e-5, atol=1e-6)


def test_its_draws_follow_its_density():
    prior = wavy(truncation=3)
    z = prior().sample(20_000, seed=[1, 2]).numpy()[:, 0]
    cumulative = np.cumsum(exact(prior, GRID))
    assert scipy.stats.kstest(z, lambda at: np.interp(at, GRID, cumulative / cumulative[-1])).pvalue > 1e-3
    assert scipy.stats.kstest(z, scipy.stats.norm.cdf).pvalue < 1e-6


def test_a_step_s_gradient_is_that_of_the_normalised_density():
    """Central differences of quadrature, to which the mean over steps of their own draws comes."""
    prior, z = wavy(), np.array([-1.0, 0.3, 2.0])
    prior.normalize(200_000)
    bias = prior.acceptance[-1].bias

    @tf.function(autograph=False)
    def gradient(seed):
        with tf.GradientTape() as tape:
            value = tf.reduce_sum(prior.in_training(None, seed).log_prob(tf.constant(z[:, None], tf.float32)))
        return tape.gradient(value, bias)[0]

    found = np.array([gradient(tf.constant([i, 5])) for i in range(60)], np.float64)
    start, h = bias.numpy(), 0.01
    ends = []
    for sign in (1, -1):
        bias.assign(start + sign * h)
        ends.append(np.sum(np.log(exact(prior, z))))
    error = found.std() / np.sqrt(60)
    assert abs(found.mean() - (ends[0] - ends[1]) / 2 / h) < 4 * error + 2e-3
    assert abs((ends[0] - ends[1]) / 2 / h) > 0.05 and error < 0.01


def test_training_moves_the_normaliser_towards_its_truth_and_looking_does_not():
    prior = wavy()
    truth = float(wavy().normalize(200_000))
    assert abs(truth - 0.5) > 0.03
    for i in range(60):
        prior.in_training(None, tf.constant([i, 1]))
    assert float(prior.normalizer.value) == pytest.approx(truth, abs=0.02)
    before = float(prior.normalizer.value)
    prior().log_prob(tf.zeros([3, 1]))
    assert float(prior.normalizer.value) == before


@pytest.mark.slow
def test_it_is_fitted_to_two_clusters_and_saved_with_its_normaliser(tmp_path):
    rng = np.random.default_rng(0)
    x = (rng.choice([-2.0, 2.0], size=[300, 1]) + 0.3 * rng.normal(size=[300, 4])).astype(np.float32)
    keras.utils.set_random_seed(0)
    vae, prior = linear_gaussian.vae(), priors.Resampled(2, hidden=[20, 20])
    priors.fit(prior, vae, x, epochs=60, batch_size=100, learning_rate=0.003)
    z = vae.encode(x).sample(20, seed=(1, 7)).numpy().reshape(-1, 2)
    gain = np.mean(prior().log_prob(z)) - np.mean(vae.prior().log_prob(z))
    assert gain > 0.7
    normalizer = float(prior.normalizer.value)
    assert float(prior.normalize(500_000, seed=9)) == pytest.approx(normalizer, rel=0.01)
    better = vae.with_prior(prior)
    better.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.prior().log_prob(z[:9]), prior().log_prob(z[:9]))
