"""What our own families add to the 22 of tests/conformance/test_reparameterisations.py, and how a family is found."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import special, stats
from tensorflow_probability import distributions as tfd

import tfvae
from tfvae import families

N = 100_000


def test_the_mean_of_a_gompertz_is_exact_over_its_range():
    c = np.array([1e-3, 0.02, 0.5, 1.0, 1.01, 3.0, 50.0], np.float32)
    np.testing.assert_allclose(families.Gompertz(c, 1.0).mean(), special.exp1(c) * np.exp(c), rtol=1e-6)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_seed_fixes_the_normals(jit_compile):
    draw = tf.function(lambda seed: families.standard_normal([N], seed), jit_compile=jit_compile)
    first = draw(tf.constant([7, 8])).numpy()
    np.testing.assert_array_equal(draw(tf.constant([7, 8])), first)
    assert stats.kstest(first, stats.norm.cdf).pvalue > 1e-3
    assert families.standard_normal([2], 3, tf.float64).dtype == tf.float64


@pytest.mark.parametrize("shape", [[7], [2, 300, 20]])
def test_the_normals_are_the_same_in_eager_mode_in_xla_and_in_any_shape(shape):
    eager = families.standard_normal(shape, (7, 8))
    compiled = tf.function(lambda: families.standard_normal(shape, (7, 8)), jit_compile=True)()
    np.testing.assert_allclose(compiled, eager, rtol=1e-5)
    np.testing.assert_array_equal(families.standard_normal([tf.size(eager)], (7, 8)), np.ravel(eager))


@pytest.mark.parametrize("jit_compile", [False, True])
def test_the_normals_have_the_tails_of_a_normal(jit_compile):
    draw = tf.function(lambda: families.standard_normal([50 * N], (1, 2)), jit_compile=jit_compile)
    z = np.sort(draw())
    for tail in (z[z < -4], -z[z > 4]):
        expected = 50 * N * stats.norm.cdf(-4)
        assert abs(len(tail) - expected) < 4 * np.sqrt(expected)
        assert stats.kstest(tail, lambda t: stats.norm.cdf(t) / stats.norm.cdf(-4)).pvalue > 1e-3
    assert np.isfinite(z).all() and len(np.unique(z[:100])) > 80  # of about 270 values below -4


@pytest.mark.parametrize("jit_compile", [False, True])
def test_bernoulli_draws_each_pixel_by_its_probability(jit_compile):
    logits = np.array([-4.0, -0.5, 0.0, 3.0], np.float32)
    draw = tf.function(lambda seed: families.Bernoulli(logits=logits).sample(N, seed=seed), jit_compile=jit_compile)
    x, p = draw(tf.constant([3, 4])).numpy(), special.expit(logits.astype(np.float64))
    assert set(np.unique(x)) == {0.0, 1.0} and x.dtype == np.float32
    assert np.all(np.abs(x.mean(axis=0) - p) < 4 * np.sqrt(p * (1 - p) / N))
    assert np.abs(np.corrcoef(x.T) - np.eye(4)).max() < 5 / np.sqrt(N)
    assert stats.kstest(families.standard_uniform([N], [5, 6]), stats.uniform.cdf).pvalue > 1e-3


def test_streams_of_neighbouring_seeds_are_independent():
    draws = np.stack([families.standard_normal([N], [1, step]) for step in range(20)])
    assert np.abs(np.corrcoef(draws) - np.eye(20)).max() < 5 / np.sqrt(N)
    first = np.ravel([families.standard_normal([1], [a, b]) for a in range(30) for b in range(30)])
    assert stats.kstest(first, stats.norm.cdf).pvalue > 1e-3


@pytest.mark.parametrize("logit", [-60.0, -3.0, 0.0, 2.5, 60.0])
def test_bernoulli_is_tfps_on_binary_and_grey_values(logit):
    x = np.array([0.0, 0.25, 1.0], np.float32)
    expected = tfd.Bernoulli(logits=np.float64(logit), dtype=tf.float64).log_prob(x.astype(np.float64))
    np.testing.assert_allclose(families.Bernoulli(logits=logit).log_prob(x), expected, rtol=1e-6, atol=1e-6)
    assert families.Bernoulli(logits=logit).sample(3).dtype == tf.float32


@pytest.mark.parametrize("name", ["Rayleigh", "Reciprocal", "Gompertz", "F"])
def test_a_layer_takes_them_by_name_and_trains(name):
    vae = tfvae.VAE(
        tfvae.networks.mlp([8]),
        tfvae.networks.mlp([8]),
        tfvae.DistributionLayer(name, [2]),
        tfvae.DistributionLayer("Normal", [5]),
        prior=tfvae.priors.Prior("Gamma", [2], concentration=1.0, rate=1.0),
        seed=0,
    )
    vae.compile()
    x = np.random.default_rng(0).normal(size=[64, 5]).astype(np.float32)
    history = vae.fit(x, batch_size=16, epochs=3, verbose=0).history
    assert np.isfinite(history["elbo"]).all()
    assert vae.posterior.get_config()["distribution"] == name


def test_a_family_must_be_known_and_its_name_free():
    with pytest.raises(ValueError, match=r"families\.register"):
        families.find("Nope")
    with pytest.raises(ValueError, match="already"):
        families.register(type("Rayleigh", (tfd.Weibull,), {}))
    with pytest.raises(ValueError, match="no class of distributions"):
        families.register(dict)
    with pytest.raises(ValueError, match="whole number"):
        families.Erlang(1.5, 1.0)
