"""The pictures hold what they say: their pixels are compared with the model's own numbers."""

import contextlib
import unittest.mock

import keras
import matplotlib.image
import numpy as np
import PIL.Image
import pytest
import scipy.sparse
import tensorflow as tf
from scipy import stats

import tfvae
from tests import linear_gaussian
from tfvae import evaluation, likelihoods, networks, plots, posteriors, priors


def model(latent_dim: int, shape=(6, 5, 1)) -> tfvae.VAE:
    posterior, likelihood = posteriors.diagonal_normal(latent_dim), likelihoods.bernoulli(shape)
    return tfvae.VAE(networks.mlp([8]), networks.mlp([8]), posterior, likelihood, seed=0)


def saved_pictures(monkeypatch) -> list[np.ndarray]:
    pictures: list[np.ndarray] = []
    monkeypatch.setattr(plots.pictures, "save_picture", lambda picture, title, path, *lines: pictures.append(picture))
    return pictures


def test_grid_lays_images_out_row_by_row():
    images = np.arange(1, 6)[:, None, None, None] * np.ones([5, 2, 3, 1]) / 10
    picture = plots.pictures.grid(images, columns=3)
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


@pytest.mark.parametrize(
    ("likelihood", "white"),
    [
        (lambda: tfvae.DistributionLayer("Categorical", [2, 2, 1], num_classes=8), 7),
        (lambda: tfvae.DistributionLayer("Binomial", [2, 2, 1], total_count=12.0), 12),
        (lambda: tfvae.DistributionLayer("Poisson", [2, 2, 1]), 255),
        (lambda: tfvae.DistributionLayer("Geometric", [2, 2, 1]), 255),
        (lambda: likelihoods.bernoulli([2, 2, 1]), 1),
    ],
    ids=["classes", "trials", "counts", "waits", "pixels"],
)
def test_white_is_the_largest_number_that_a_likelihood_scores(likelihood, white):
    parts = networks.mlp([4]), networks.mlp([4]), posteriors.diagonal_normal(2)
    vae = tfvae.VAE(*parts, likelihood())
    x = np.array([0, 1, white - 1, white], np.float32).reshape(1, 2, 2, 1)
    np.testing.assert_allclose(plots.pictures.as_images(vae, x), x / white)
    if white > 1:  # bytes of counts are the counts, of pixels 255 is white
        np.testing.assert_allclose(plots.pictures.as_images(vae, x.astype(np.uint8)), x / white)
    else:
        np.testing.assert_allclose(plots.pictures.as_images(vae, (255 * x).astype(np.uint8)), x)
    grid = plots.pictures.reconstruction_grid(vae, x, 1, 1)
    np.testing.assert_allclose(grid[3:5, :2], vae.reconstruct(x)[0] / white, rtol=1e-5)


@pytest.mark.parametrize("shape", [(6, 5, 3), (6, 5)])
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


