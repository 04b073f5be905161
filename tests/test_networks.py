"""Networks have the shapes that they say, and the convolutions mirror one another."""

import keras
import numpy as np
import pytest

from tfvae import networks


def test_mlp_is_dense_layers_of_its_units():
    network = networks.mlp([7, 5], "relu", name="encoder")
    assert network(np.zeros([3, 4, 2], "float32")).shape == (3, 5)
    assert network.name == "encoder"
    assert [w.shape for w in network.weights] == [(8, 7), (7,), (7, 5), (5,)]
    assert [layer.activation.__name__ for layer in network.layers[1:]] == ["relu", "relu"]


@pytest.mark.parametrize("shape", [(28, 28, 1), (7, 5, 3), (8, 8, 1), (1, 9, 2)])
def test_the_decoder_ends_where_the_encoder_began(shape):
    encoder, decoder = networks.conv_encoder([4, 6]), networks.conv_decoder(shape, [6, 4])
    features = encoder(np.zeros([2, *shape], "float32"))
    height, width = (-(-size // 4) for size in shape[:2])
    assert features.shape == (2, height * width * 6)
    assert decoder(np.zeros([2, 3], "float32")).shape == (2, *shape[:2], 4)


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
