"""Families of a few values against TFP and their own probabilities."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import special, stats
from tensorflow_probability import distributions as tfd

from tfvae import families

N = 100_000


@pytest.mark.parametrize("jit_compile", [False, True])
def test_bernoulli_draws_each_pixel_by_its_probability(jit_compile):
    logits = np.array([-4.0, -0.5, 0.0, 3.0], np.float32)
    draw = tf.function(lambda seed: families.Bernoulli(logits=logits).sample(N, seed=seed), jit_compile=jit_compile)
    x, p = draw(tf.constant([3, 4])).numpy(), special.expit(logits.astype(np.float64))
    assert set(np.unique(x)) == {0.0, 1.0} and x.dtype == np.float32
    assert np.all(np.abs(x.mean(axis=0) - p) < 4 * np.sqrt(p * (1 - p) / N))
    assert np.abs(np.corrcoef(x.T) - np.eye(4)).max() < 5 / np.sqrt(N)
    assert stats.kstest(families.standard_uniform([N], [5, 6]), stats.uniform.cdf).pvalue > 1e-3


@pytest.mark.parametrize("logit", [-60.0, -3.0, 0.0, 2.5, 60.0])
def test_bernoulli_is_tfps_on_binary_and_grey_values(logit):
    x = np.array([0.0, 0.25, 1.0], np.float32)
    expected = tfd.Bernoulli(logits=np.float64(logit), dtype=tf.float64).log_prob(x.astype(np.float64))
    np.testing.assert_allclose(families.Bernoulli(logits=logit).log_prob(x), expected, rtol=1e-6, atol=1e-6)
    assert families.Bernoulli(logits=logit).sample(3).dtype == tf.float32