@pytest.mark.parametrize("lines", [(), ("first", "second")])
def test_a_picture_fills_its_file(lines, tmp_path):
    plots.pictures.save_picture(np.zeros([20, 90, 1], np.float32), "black", tmp_path / "black.png", lines)
    dark = np.asarray(PIL.Image.open(tmp_path / "black.png").convert("L")) < 128
    bottom, right = dark[::-1, dark.shape[1] // 2].argmax(), dark[-dark.shape[0] // 3, ::-1].argmax()
    assert dark.any() and max(bottom, right) < 0.02 * dark.shape[1]


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
    monkeypatch.setattr(plots.style.Figure, "savefig", lambda figure, *args, **more: figures.append(figure))
    x = np.random.default_rng(0).integers(0, 256, [3, 6, 5, 1], dtype=np.uint8)
    plots.latent_space(model(3), x, tmp_path / "folder" / "unused.png", labels, ["zero", "one"])
    assert [text.get_text() for text in figures[0].axes[0].get_legend().get_texts()] == legend
    assert (tmp_path / "folder").is_dir()


def drawn(vae: tfvae.VAE, z, condition=None) -> np.ndarray:
    c = None if condition is None else np.float32(condition)[None]
    return vae.decode(np.float32(z)[None], c).mean().numpy()[0]


def tile(picture: np.ndarray, row: int, column: int) -> np.ndarray:
    return picture[row * 7 : row * 7 + 6, column * 6 : column * 6 + 5]


def test_a_traversal_moves_one_unit_through_the_quantiles_of_its_prior(monkeypatch):
    pictures = saved_pictures(monkeypatch)
    posterior, likelihood = posteriors.diagonal_normal(3), likelihoods.bernoulli((6, 5, 1))
    prior = priors.Family("Laplace", [3], loc=1.0, scale=2.0)
    vae = tfvae.VAE(networks.mlp([8]), networks.mlp([8]), posterior, likelihood, prior, seed=0)
    x = np.random.default_rng(0).integers(0, 256, [20, 6, 5, 1], dtype=np.uint8)
    plots.traversals(vae, x, "unused.png", units=2, columns=5)
    assert pictures[0].shape == (2 * 7 - 1, 5 * 6 - 1, 1)
    kl, mean = evaluation.kl_by_unit(vae, x), vae.embed(x[:1])[0]
    for line, unit in enumerate(np.argsort(-kl)[:2]):
        for column, u in enumerate([0.1, 0.3, 0.5, 0.7, 0.9]):
            z = mean.copy()
            z[unit] = stats.laplace(1.0, 2.0).ppf(u)
            np.testing.assert_allclose(tile(pictures[0], line, column), drawn(vae, z), atol=1e-5)


def test_quantiles_without_a_formula_are_those_of_draws():
    vae = model(2).with_prior(priors.Mixture(2, num_components=2))
    component = vae.prior().components_distribution
    u = np.array([0.1, 0.5, 0.9])
    found = plots.latent.prior_quantiles(vae, u)
    weights = np.asarray(vae.prior().mixture_distribution.probs_parameter())
    cdf = sum(w * stats.norm.cdf(found, m, s) for w, m, s in zip(
        weights, component.mean().numpy(), component.stddev().numpy(), strict=True))  # fmt: skip
    np.testing.assert_allclose(cdf, np.repeat(u[:, None], 2, axis=1), atol=0.02)


def test_between_two_points_ends_are_exact_and_lengths_kept():
    a, b = np.random.default_rng(0).normal(size=[2, 8])
    for spherical in (True, False):
        path = plots.latent.between(a, b, 7, spherical)
        np.testing.assert_allclose(path[[0, -1]], [a, b], rtol=1e-6)
    np.testing.assert_allclose(path[3], (a + b) / 2)
    same = plots.latent.between(a, b * np.linalg.norm(a) / np.linalg.norm(b), 7)
    np.testing.assert_allclose(np.linalg.norm(same, axis=1), np.linalg.norm(a), rtol=1e-6)
    steps = np.sum(same[1:] * same[:-1], axis=1)
    np.testing.assert_allclose(steps, steps[0], rtol=1e-6)  # at an even pace
    np.testing.assert_allclose(
        plots.latent.between(a, 2 * a, 3)[1], 1.5 * a
    )  # no turn between one direction and itself
    np.testing.assert_allclose(plots.latent.between(a, 0 * a, 3)[1], 0.5 * a)


def test_an_interpolation_begins_and_ends_with_its_rows(monkeypatch):
    pictures = saved_pictures(monkeypatch)
    vae = model(3)
    x = np.random.default_rng(0).integers(0, 256, [5, 6, 5, 1], dtype=np.uint8)
    plots.interpolations(vae, x, "unused.png", columns=4)
    assert pictures[0].shape == (2 * 7 - 1, 4 * 6 - 1, 1)  # the fifth row has none to go to
    for row, column, number in ((0, 0, 0), (0, 3, 1), (1, 0, 2), (1, 3, 3)):
        np.testing.assert_allclose(tile(pictures[0], row, column), vae.reconstruct(x)[number], atol=1e-5)


def test_an_attribute_is_added_step_by_step_to_the_first_rows_that_lack_it(monkeypatch):
    pictures = saved_pictures(monkeypatch)
    vae = model(3)
    x = np.random.default_rng(0).integers(0, 256, [8, 6, 5, 1], dtype=np.uint8)
    has = np.array([1, 0, 1, 0, 0, 1, 0, 1])
    plots.attributes(vae, x, has, "unused.png", rows=2, columns=3, reach=1.0)
    assert pictures[0].shape == (2 * 7 - 1, 3 * 6 - 1, 1)
    means = vae.embed(x)
    vector = means[has == 1].mean(axis=0) - means[has == 0].mean(axis=0)
    for line, row in enumerate((1, 3)):
        for column, t in enumerate((0.0, 0.5, 1.0)):
            np.testing.assert_allclose(tile(pictures[0], line, column), drawn(vae, means[row] + t * vector), atol=1e-5)


def test_samples_by_class_have_the_condition_of_their_line_and_the_noise_of_their_column(monkeypatch):
    pictures = saved_pictures(monkeypatch)
    vae = conditional()
    plots.samples_by_class(vae, np.eye(3), "unused.png", columns=4, seed=1)
    z = vae.prior().sample(4, seed=[0, 1])
    for row, column in ((0, 0), (1, 2), (2, 3)):
        np.testing.assert_allclose(tile(pictures[0], row, column), drawn(vae, z[column], np.eye(3)[row]), atol=1e-5)


def conditional() -> tfvae.VAE:
    def network(shape):
        inputs = [keras.Input(shape), keras.Input([3])]
        return keras.Model(inputs, keras.layers.Concatenate()([keras.layers.Flatten()(inputs[0]), inputs[1]]))

    parts = network([6, 5, 1]), network([2]), posteriors.diagonal_normal(2), likelihoods.bernoulli((6, 5, 1))
    return tfvae.VAE(*parts, condition_shape=[3], seed=0)


def test_bars_and_boxes_hold_the_numbers(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(plots.style.Figure, "savefig", lambda figure, *args, **more: figures.append(figure))
    vae = linear_gaussian.vae(wider=1.3)
    x = linear_gaussian.rows(200)[0]
    plots.kl_by_unit(vae, x, tmp_path / "kl.png")
    kl = evaluation.kl_by_unit(vae, x)
    (axes,) = figures[0].axes
    np.testing.assert_allclose([bar.get_height() for bar in axes.patches], np.sort(kl)[::-1], rtol=1e-5)
    assert [text.get_text() for text in axes.get_xticklabels()] == [str(d) for d in np.argsort(-kl)]

    plots.residuals(vae, x, tmp_path / "residuals.png", ["width", "height", "depth", "weight"])
    (axes,) = figures[1].axes
    left = (x - vae.reconstruct(x)) / x.std(axis=0)
    low, high = np.percentile(left[:, ::-1], [25, 75], axis=0)  # the first column stands at the top
    boxes = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in axes.patches]
    np.testing.assert_allclose(boxes, np.stack([low, high], axis=1), atol=1e-5)
    assert [text.get_text() for text in axes.get_yticklabels()] == ["weight", "depth", "height", "width"]


def test_residuals_are_of_a_table():
    with pytest.raises(ValueError, match=r"expected \(D,\)"):
        plots.residuals(model(2), np.zeros([3, 6, 5, 1], np.uint8), "unused.png")


def test_a_file_is_whole_or_not_there(tmp_path, monkeypatch):
    plots.learning_curve({"elbo": [-3.0, -2.0]}, tmp_path / "curve.png")
    before = (tmp_path / "curve.png").read_bytes()

    def dies(figure, file, **more):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(plots.style.Figure, "savefig", dies)
    with pytest.raises(KeyboardInterrupt):
        plots.learning_curve({"elbo": [-1.0]}, tmp_path / "curve.png")
    assert [path.name for path in tmp_path.iterdir()] == ["curve.png"]
    assert (tmp_path / "curve.png").read_bytes() == before


@pytest.mark.parametrize("channels", [1, 3])
def test_an_animation_holds_its_pictures_in_order(tmp_path, channels):
    pictures = np.linspace(0, 1, 4 * 6 * 5 * channels).reshape(4, 6, 5, channels)
    assert plots.animation(pictures, tmp_path / "new" / "x.gif", seconds=0.2, greys=64) == str(tmp_path / "new/x.gif")
    with PIL.Image.open(tmp_path / "new" / "x.gif") as file:
        assert file.n_frames == 4 and file.info["loop"] == 0
        for i, (picture, milliseconds) in enumerate(zip(pictures, (200, 200, 200, 2000), strict=True)):
            file.seek(i)
            assert file.info["duration"] == milliseconds
            found = np.asarray(file.convert("RGB"), float) / 255
            np.testing.assert_allclose(found, np.broadcast_to(picture, [6, 5, 3]), atol=0.02)
    with pytest.raises(ValueError, match="expected one"):
        plots.animation([np.zeros([2, 2, 1]), np.zeros([3, 2, 1])], "unused.gif")


def test_a_picture_makes_its_folder(tmp_path):
    plots.samples(model(2), tmp_path / "none" / "x.png", rows=2, columns=2)
    assert (tmp_path / "none" / "x.png").exists()


def test_a_history_without_an_epoch_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no elbo, only nothing"):
        plots.learning_curve({}, tmp_path / "x.png")


def test_sparse_rows_are_told_as_fit_tells_them(tmp_path):
    with pytest.raises(ValueError, match=r"x is a dok_matrix, expected rows of one shape"):
        plots.reconstructions(model(2), scipy.sparse.dok_matrix(np.eye(30)), tmp_path / "x.png")


HISTORIES = {
    "one number": ({"elbo": 1.0}, r"^elbo is 1\.0, expected a list of numbers"),
    "no epoch": ({"elbo": []}, r"^elbo is \[\], expected"),
    "text": ({"elbo": ["1"]}, r"^elbo is \['1'\], expected"),
    "None": ({"elbo": [-1.0], "val_elbo": [None]}, r"^val_elbo is \[None\], expected"),
    "names": ({0: [1.0]}, "holds no elbo, only 0:"),
    "a cell of text": (b"epoch,elbo\n0,-3.0\n1,low\n", "^Row 2 of .*history.csv has 'low' for elbo, expected a number"),
    "a short row": (b"epoch,elbo\n0,-3.0\n1\n", "^Row 2 of .*history.csv has 1 cells, expected 2"),
    "other bytes": (b"\x89PNG\r\n\x1a\n\x00", "history.csv is no CSV file"),
    "nothing": (b"", "holds no elbo, only nothing"),
    "no row": (b"epoch,elbo\n", r"^elbo is \[\], expected"),
    "a folder": (None, "which is a folder: pass its file"),
}


@pytest.mark.parametrize("kind", HISTORIES)
def test_what_is_no_history_is_told_in_a_sentence(kind, tmp_path):
    history, told = HISTORIES[kind]
    if isinstance(history, bytes):
        (tmp_path / "history.csv").write_bytes(history)
        history = tmp_path / "history.csv"
    with pytest.raises(ValueError, match=told):
        plots.learning_curve(tmp_path if history is None else history, tmp_path / "x.png")


def test_a_history_of_a_file_is_drawn_as_far_as_it_was_measured(tmp_path, monkeypatch):
    """Other columns may hold what they like, and NA is what an epoch did not measure."""
    (tmp_path / "history.csv").write_text("\ufeffepoch,elbo,val_elbo,note\n0,-3.0,NA,first\n1,-2.0,-2.5,\n", "utf-8")
    axes = unittest.mock.MagicMock()
    monkeypatch.setattr(plots.style, "axes", lambda *_: contextlib.nullcontext(axes))
    plots.learning_curve(tmp_path / "history.csv", tmp_path / "x.png")
    drawn = {call.kwargs["label"]: np.stack(call.args) for call in axes.plot.call_args_list}
    np.testing.assert_array_equal(drawn["training"], [[1, 2], [-3.0, -2.0]])
    np.testing.assert_array_equal(drawn["validation"], [[1, 2], [np.nan, -2.5]])


@pytest.mark.parametrize(
    "draw", ["latent_space", "reconstructions", "traversals", "interpolations", "kl_by_unit", "projector"]
)
def test_of_no_rows_nothing_is_drawn(draw, tmp_path):
    vae = model(3, (4, 4, 1))
    with pytest.raises(ValueError, match=r"x has (no|0) rows"):
        getattr(plots, draw)(vae, np.zeros([0, 4, 4, 1], np.float32), tmp_path / "a.png")
    assert not [*tmp_path.iterdir()]


def test_a_name_that_no_picture_can_have_is_told(tmp_path):
    vae, x = model(3, (4, 4, 1)), np.zeros([2, 4, 4, 1], np.float32)
    (tmp_path / "file").write_text("mine")
    for path, kind, sentence in (
        (tmp_path, ValueError, "a folder: name the file"),
        (tmp_path / "a.xyz", ValueError, r"expected a file that ends in .*\.pdf, .*\.png"),
        (tmp_path / "file/a.png", OSError, "cannot be written: "),
    ):
        with pytest.raises(kind, match=sentence):
            plots.latent_space(vae, x, path)
    with pytest.raises(ValueError, match="labels hold None among others"):
        plots.latent_space(vae, x, tmp_path / "a.png", labels=[None, "a"])
    with pytest.raises(ValueError, match=r"labels are NaN for all 2 rows, .*: leave labels out"):
        plots.latent_space(vae, x, tmp_path / "a.png", labels=[np.nan, np.nan])
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_vectors_are_no_pictures():
    with pytest.raises(ValueError, match="no pictures"):
        plots.samples(model(2, (7,)), "unused.png")


def test_a_stream_is_asked_for_some_of_its_rows():
    stream = tf.data.Dataset.from_tensor_slices(np.zeros([3, 6, 5, 1], np.uint8)).batch(2)
    for draw in (plots.reconstructions, plots.interpolations):
        with pytest.raises(ValueError, match=r"expected rows in memory.*next"):
            draw(model(2), stream, "unused.png")
