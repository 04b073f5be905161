"""The pictures of a training are the model's own numbers, in files that any reader opens and in TensorBoard's."""

import io

import numpy as np
import PIL.Image
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.linear_gaussian import two_inputs
from tfvae import VAE, callbacks, likelihoods, networks, posteriors
from tfvae.plots import latent, pictures

X = np.random.default_rng(0).integers(0, 256, [30, 6, 5], dtype=np.uint8)
NAMES = {"reconstructions", "samples", "traversals"}


def vae(shape=(6, 5)) -> VAE:
    parts = posteriors.diagonal_normal(3), likelihoods.bernoulli(shape)
    made = VAE(networks.mlp([4]), networks.mlp([4]), *parts, seed=0)
    made.compile(jit_compile=False)
    return made


def grey(source) -> np.ndarray:
    with PIL.Image.open(source) as file:
        return np.asarray(file, float) / 255


def test_files_and_tensorboard_hold_the_pictures_of_their_epochs(tmp_path):
    model = vae()
    draw = callbacks.Pictures(X, folder=tmp_path / "new" / "pictures", log_dir=tmp_path / "logs", every=2, seed=4)
    model.fit(X, epochs=5, verbose=0, callbacks=[draw])
    found = {path.name for path in (tmp_path / "new" / "pictures").iterdir()}
    assert found == {f"{name}_{epoch:04d}.png" for name in NAMES for epoch in (2, 4)}
    reader = EventAccumulator(str(tmp_path / "logs"), {"tensors": 0})
    reader.Reload()
    for name in NAMES:
        events = reader.Tensors(name)
        assert [event.step for event in events] == [1, 3]  # epochs as Keras numbers them there
        width, height, png = events[-1].tensor_proto.string_val
        picture = grey(io.BytesIO(png))
        assert picture.shape == (int(height), int(width))
        np.testing.assert_array_equal(picture, grey(tmp_path / "new" / "pictures" / f"{name}_0004.png"))


def test_a_picture_is_what_the_model_gives(tmp_path):
    model = vae()
    model.fit(X, verbose=0, callbacks=[callbacks.Pictures(X, tmp_path, seed=4)])
    expected = {
        "reconstructions": pictures.reconstruction_grid(model, X),
        "samples": pictures.grid(pictures.as_images(model, model.sample(100, seed=4)), 10),
        "traversals": latent.traversal_grid(model, X, [0, 1, 2]),
    }
    for name, picture in expected.items():
        np.testing.assert_allclose(grey(tmp_path / f"{name}_0001.png"), picture[..., 0], atol=0.5 / 255 + 1e-6)


def test_a_conditional_model_is_given_its_conditions(tmp_path):
    parts = posteriors.diagonal_normal(2), likelihoods.bernoulli([4])
    model = VAE(two_inputs(4, 3), two_inputs(2, 3), *parts, condition_shape=[3], seed=0)
    model.compile(jit_compile=False)
    rows = {"x": np.zeros([5, 4], np.float32), "condition": np.eye(3)[[0, 1, 2, 0, 1]]}
    model.fit(rows, verbose=0, callbacks=[callbacks.Pictures(rows, tmp_path, image_shape=[2, 2])])
    tile = grey(tmp_path / "samples_0001.png")[:2, 12:14]  # the fifth sample has the fifth row's condition
    expected = model.sample(100, seed=0, condition=np.resize(rows["condition"], [100, 3]))[4]
    np.testing.assert_allclose(tile, expected.reshape(2, 2), atol=0.5 / 255 + 1e-6)


def test_what_cannot_be_drawn_is_told_before_training(tmp_path):
    with pytest.raises(ValueError, match="have no place"):
        callbacks.Pictures(X)
    model = vae([30])
    with pytest.raises(ValueError, match="no pictures"):
        model.fit(X.reshape(30, 30), verbose=0, callbacks=[callbacks.Pictures(X.reshape(30, 30), tmp_path)])
    assert model.optimizer.iterations.numpy() == 0
