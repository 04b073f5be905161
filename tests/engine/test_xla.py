"""What is written in another way inside XLA programs has the same values, and outside nothing has changed."""

import logging

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfvae import VAE, evaluation, likelihoods, networks, objectives, posteriors, priors
from tfvae.engine import xla
from tfvae.families import draws

pytestmark = pytest.mark.xla

tfd = tfp.distributions

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


@pytest.fixture
def retracings():
    """What TensorFlow says of functions that are traced again and again."""
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    logger = logging.getLogger("tensorflow")
    logger.addHandler(handler)
    yield lambda: [message for message in said if "retracing" in message]
    logger.removeHandler(handler)


@pytest.mark.parametrize("compile_it", [xla.compiled, xla.as_graph])
def test_programs_with_the_same_code_are_not_taken_for_one(compile_it, retracings):
    for size in range(1, 9):
        compile_it(lambda x, size=size: size * x)(tf.zeros([size]))
    assert not retracings()
    program = compile_it(lambda x: x)
    for size in range(1, 9):  # but of one that is traced anew by each call it is said
        program(tf.zeros([size]))
    assert retracings()


@pytest.mark.slow
def test_six_models_in_a_process_are_no_retracing(retracings):
    for size in range(2, 8):
        parts = networks.mlp([size]), networks.mlp([size]), posteriors.diagonal_normal(2), likelihoods.bernoulli([size])
        vae, x = VAE(*parts), np.eye(size, dtype=np.float32)
        vae.compile(jit_compile=False)
        vae.fit(x, validation_data=x, verbose=0)
        vae.evaluate(x, verbose=0)
        vae.predict(x, verbose=0)
        vae.predict(tf.data.Dataset.from_tensor_slices(x).batch(2), verbose=0)
        vae.embed(x)
        vae.draws(x)
        vae.reconstruct(x)
        vae.elbo(x)
        evaluation.log_marginal(vae, x, num_samples=2)
        evaluation.kl_by_unit(vae, x)
        priors.fit(priors.Mixture(2, 2), vae, x, epochs=1)
    assert not retracings()


def test_the_gradient_of_the_greatest_goes_to_one_of_them():
    x = np.random.default_rng(0).normal(size=[4, 3, 5]).astype(np.float32)
    x[0, :, 0] = 7.0  # all equal along the middle axis
    upstream = np.random.default_rng(1).normal(size=[4, 5]).astype(np.float32)

    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = xla.greatest(x, axis=1)
        return y, tape.gradient(y, x, upstream)

    for run in (gradient, xla.compiled(gradient)):
        y, found = run(tf.constant(x))
        np.testing.assert_array_equal(y, x.max(axis=1))
        expected = np.zeros_like(x)
        np.put_along_axis(expected, x.argmax(axis=1)[:, None], upstream[:, None], axis=1)
        np.testing.assert_array_equal(found, expected)


def weighing(log_weight: tf.Tensor) -> objectives.Terms:
    """Terms of these log w ``[K, B]``."""
    zero = tf.zeros_like(log_weight)
    q = tfd.MultivariateNormalDiag(tf.zeros([log_weight.shape[1], 2]))
    latent = objectives.Latent(tf.zeros([*log_weight.shape, 2]), q, q, zero, zero, zero[0], True)
    return objectives.Terms((latent,), log_weight)


@pytest.mark.parametrize(
    "function",
    [networks.Maxout(4), lambda x: objectives.Renyi(-np.inf)(weighing(x)).objective],
    ids=["Maxout", "VR-max"],
)
def test_no_gradient_asks_whether_a_float_equals_one_that_is_computed_anew(function):
    """Where none does the gradient is 0 / 0: on an NVIDIA H200 that of maxout layers was NaN from the first steps."""

    @tf.function
    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
        return tape.gradient(y, x)

    x = tf.constant(np.random.default_rng(0).normal(size=[6, 5]).astype(np.float32))
    operations = {operation.type for operation in gradient.get_concrete_function(x).graph.get_operations()}
    assert "Equal" not in operations
    assert np.all(np.isfinite(gradient(x))) and np.any(gradient(x) != 0)
