"""What is written in another way inside XLA programs has the same values, and outside nothing has changed."""

import numpy as np
import pytest
import tensorflow as tf

from tfvae import VAE, likelihoods, networks, posteriors
from tfvae.engine import xla
from tfvae.families import draws

X = np.concatenate([[0.0, -0.0, 1e-30, 200.0, -200.0], np.linspace(-100, 90, 20_001)]).astype(np.float32)


def test_softplus_has_float32_s_own_precision_everywhere():
    exact = np.logaddexp(0.0, X.astype(np.float64))
    inside = xla.compiled(xla.softplus)(X).numpy()
    normal = exact > 4 * np.finfo(np.float32).tiny  # below, XLA flushes to zero
    assert np.max(np.abs(inside - exact)[normal] / exact[normal]) < 4e-7
    assert np.all(np.abs(inside - exact)[~normal] < 1e-37)


def test_its_gradients_of_first_and_second_order_are_those_of_the_logistic_function():
    def gradients(x):
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = xla.softplus(x)
            first = tape.gradient(y, x)
        return first, outer.gradient(first, x)

    x = X.astype(np.float64)
    p = np.exp(-np.logaddexp(0.0, -x))
    first, second = xla.compiled(gradients)(tf.constant(X))
    np.testing.assert_allclose(first, p, rtol=1e-5, atol=1e-30)
    np.testing.assert_allclose(second, p * (1 - p), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_so(value):
    result = xla.compiled(xla.softplus)(tf.constant([value], tf.float32)).numpy()
    np.testing.assert_array_equal(result, tf.nn.softplus(tf.constant([value])).numpy())


def test_outside_of_a_program_it_is_tensorflow_s_kernel():
    def operations() -> set[str]:
        graph = tf.function(xla.softplus).get_concrete_function(tf.TensorSpec([3], tf.float32)).graph
        return {operation.type for operation in graph.get_operations()}

    assert "Softplus" in operations()
    xla.compiled(xla.softplus)(tf.zeros([3]))
    with pytest.raises(ZeroDivisionError):
        xla.compiled(lambda x: x + 1 // 0)(tf.zeros([3]))
    assert "Softplus" in operations()  # the mark is gone, also after an error


def test_float64_is_not_made_less_precise():
    x = np.linspace(-30, 30, 101)
    np.testing.assert_allclose(xla.compiled(xla.softplus)(tf.constant(x)), np.logaddexp(0, x), rtol=1e-13)


@pytest.mark.skipif(bool(tf.config.list_logical_devices("GPU")), reason="on a GPU XLA compiles everything")
@pytest.mark.parametrize("part", ["encoder", "decoder", "neither"])
def test_convolutions_run_on_tensorflows_own_kernels(part):
    encoder = networks.conv_encoder([4]) if part == "encoder" else networks.mlp([4])
    decoder = networks.conv_decoder([4, 4, 1], [4]) if part == "decoder" else networks.mlp([4])
    vae = VAE(encoder, decoder, posteriors.diagonal_normal(2), likelihoods.bernoulli([4, 4, 1]))
    vae.compile()
    compiled = part == "neither"
    assert vae.jit_compile is compiled
    vae.compile(jit_compile=True)
    assert vae.jit_compile
    x = np.random.default_rng(0).random([3, 4, 4, 1], np.float32)
    np.testing.assert_allclose(vae.embed(x), draws.mean(vae.encode(x)), rtol=1e-5, atol=1e-6)
