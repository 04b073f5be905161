"""Every figure at a tiny size: its files hold what was measured, beside the paper's own curves."""

import csv

import matplotlib.image
import numpy as np
import pytest
import tensorflow as tf

import tfvae
from tfvae import baselines, evaluation, plots
from tfvae.experiments import checkpoints, curves
from tfvae.experiments.aevb import figure2, figure3, figure4_5, settings
from tfvae.experiments.paper_figure import table


@pytest.fixture(autouse=True)
def short(tiny, monkeypatch) -> None:
    monkeypatch.setattr(curves, "POINTS", [500, 1000])
    monkeypatch.setattr(figure3, "POINTS", [500, 1000])


def rows_of(path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def assert_picture(path) -> None:
    picture = matplotlib.image.imread(path)
    assert min(picture.shape[:2]) > 200 and picture[..., :3].std() > 0.01


# Figure 2


def test_figure2_writes_what_it_measured_and_goes_on_where_it_was(tmp_path):
    first = figure2.figure2(str(tmp_path), "unused", datasets=["mnist"], latent_dims=[3], samples=500)
    before = rows_of(tmp_path / "aevb_figure2.csv")
    again = figure2.figure2(str(tmp_path), "unused", datasets=["mnist"], latent_dims=[3], samples=1000)
    after = rows_of(tmp_path / "aevb_figure2.csv")
    assert tuple(after[0]) == ("dataset", "latent_dim", "method", "split", "samples", "bound")
    assert [(r["method"], r["split"], r["samples"]) for r in after] == [
        (method, split, samples)
        for method in ("AEVB", "WS")
        for split in ("train", "test")
        for samples in ("500", "1000")
    ]
    assert all(row in after for row in before)  # nothing measured twice, nothing changed
    assert [row["samples"] for row in first] == [500, 500] and [row["samples"] for row in again] == [1000, 1000]
    assert float(after[3]["bound"]) == pytest.approx(again[0]["ours"], abs=1e-3)
    assert_picture(tmp_path / "aevb_figure2.png")


def test_the_papers_sizes_of_z_are_the_default(tmp_path):
    rows = figure2.figure2(str(tmp_path), "unused", datasets=["frey"], methods=["AEVB"], samples=500)
    assert [row["latent_dim"] for row in rows] == [2, 3]


def test_the_papers_bound_is_read_between_its_points():
    curve = figure2.FIGURE.paper_curve("mnist", 20, "AEVB", split="test")
    assert [samples for samples, _ in curve] == sorted(samples for samples, _ in curve)
    at = dict(curve)

    def value(samples: float) -> float | None:
        return figure2.FIGURE.paper_value("mnist", 20, "AEVB", split="test", samples=samples)

    assert value(1e6) == at[1e6] == -124.2
    assert value(np.sqrt(1e6 * 2e6)) == pytest.approx((at[1e6] + at[2e6]) / 2)
    assert value(1e3) is None
    assert figure2.FIGURE.paper_curve("frey", 3, "AEVB", split="test") == []


def test_every_panel_of_the_paper_has_its_curves():
    panels = {"mnist": (3, 5, 10, 20, 200), "frey": (2, 5, 10, 20)}
    for dataset, latent_dims in panels.items():
        for latent_dim in latent_dims:
            for method in figure2.METHODS:
                for split in ("train", "test"):
                    key = (dataset, latent_dim, method)
                    assert figure2.FIGURE.paper_value(*key, split=split, samples=1e7) is not None


@pytest.mark.parametrize("names", [{"datasets": ["cifar"]}, {"methods": ["MCEM"]}])
def test_an_unknown_name_is_an_error(tmp_path, names):
    with pytest.raises(ValueError, match=r"There is no (cifar, only mnist, frey|MCEM, only AEVB, WS)"):
        figure2.figure2(str(tmp_path), "unused", **names)


# Figure 3


def by_importance(vae, x, num_samples, num_leapfrog_steps):
    """In place of HMC, whose program takes long to compile."""
    terms = vae.terms(x, num_samples, seed=tf.constant([1, 2]))
    log_marginal = tf.reduce_logsumexp(terms.log_weight, axis=0).numpy() - np.log(num_samples)
    return evaluation.MarginalEstimate(log_marginal, log_marginal, log_marginal)


@pytest.mark.slow
def test_figure3_writes_log_p_of_x_and_goes_on_where_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "hmc_log_marginal", by_importance)
    monkeypatch.setattr(baselines, "MonteCarloEM", lambda vae, num_rows: baselines.WakeSleep(vae), raising=False)
    settings = {"methods": ["AEVB", "MCEM"], "train_sizes": [40], "marginal_rows": 20}
    figure3.figure3(str(tmp_path), "unused", samples=500, **settings)
    before = rows_of(tmp_path / "aevb_figure3.csv")
    table_rows = figure3.figure3(str(tmp_path), "unused", samples=1000, **settings)
    after = rows_of(tmp_path / "aevb_figure3.csv")
    assert tuple(after[0]) == ("train_size", "method", "split", "samples", "marginal_log_likelihood")
    assert [(r["train_size"], r["method"], r["split"], r["samples"]) for r in after] == [
        ("40", method, split, samples)
        for method in settings["methods"]
        for split in ("train", "test")
        for samples in ("500", "1000")
    ]
    assert all(row in after for row in before)
    assert [(row["method"], row["split"], row["failed_rows"]) for row in table_rows] == [
        (method, split, 0) for method in settings["methods"] for split in ("test", "train")
    ]
    assert float(after[3]["marginal_log_likelihood"]) == pytest.approx(table_rows[0]["ours"], abs=1e-3)
    assert_picture(tmp_path / "aevb_figure3.png")
    (folder,) = (tmp_path / "checkpoints").glob("*AEVB*")
    vae = checkpoints.load(folder)
    assert (vae.weight_prior.num_rows, vae.latent_dim, vae.encoder.layers[0].units) == (40, 3, 100)
    assert "step0.02" in folder.name and float(vae.optimizer.learning_rate) == pytest.approx(0.02)


