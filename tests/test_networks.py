"""Networks have the shapes that they say, and the convolutions mirror one another."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfvae import networks


def test_mlp_is_dense_layers_of_its_units():
    network = networks.mlp([7, 5], "relu", name="encoder")
    assert network(np.zeros([3, 4, 2], "float32")).shape == (3, 5)
    assert network.name == "encoder"
    assert [w.shape for w in network.weights] == [(8, 7), (7,), (7, 5), (5,)]
    assert [layer.activation.__name__ for layer in network.layers[1:]] == ["relu", "relu"]


def test_a_conditional_network_is_its_network_of_both_side_by_side(tmp_path):
    network = networks.mlp([7])
    x, c = (np.random.default_rng(0).normal(size=[3, *shape]).astype("float32") for shape in ([4, 2], [5]))
    inputs = keras.Input([4, 2]), keras.Input([5])
    model = keras.Model(inputs, networks.Conditional(network)(list(inputs)))
    joined = np.concatenate([x.reshape(3, 8), c], axis=1)
    np.testing.assert_allclose(model([x, c]), network(joined), rtol=1e-6)
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "model.keras")([x, c]), model([x, c]))


def test_a_conditional_network_needs_its_condition():
    with pytest.raises(ValueError, match=r"one input of shape \(3, 2\), expected two.*condition_shape="):
        networks.Conditional(networks.mlp([7]))(np.zeros([3, 2], "float32"))
    with pytest.raises(ValueError, match="network is 500, expected a Keras layer"):
        networks.Conditional(500)


@pytest.mark.parametrize("shape", [(28, 28, 1), (7, 5, 3), (8, 8, 1), (1, 9, 2)])
def test_the_decoder_ends_where_the_encoder_began(shape):
    encoder, decoder = networks.conv_encoder([4, 6]), networks.conv_decoder(shape, [6, 4])
    features = encoder(np.zeros([2, *shape], "float32"))
    height, width = (-(-size // 4) for size in shape[:2])
    assert features.shape == (2, height * width * 6)
    assert decoder(np.zeros([2, 3], "float32")).shape == (2, *shape[:2], 4)


def resized_and_convolved(layer: networks.ResizeConv2D) -> keras.Sequential:
    """The two steps that the layer takes at once, by Keras's own layers."""
    convolution = keras.layers.Conv2D(layer.filters, 3, padding="same", activation=layer.activation)
    model = keras.Sequential([keras.layers.UpSampling2D(2), convolution])
    model.build([None, None, None, layer.kernel.shape[2]])
    convolution.set_weights(layer.get_weights())
    return model


@pytest.mark.parametrize("shape", [(1, 1, 2), (2, 5, 3), (7, 7, 4)])
def test_a_resized_picture_is_convolved_edges_and_gradients_included(shape):
    layer = networks.ResizeConv2D(6, "tanh")
    x = tf.constant(np.random.default_rng(0).normal(size=[3, *shape]), tf.float32)
    layer(x)
    layer.bias.assign(np.linspace(-1, 1, 6))
    model = resized_and_convolved(layer)
    assert layer.compute_output_shape(x.shape) == layer(x).shape == model(x).shape
    gradients = []
    for side in (layer, model):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = side(x)
            loss = tf.reduce_sum(tf.sin(3 * y)) + tf.reduce_sum(y**2)
        gradients.append([y, *tape.gradient(loss, [x, *side.trainable_variables])])
    for ours, keras_own in zip(*gradients, strict=True):
        np.testing.assert_allclose(ours, keras_own, atol=1e-5 * float(tf.reduce_max(tf.abs(keras_own))))


def test_a_flat_picture_stays_flat_where_a_transposed_convolution_makes_a_checkerboard():
    flat = np.ones([1, 8, 8, 5], "float32")
    inner = networks.ResizeConv2D(3)(flat).numpy()[0, 2:-2, 2:-2]
    np.testing.assert_allclose(inner, np.broadcast_to(inner[:1, :1], inner.shape), atol=1e-6)
    transposed = keras.layers.Conv2DTranspose(3, 3, strides=2, padding="same")(flat).numpy()[0, 2:-2, 2:-2]
    assert np.ptp(transposed, axis=(0, 1)).max() > 0.05


def test_a_resized_convolution_is_saved_and_loaded(tmp_path):
    model = keras.Sequential([keras.Input([4, 4, 2]), networks.ResizeConv2D(3, "relu", name="up")])
    model.save(tmp_path / "m.keras")
    x = np.random.default_rng(0).random([2, 4, 4, 2], np.float32)
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(loaded(x), model(x))
    assert loaded.layers[0].name == "up"


def test_a_decoder_without_height_and_width_is_refused():
    with pytest.raises(ValueError, match=r"needs event_shape \[H, W, C\], received \[784\]"):
        networks.conv_decoder([784])


def test_every_weight_of_a_network_learns():
    decoder = networks.conv_decoder([5, 5, 1], [4, 3])
    keras.utils.set_random_seed(0)
    z = np.random.default_rng(0).normal(size=[8, 2]).astype("float32")
    decoder.build(z.shape)
    decoder.compile("sgd", "mse")
    before = [w.numpy() for w in decoder.weights]
    decoder.fit(z, np.ones([8, 5, 5, 3], "float32"), verbose=0)
    assert all(np.any(a != b) for a, b in zip(before, decoder.get_weights(), strict=True))


@pytest.mark.parametrize("shape", [[3, 5], [2, 3, 5]])
def test_gated_and_maxout_layers_are_what_their_formulae_say(shape, tmp_path):
    x = np.random.default_rng(0).normal(size=shape).astype("float32")
    gated, maxout = networks.Gated(4), networks.Maxout(4, pieces=3)
    gated(x), maxout(x)
    kernel, bias = (np.random.default_rng(1).normal(size=w.shape) for w in gated.both.weights)
    gated.both.set_weights([kernel, bias])
    y = x @ kernel + bias
    np.testing.assert_allclose(gated(x), y[..., :4] / (1 + np.exp(-y[..., 4:])), rtol=1e-4, atol=1e-5)
    kernel, bias = (np.random.default_rng(2).normal(size=w.shape) for w in maxout.all.weights)
    maxout.all.set_weights([kernel, bias])
    np.testing.assert_allclose(maxout(x), (x @ kernel + bias).reshape(*shape[:-1], 4, 3).max(-1), rtol=1e-4, atol=1e-5)
    inputs = keras.Input(shape[1:])
    model = keras.Model(inputs, [gated(inputs), maxout(inputs)])
    model.save(tmp_path / "model.keras")
    for found, expected in zip(keras.models.load_model(tmp_path / "model.keras")(x), model(x), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_their_perceptrons_have_the_layers_that_are_asked_for():
    x = np.zeros([3, 4, 2], "float32")
    gated, maxout = networks.gated_mlp([7, 5]), networks.maxout_mlp([7], pieces=2, name="decoder")
    assert gated(x).shape == (3, 5) and maxout(x).shape == (3, 7) and maxout.name == "decoder"
    assert [w.shape for w in gated.weights] == [(8, 14), (14,), (7, 10), (10,)]
    assert [w.shape for w in maxout.weights] == [(8, 14), (14,)]
