"""The two halves of a DistributionLayer, its shared parameters and what it says of itself."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfvae
from tfvae import DistributionLayer, networks

X = np.random.default_rng(0).normal(size=[5, 4]).astype(np.float32)


def test_a_call_is_its_two_halves():
    layer = DistributionLayer("Triangular", [3], low=-1.0, kernel_initializer=keras.initializers.GlorotUniform(1))
    parameters = layer.parameters(X)
    assert {name: value.shape for name, value in parameters.items()} == {"low": [3], "high": [5, 3], "peak": [5, 3]}
    x = np.zeros([5, 3], np.float32)
    np.testing.assert_array_equal(layer.distribution(parameters).log_prob(x), layer(X).log_prob(x))


def test_held_parameters_have_no_gradient_and_z_has_its_own():
    layer = DistributionLayer("Normal", [2], shared=["scale"])
    z = tf.constant(np.random.default_rng(1).normal(size=[5, 2]), tf.float32)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(z)
        held, free = layer.with_held(X)[1].log_prob(z), layer(X).log_prob(z)
    np.testing.assert_array_equal(held, free)
    assert all(gradient is None for gradient in tape.gradient(held, layer.trainable_variables))
    np.testing.assert_array_equal(tape.gradient(held, z), tape.gradient(free, z))
    assert all(np.any(gradient != 0) for gradient in tape.gradient(free, layer.trainable_variables))


@pytest.mark.parametrize(("shared", "shape"), [(["scale"], (2, 3)), ({"scale": [3]}, (3,)), ({"scale": ()}, ())])
def test_a_shared_parameter_is_a_weight_and_no_function_of_the_features(shared, shape, tmp_path):
    layer = DistributionLayer("Normal", [2, 3], shared=shared)
    scale = layer(X).stddev().numpy()
    np.testing.assert_allclose(scale, np.full([5, 2, 3], np.log(2)), rtol=1e-6)  # softplus(0)
    assert [tuple(w.shape) for w in layer.trainable_variables] == [shape, (4, 6), (6,)]
    layer.shared_weights["scale"].assign(np.linspace(-1.0, 1.0, int(np.prod(shape))).reshape(shape))
    scale = layer(X).stddev().numpy()
    raw = np.broadcast_to(layer.shared_weights["scale"].numpy(), [5, 2, 3])
    np.testing.assert_allclose(scale, np.logaddexp(0, raw), rtol=1e-5)
    other = DistributionLayer.from_config(layer.get_config())
    other(X)
    other.set_weights(layer.get_weights())
    np.testing.assert_array_equal(other(X).stddev(), scale)
    assert other.get_config() == layer.get_config()


def test_a_shared_scale_is_learned_to_its_closed_form():
    """The best σ² of N(loc, σ²) is the mean of (x - loc)²: there its gradient is 0."""
    layer = DistributionLayer("Normal", [3], shared={"scale": ()}, constraints={"scale": "log_variance"})
    layer(X)
    x = np.random.default_rng(2).normal(size=[5, 3]).astype(np.float32)
    mean_square = np.mean((x - layer(X).mean()) ** 2)
    gradients = []
    for variance in (mean_square / 2, mean_square, 2 * mean_square):
        layer.shared_weights["scale"].assign(np.log(variance))
        with tf.GradientTape() as tape:
            log_prob = tf.reduce_sum(layer(X).log_prob(x))
        gradients.append(float(tape.gradient(log_prob, layer.shared_weights["scale"])))
    assert gradients[0] > 1 and gradients[2] < -1 and abs(gradients[1]) < 1e-3


def test_where_nothing_is_free_the_batch_is_that_of_the_features():
    layer = DistributionLayer("Normal", [2], loc=1.0, shared=["scale"])
    assert layer(X).batch_shape == [5] and len(layer.trainable_variables) == 1
    graph = tf.function(lambda x: layer(x).log_prob(tf.ones([2])), input_signature=[tf.TensorSpec([None, 4])])
    assert graph(X).shape == [5]


def test_a_model_trains_and_saves_a_shared_parameter(tmp_path):
    vae = tfvae.VAE(
        networks.mlp([4]), networks.mlp([4]), DistributionLayer("Normal", [2]),
        DistributionLayer("NegativeBinomial", [3], shared=["total_count"], kernel_regularizer="l2"), seed=0,
    )  # fmt: skip
    x = np.random.default_rng(0).poisson(4, size=[64, 3]).astype(np.uint8)
    before = vae.likelihood.shared_weights["total_count"].numpy()
    vae.compile(jit_compile=False)
    vae.fit(x, epochs=2, verbose=0)
    assert np.all(vae.likelihood.shared_weights["total_count"].numpy() != before)
    kernel = vae.likelihood.projection.kernel.numpy()
    np.testing.assert_allclose(vae.penalty(), 0.01 * np.sum(kernel**2), rtol=1e-5)
    vae.save(tmp_path / "model.keras")
    loaded, seed = keras.models.load_model(tmp_path / "model.keras"), tf.constant([0, 1])
    np.testing.assert_array_equal(loaded.elbo(x, seed=seed), vae.elbo(x, seed=seed))
    assert loaded.likelihood.describe() == vae.likelihood.describe()
    assert loaded.likelihood.describe().shared == ["total_count"]


@pytest.mark.parametrize(
    ("family", "more", "message"),
    [
        ("Normal", {"shared": ["rate"]}, "Normal has no parameter rate; it accepts loc, scale"),
        ("Normal", {"shared": ["scale"], "scale": 1.0}, "Normal's scale is both fixed and shared"),
        (
            "Normal",
            {"shared": {"scale": [2]}},
            "scale cannot be shared with shape .*broadcasts to",
        ),
        ("MultivariateNormalTriL", {"shared": {"scale_tril": [1, 3]}}, "constrained number by number"),
        ("Uniform", {"shared": ["high"]}, "Uniform with a shared high needs a shared low too"),
        ("TruncatedNormal", {"shared": ["loc"]}, "a shared loc needs a shared low and high"),
    ],
)
def test_errors(family, more, message):
    with pytest.raises(ValueError, match=message):
        DistributionLayer(family, [3], **more)
