"""Draws with their density, means without a formula, and draws from given noise."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats
from tensorflow_probability import bijectors as tfb
from tensorflow_probability import distributions as tfd

import tfvae
from tfvae import DistributionLayer, families, networks, posteriors
from tfvae.engine import scope
from tfvae.families import draws

D, ROWS = 20, 4
SEED = tf.constant([3, 4])


class Counting:
    """An autoregressive network, strictly triangular and without Keras, that counts how often it is asked."""

    def __init__(self):
        weights = np.random.default_rng(0).normal(scale=0.3, size=[2, D, D])
        self.weights = tf.constant(np.triu(weights, 1), tf.float32)
        self.calls = 0

    def __call__(self, z):
        self.calls += 1
        return z @ self.weights[0], 0.1 * tf.tanh(z @ self.weights[1])


def flow(network) -> tfd.Distribution:
    """An inverse autoregressive flow: cheap to draw from, D networks deep to invert."""
    loc = np.random.default_rng(1).normal(size=[ROWS, D]).astype(np.float32)
    base = tfd.Independent(families.Normal(loc, 0.5), 1)
    return tfd.TransformedDistribution(base, tfb.Invert(tfb.MaskedAutoregressiveFlow(network)))


@pytest.mark.parametrize("jit_compile", [None, False, True])
def test_a_flow_is_drawn_with_its_density_in_two_calls_and_not_inverted(jit_compile):
    network = Counting()

    def draw(num_samples):
        return posteriors.draw(flow(network), num_samples, SEED)

    way = draw if jit_compile is None else tf.function(draw, jit_compile=jit_compile, autograph=False)
    z, log_q = way(3)
    assert network.calls <= 2
    # The truth by inverting: of a copy, so that no cache helps.
    expected = flow(network).log_prob(tf.constant(z.numpy()))
    np.testing.assert_allclose(log_q, expected, rtol=1e-4)
    assert z.shape == (3, ROWS, D) and log_q.shape == (3, ROWS)


def test_the_density_of_a_moved_draw_is_that_of_where_it_lies():
    corner = tfd.Independent(tfd.Beta(tf.fill([ROWS, 2], 0.01), 0.01), 1)
    assert not np.isfinite(corner.log_prob(corner.sample(50, seed=SEED))).all()  # draws at 0 and 1
    z, log_q = posteriors.draw(corner, 50, SEED)
    np.testing.assert_array_equal(log_q, corner.log_prob(z))
    assert np.isfinite(log_q).all()


@pytest.mark.parametrize(
    "make", [lambda loc: tfd.Independent(families.Normal(loc, 1.0), 1), lambda loc: flow(Counting())]
)
def test_a_replica_finds_its_rows_of_the_whole_draw(make):
    whole = make(tf.zeros([ROWS, D]))
    z, log_q = posteriors.draw(whole, 3, SEED)
    for index in range(2):
        part = whole[2 * index : 2 * index + 2]
        with scope.as_part(scope.Part(tf.constant(index), 2)):
            z_part, log_q_part = posteriors.draw(part, 3, SEED)
        np.testing.assert_array_equal(z_part, z[:, 2 * index : 2 * index + 2])
        np.testing.assert_allclose(log_q_part, log_q[:, 2 * index : 2 * index + 2], rtol=1e-5)


@pytest.mark.parametrize("name", ["mean", "stddev"])
def test_a_flow_says_where_its_moments_are_found_and_there_they_are(name):
    base = tfd.Independent(families.Normal([[1.0, -2.0]] * ROWS, [[3.0, 0.5]] * ROWS), 1)
    with pytest.raises(NotImplementedError, match=rf"has no formula: tfvae\.families\.draws\.{name}\(q\) gives it"):
        getattr(families.Flow(base, []), name)()
    np.testing.assert_allclose(getattr(draws, name)(families.Flow(base, [])), getattr(base, name)(), rtol=1e-5)


def test_a_mean_without_formula_is_that_of_fixed_draws():
    q = flow(Counting())
    with pytest.raises(NotImplementedError):
        q.mean()
    many = q.sample(20_000, seed=SEED).numpy()
    mean, stddev = draws.mean(q), draws.stddev(q)
    np.testing.assert_array_equal(mean, draws.mean(q))
    assert np.abs((mean - many.mean(axis=0)) / many.std(axis=0)).max() < 5 / np.sqrt(20_000) + 0.03  # 0.45 of draws
    np.testing.assert_allclose(stddev, many.std(axis=0), rtol=0.12)  # 0.32 of draws


@pytest.mark.parametrize("name", ["LogitNormal", "RelaxedBernoulli"])
def test_a_model_whose_posterior_has_no_mean_embeds(name):
    vae = tfvae.VAE(
        networks.mlp([4]), networks.mlp([4]), DistributionLayer(name, [2]), DistributionLayer("Normal", [3]),
        prior=tfvae.priors.Family("Beta", [2], concentration1=2.0, concentration0=2.0),
    )  # fmt: skip
    x = np.random.default_rng(0).normal(size=[6, 3]).astype(np.float32)
    np.testing.assert_array_equal(vae.embed(x), vae.embed(x))
    assert np.all((vae.embed(x) > 0) & (vae.embed(x) < 1))


def test_a_flow_takes_noise_to_its_own_distribution():
    q = flow(Counting())
    noise = tf.random.stateless_normal([5, ROWS, D], SEED)
    expected = q.bijector.forward(q.distribution.distribution.loc + 0.5 * noise)
    np.testing.assert_allclose(draws.from_noise(q, noise), expected, rtol=1e-6)
    of_sample = tfd.TransformedDistribution(tfd.Sample(tfd.Normal(1.0, 2.0), [D]), tfb.Exp())
    z = draws.from_noise(of_sample, tf.random.stateless_normal([2000, D], SEED))
    assert stats.kstest(np.ravel(z), stats.lognorm(2.0, scale=np.e).cdf).pvalue > 1e-3
