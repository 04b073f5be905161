"""Flows as priors: densities against Jacobians and quadrature, calls of the network, and a fit that gains."""

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from tests import linear_gaussian
from tests.families import flow_truths
from tfvae import networks, priors

KINDS = {
    "RealNVP": lambda size: priors.Flow(size, num_flows=2, hidden=[8]),
    "masked": lambda size: priors.Flow(size, num_flows=2, hidden=[8], is_coupling=False),
    "autoregressive": lambda size: priors.Autoregressive(size, hidden=[8]),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def prior_of(kind: str, size: int) -> priors.Flow:
    keras.utils.set_random_seed(0)
    prior, rng = KINDS[kind](size), np.random.default_rng(1)
    for weight in prior.trainable_variables:
        weight.assign(0.3 * rng.normal(size=weight.shape))
    return prior


@every_kind
def test_its_density_is_that_of_the_jacobian_and_integrates_to_one(kind):
    p = prior_of(kind, 3)()
    flow_truths.check_jacobian(p, tf.random.stateless_normal([4, 2, 3], [1, 2]), rtol=2e-4)
    z, log_p = p.experimental_sample_and_log_prob([50], seed=[1, 2])
    np.testing.assert_allclose(p.log_prob(tf.identity(z)), log_p, rtol=1e-3, atol=1e-3)
    flow_truths.check_integral(prior_of(kind, 2)())


@pytest.mark.parametrize(("kind", "forward", "backward"), [("RealNVP", 4, 2), ("masked", 2 * 20, 2)])
def test_the_density_is_the_cheap_direction(kind, forward, backward, monkeypatch):
    prior, calls, call = prior_of(kind, 20), [], networks.Masked.call
    monkeypatch.setattr(networks.Masked, "call", lambda self, *args: calls.append(1) or call(self, *args))
    z = prior().sample(3, seed=[1, 2])
    assert len(calls) == forward
    calls.clear()
    prior().log_prob(tf.identity(z))
    assert len(calls) == backward


def test_an_autoregressive_prior_is_a_product_of_normals_of_those_before():
    prior = prior_of("autoregressive", 3)
    z = np.random.default_rng(2).normal(size=[5, 3]).astype(np.float32)
    raw = prior.flows[0].network(z).numpy().astype(np.float64)
    slope = np.exp(3 * np.tanh(raw[..., 1] / 3))
    expected = scipy.stats.norm(-raw[..., 0] / slope, 1 / slope).logpdf(z).sum(axis=1)
    np.testing.assert_allclose(prior().log_prob(z), expected, rtol=1e-4)
    moved = z + np.float32([0, 0, 1])
    np.testing.assert_array_equal(prior.flows[0].network(moved), prior.flows[0].network(z))  # the last is seen by none


@pytest.mark.slow
def test_a_fitted_flow_gains_more_than_a_normal_of_any_covariance():
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, np.pi, 500)  # an arc: neither a normal nor one cluster
    x = np.stack([np.cos(angle), np.sin(angle)], axis=1) @ (4 * linear_gaussian.W) + linear_gaussian.LOC
    x, vae = x.astype(np.float32), linear_gaussian.vae()
    keras.utils.set_random_seed(0)
    prior = priors.fit(priors.Flow(2, hidden=[32, 32]), vae, x, epochs=150, batch_size=250, learning_rate=0.01)
    seen, unseen = (vae.encode(x).sample(20, seed=(i, 7)).numpy().reshape(-1, 2) for i in range(2))
    normal = scipy.stats.multivariate_normal(seen.mean(axis=0), np.cov(seen.T)).logpdf(unseen).mean()
    assert np.mean(prior().log_prob(unseen)) > normal + 0.1
    drawn = prior().sample(4000, seed=[1, 2]).numpy()
    np.testing.assert_allclose(drawn.mean(axis=0), unseen.mean(axis=0), atol=0.15)
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(unseen.T), atol=0.3)
