"""The sigmoid that keeps parameters in a range, beside TFP's, whose gradient is not one everywhere."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import special
from tensorflow_probability import bijectors as tfb

from tfvae import likelihoods
from tfvae.families.sigmoid import Sigmoid

X = np.linspace(-300, 300, 4001).astype(np.float32)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("ends", [(), (0.0005, 0.1), (-3.0, 5.0)], ids=str)
def test_it_is_tfps_and_its_gradient_is_the_slope_everywhere(ends, jit_compile):
    @tf.function(jit_compile=jit_compile)
    def value_and_slope(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = Sigmoid(*ends).forward(x)
        return y, tape.gradient(y, x)

    y, slope = value_and_slope(tf.constant(X))
    np.testing.assert_allclose(y, tfb.Sigmoid(*ends).forward(X), rtol=1e-6, atol=1e-6)
    low, high = ends or (0.0, 1.0)
    x = X.astype(np.float64)
    expected = (high - low) * special.expit(x) * special.expit(-x)
    np.testing.assert_allclose(slope, expected, rtol=2e-4, atol=1e-7 * (high - low))
    assert np.all((low <= y.numpy()) & (y.numpy() <= np.float32(high)))


def test_a_pixel_that_is_always_white_trains_on():
    layer = likelihoods.discretized_logistic([2, 2, 1])
    features = tf.fill([3, 4], 200.0)
    with tf.GradientTape() as tape:
        tape.watch(features)
        log_prob = tf.reduce_sum(layer(features).log_prob(tf.ones([3, 2, 2, 1])))
    gradients = tape.gradient(log_prob, [features, *layer.trainable_variables])
    assert all(np.all(np.isfinite(gradient)) for gradient in gradients)
