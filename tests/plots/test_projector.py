"""What TensorBoard's own projector reads of the files: points, labels and pictures, each row its own."""

import pathlib
import sys

import numpy as np
import PIL.Image
import pytest
from google.protobuf import text_format
from tensorboard.plugins.projector import ProjectorConfig

import tfvae
from tfvae import likelihoods, networks, plots, posteriors


def model(shape) -> tfvae.VAE:
    parts = posteriors.diagonal_normal(3), likelihoods.bernoulli(shape)
    return tfvae.VAE(networks.mlp([8]), networks.mlp([8]), *parts, seed=0)


def read(folder: pathlib.Path):
    """The one embedding of the configuration, as TensorBoard parses it."""
    config = text_format.Parse((folder / "projector_config.pbtxt").read_text(), ProjectorConfig())
    (embedding,) = config.embeddings
    return embedding


@pytest.mark.parametrize("channels", [1, 3])
def test_points_labels_and_pictures_are_those_of_the_rows(tmp_path, channels):
    vae = model((6, 5, channels))
    x = np.random.default_rng(0).integers(0, 256, [7, 6, 5, channels], dtype=np.uint8)
    labels = np.array(["cat", "a\tdog", "", "cat", "cat", "cow\n", "é"])
    assert plots.projector(vae, x, tmp_path / "logs", labels) == str(tmp_path / "logs")
    embedding = read(tmp_path / "logs")
    points = np.loadtxt(tmp_path / "logs" / embedding.tensor_path, delimiter="\t")
    np.testing.assert_allclose(points, vae.embed(x), rtol=1e-5)
    assert list(embedding.tensor_shape) == [7, 3]
    words = (tmp_path / "logs" / embedding.metadata_path).read_text().split("\n")
    assert words == ["cat", "a dog", "-", "cat", "cat", "cow", "é", ""]
    width, height = embedding.sprite.single_image_dim
    with PIL.Image.open(tmp_path / "logs" / embedding.sprite.image_path) as sprite:
        sheet = np.asarray(sprite).reshape(sprite.height, sprite.width, channels)
    assert (width, height) == (5, 6)
    for i, picture in enumerate(x):  # three in a line, as the projector counts: the root of their number, rounded up
        row, column = divmod(i, 3)
        np.testing.assert_array_equal(sheet[row * 6 : row * 6 + 6, column * 5 : column * 5 + 5], picture)


def test_classes_have_names_and_vectors_no_pictures(tmp_path):
    plots.projector(model((4,)), np.zeros([3, 4], np.float32), tmp_path, np.array([0, 1, -1]), ["zero", "one"])
    assert (tmp_path / "metadata.tsv").read_text() == "zero\none\n-1\n"
    assert not read(tmp_path).HasField("sprite") and not (tmp_path / "sprite.png").exists()


def test_a_sprite_is_no_larger_than_a_browser_takes(monkeypatch):
    module = sys.modules[plots.projector.__module__]
    monkeypatch.setattr(module, "_SPRITE", 20)
    sheet, size = module._sprite(np.zeros([9, 12, 8, 1]))
    assert size == (4, 6) and sheet.size == (12, 18)
