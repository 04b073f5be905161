"""The pictures hold what they say: their pixels are compared with the model's own numbers."""

import matplotlib.image
import numpy as np
import pytest
from scipy import stats

import tfvae
from tfvae import likelihoods, networks, plots, posteriors


def model(latent_dim: int, shape=(6, 5, 1)) -> tfvae.VAE:
    posterior, likelihood = posteriors.diagonal_normal(latent_dim), likelihoods.bernoulli(shape)
    return tfvae.VAE(networks.mlp([8]), networks.mlp([8]), posterior, likelihood, seed=0)


def saved_pictures(monkeypatch) -> list[np.ndarray]:
    pictures: list[np.ndarray] = []
    monkeypatch.setattr(plots, "_save_picture", lambda picture, title, path: pictures.append(picture))
    return pictures


def test_grid_lays_images_out_row_by_row():
    images = np.arange(1, 6)[:, None, None, None] * np.ones([5, 2, 3, 1]) / 10
    picture = plots._grid(images, columns=3)
    assert picture.shape == (2 * 3 - 1, 3 * 4 - 1, 1)
    np.testing.assert_allclose(picture[0, [0, 4, 8], 0], [0.1, 0.2, 0.3])
    np.testing.assert_allclose(picture[3, [0, 4, 8], 0], [0.4, 0.5, 1.0])
    np.testing.assert_allclose(picture[2], 1.0)


def test_manifold_is_the_mean_at_the_inverse_gaussian_cdf(monkeypatch):
    pictures = saved_pictures(monkeypatch)
    vae = model(2)
    plots.latent_space(vae, np.zeros([3, 6, 5, 1], np.uint8), "unused.png")
    quantiles = stats.norm.ppf((np.arange(20) + 0.5) / 20)
    for row, column in ((0, 0), (3, 17), (19, 5)):  # the second coordinate rises from the bottom to the top
        z = np.array([[quantiles[column], quantiles[19 - row]]], np.float32)
        tile = pictures[0][row * 7 : row * 7 + 6, column * 6 : column * 6 + 5]
        np.testing.assert_allclose(tile, vae.decode(z).mean()[0], atol=1e-6)


def test_reconstructions_stand_under_their_inputs(monkeypatch):
    pictures = saved_pictures(monkeypatch)
    vae = model(3)
    x = np.random.default_rng(0).integers(0, 256, [7, 6, 5, 1], dtype=np.uint8)
    plots.reconstructions(vae, x, "unused.png", columns=4)
    tiles = {(r, c): pictures[0][r * 7 : r * 7 + 6, c * 6 : c * 6 + 5] for r in range(4) for c in range(4)}
    np.testing.assert_allclose(tiles[2, 1], x[5] / 255, atol=1e-6)
    np.testing.assert_allclose(tiles[3, 1], vae.reconstruct(x)[5], atol=1e-6)


@pytest.mark.parametrize("shape", [(6, 5, 1), (6, 5, 3), (6, 5)])
def test_every_picture_is_a_readable_png(tmp_path, shape):
    vae = model(3, shape)
    x = np.random.default_rng(0).integers(0, 256, [30, *shape], dtype=np.uint8)
    labels = np.arange(30) % 3
    plots.samples(vae, tmp_path / "samples.png")
    plots.reconstructions(vae, x, tmp_path / "reconstructions.png")
    plots.latent_space(vae, x, tmp_path / "latent.png", labels, ["a", "b", "c"])
    plots.latent_space(model(1, shape), x, tmp_path / "line.png")
    plots.learning_curve({"elbo": [-3.0, -2.0], "val_elbo": [-3.1, -2.5]}, tmp_path / "curve.png")
    for path in tmp_path.glob("*.png"):
        picture = matplotlib.image.imread(path)
        assert min(picture.shape[:2]) > 100 and picture[..., :3].std() > 0.01, path


@pytest.mark.parametrize(
    ("labels", "legend"),
    [
        (np.array(["cat", "dog", "cat"]), ["cat", "dog"]),
        (np.array([b"cat", b"dog", b"cat"]), ["cat", "dog"]),
        (["cat", "dog", "cat"], ["cat", "dog"]),
        (np.array([0, 2, 0]), ["zero", "2"]),  # a class without a name
        (np.array([-1, 1, 1]), ["-1", "one"]),  # a row whose class is unknown
    ],
)
def test_the_legend_holds_each_label_once(labels, legend, tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(plots.Figure, "savefig", lambda figure, *args, **more: figures.append(figure))
    x = np.random.default_rng(0).integers(0, 256, [3, 6, 5, 1], dtype=np.uint8)
    plots.latent_space(model(3), x, tmp_path / "folder" / "unused.png", labels, ["zero", "one"])
    assert [text.get_text() for text in figures[0].axes[0].get_legend().get_texts()] == legend
    assert (tmp_path / "folder").is_dir()


def test_a_picture_makes_its_folder(tmp_path):
    plots.samples(model(2), tmp_path / "none" / "x.png", rows=2, columns=2)
    assert (tmp_path / "none" / "x.png").exists()


def test_a_history_without_an_epoch_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no elbo, only nothing"):
        plots.learning_curve({}, tmp_path / "x.png")


def test_vectors_are_no_pictures():
    with pytest.raises(ValueError, match="no pictures"):
        plots.samples(model(2, (7,)), "unused.png")