@pytest.mark.slow
def test_log_p_of_x_is_that_of_the_first_rows(tiny, monkeypatch):
    """Against importance sampling, which knows nothing of HMC; rows that HMC gave up are counted, not averaged."""
    model = settings.build(tiny, 2, "WS")
    measured = figure3.marginals(30)(model, tiny, {})
    for split in ("train", "test"):
        exact = evaluation.log_marginal(model.vae, getattr(tiny, split)[:30], 2000).mean
        assert getattr(measured, split) == pytest.approx(exact, abs=0.1)
    assert measured.failed_rows == 0

    def broken(vae, x, *args, **more):
        values = np.arange(float(len(x)))
        values[[0, 2]] = np.nan, -np.inf
        return evaluation.MarginalEstimate(values, values, values)

    monkeypatch.setattr(evaluation, "hmc_log_marginal", broken)
    assert figure3.marginals(4)(model, tiny, {}) == (2.0, 2.0, 4)


def test_the_papers_figure_3_is_there():
    value = figure3.FIGURE.paper_value
    assert value(1000, "MCEM", split="test", samples=1e7) == -142.4
    assert value(50_000, "AEVB", split="train", samples=1e7) == -135.5
    assert value(50_000, "MCEM", split="train", samples=1e7) is None  # it starts later


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"methods": ["EM"]}, "There is no EM, only AEVB, MCEM, WS"),
        ({"train_sizes": [0]}, "train_sizes must lie between 1 and 250, the images there are, received 0"),
        ({"train_sizes": [251]}, "train_sizes must lie between 1 and 250"),
        ({"train_sizes": [40], "marginal_rows": 41}, "marginal_rows must lie between 1 and 40"),
        ({"train_sizes": [40], "marginal_rows": 9, "learning_rate": 0.0}, "learning_rate must be positive"),
        ({"train_sizes": [40], "marginal_rows": 9, "samples": 499}, "starts at 500 samples, received 499"),
    ],
)
def test_figure3_refuses_what_it_cannot_do(tmp_path, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        figure3.figure3(str(tmp_path), "unused", **options)


# Figures 4 and 5


@pytest.mark.slow
def test_figures_4_and_5_draw_the_models_of_figure_2(tmp_path, monkeypatch):
    figure2.figure2(str(tmp_path), "unused", ["mnist"], ["AEVB"], latent_dims=[2], samples=1000)
    pictures: list[np.ndarray] = []
    save = plots.pictures.save_picture
    monkeypatch.setattr(plots.pictures, "save_picture", lambda p, *rest: (pictures.append(p), save(p, *rest)))
    trained: list[tuple] = []
    build = settings.build
    monkeypatch.setattr(settings, "build", lambda *args: (trained.append(args[1:3]), build(*args))[1])

    rows = figure4_5.figure4(str(tmp_path), "unused", samples=500)
    assert trained == [(2, "AEVB")]  # Frey Face's alone: MNIST's has gone further already
    assert [(r["dataset"], r["latent_dim"], r["samples"]) for r in rows] == [("mnist", 2, 1000), ("frey", 2, 500)]
    vae = checkpoints.load(tmp_path / "checkpoints" / curves.Curve("mnist", 2, "AEVB").name)
    assert [p.shape[:2] for p in pictures] == [(20 * 4 - 1, 20 * 3 - 1), (10 * 4 - 1, 10 * 3 - 1)]
    plots.manifold(vae, tmp_path / "again.png", image_shape=(3, 2))
    np.testing.assert_array_equal(pictures[0], pictures[-1])

    rows = figure4_5.figure5(str(tmp_path), "unused", latent_dims=[2, 3], samples=1000)
    assert trained == [(2, "AEVB"), (3, "AEVB")]
    assert [row["picture"] for row in rows] == ["aevb_figure5_2.png", "aevb_figure5_3.png"]
    tile = pictures[-2][4:7, 3:5, 0]  # the twelfth of ten in a row, each 3 by 2 with a line between
    np.testing.assert_allclose(tile, vae.sample(100, seed=0)[11].reshape(3, 2), atol=1e-6)
    for name in ("aevb_figure4_mnist", "aevb_figure4_frey", "aevb_figure5_2", "aevb_figure5_3"):
        assert_picture(tmp_path / f"{name}.png")


# Tables and pictures


def test_a_table_needs_no_paper():
    row = {"train_size": 50_000, "paper": None, "ours": -1.25, "failed_rows": 2, "seconds": 3.7}
    assert table([row]).splitlines()[-1] == "| 50,000 | - | -1.2 | 2 | 4 |"


def test_vectors_are_drawn_in_the_shape_that_is_asked_for(tiny):
    vae = settings.build(tiny, 2, "AEVB")
    assert isinstance(vae, tfvae.VAE)
    with pytest.raises(ValueError, match=r"no pictures .*, nor by image_shape=\(4, 2\)"):
        plots.samples(vae, "unused.png", image_shape=(4, 2))
