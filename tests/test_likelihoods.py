"""Likelihoods that are settings of a layer: pixels as classes, one scale for all, tails that stay exact, sequences."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from tfvae import VAE, DistributionLayer, evaluation, likelihoods, networks, posteriors


def test_pixels_as_classes_of_equal_weight_have_8_bits_and_bytes_are_taken_as_they_are():
    layer = DistributionLayer("Categorical", [2, 2, 1], num_classes=256, kernel_initializer="zeros")
    vae = VAE(networks.mlp([4]), networks.mlp([4]), posteriors.diagonal_normal(2), layer, seed=0)
    x = np.random.default_rng(0).integers(0, 256, [50, 2, 2, 1]).astype(np.uint8)
    log_likelihood = vae.terms(x, 1, seed=1).log_likelihood
    bits = evaluation.bits_per_dimension(np.mean(log_likelihood), vae.event_shape)
    assert bits == pytest.approx(8, abs=1e-6) and evaluation.level_width(vae) == 1
    np.testing.assert_array_equal(vae.terms(x.astype(np.float32), 1, seed=1).log_likelihood, log_likelihood)
    position_by_position = layer.from_config(layer.get_config())(np.zeros([3, 2, 2, 5], np.float32))
    assert position_by_position.event_shape == (2, 2, 1)


@pytest.mark.parametrize("shape", [(), [4]])
def test_a_shared_scale_is_best_where_it_is_the_root_of_the_mean_squared_error(shape):
    """So that a scale which is learned beside the networks goes to the optimal one (arXiv 2006.13202, section 3)."""
    layer = DistributionLayer("Normal", [4], shared={"scale": shape})
    features = tf.constant(np.random.default_rng(0).normal(size=[500, 3]), tf.float32)
    x = np.random.default_rng(1).normal(scale=[0.5, 1.0, 2.0, 0.1], size=[500, 4]).astype(np.float32)
    error = (x - layer(features).mean().numpy()) ** 2
    best = np.sqrt(error.mean() if shape == () else error.mean(axis=0))
    for factor, sign in ((1.0, 0), (0.8, 1), (1.25, -1)):
        layer.shared_weights["scale"].assign(np.log(np.expm1(factor * best)))
        with tf.GradientTape() as tape:
            log_prob = tf.reduce_mean(layer(features).log_prob(x))
        slope = tape.gradient(log_prob, layer.shared_weights["scale"].value).numpy()
        assert np.all(np.abs(slope) < 1e-3) if sign == 0 else np.all(np.sign(slope) == sign)
        if sign == 0:
            expected = -0.5 * np.sum(np.log(2 * np.pi * np.e * best**2) * np.ones(4))
            assert float(log_prob) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("df", [1.01, 5.0, 1e3, 1e6])
def test_students_t_is_exact_far_out_and_a_normal_for_many_degrees(df):
    x = np.float32([0.3, 1.0, -5.0, 1e2, 1e4])
    layer = DistributionLayer("StudentT", [5], df=df, loc=0.3, scale=0.7)
    found = layer.distribution({**layer.constants()}).distribution.log_prob(x)
    truth = stats.t(np.float64(np.float32(df)), np.float32(0.3), np.float32(0.7)).logpdf(x.astype(np.float64))
    np.testing.assert_allclose(found, truth, rtol=2e-6, atol=2e-6)
    if df == 1e6:
        np.testing.assert_allclose(found[:2], stats.norm(0.3, 0.7).logpdf(x[:2]), atol=1e-4)


def test_a_sequence_is_scored_up_to_its_end_which_is_where_nan_begins():
    x = np.random.default_rng(0).normal(size=[6, 5, 2]).astype(np.float32)
    lengths = [5, 3, 1, 5, 2, 4]
    for row, length in zip(x, lengths, strict=True):
        row[length:] = np.nan
    keras.utils.set_random_seed(0)
    encoder = keras.Sequential([keras.layers.GRU(4)])
    decoder = keras.Sequential([keras.layers.RepeatVector(5), keras.layers.GRU(4, return_sequences=True)])
    layer = likelihoods.missing(DistributionLayer("Normal", [5, 2], scale=0.5))
    vae = VAE(encoder, decoder, posteriors.diagonal_normal(2), layer, seed=0)
    z = np.random.default_rng(1).normal(size=[6, 2]).astype(np.float32)
    p = vae.decode(z)
    for i, length in enumerate(lengths):
        truth = stats.norm(p.mean()[i, :length], 0.5).logpdf(x[i, :length]).sum()
        assert float(p.log_prob(x)[i]) == pytest.approx(truth, rel=1e-5)
    assert np.isfinite(vae.elbo(x, seed=1)).all()
