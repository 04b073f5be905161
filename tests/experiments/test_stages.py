"""Models trained by stages at a tiny size: the schedule, a stop, what is measured; and the tables made of them."""

import csv
import gzip
import pathlib
import struct

import numpy as np
import pytest

from tfvae import evaluation, objectives, observations
from tfvae.experiments import checkpoints, datasets, stages
from tfvae.experiments.iwae import table1
from tfvae.experiments.planar import table as planar
from tfvae.experiments.renyi import table as renyi
from tfvae.experiments.stages import METHODS, Model, Plan, Run
from tfvae.experiments.vamp import table as vamp


def test_burda_s_eight_stages():
    plan = Plan.falling(3, 1e-3)
    assert sum(plan.epochs) == 3280 and plan.epochs[-1] == 2187
    rates = [10, 7.2, 5.2, 3.7, 2.7, 1.9, 1.4, 1]  # of their code, times 1e-4
    np.testing.assert_allclose(plan.rates, 1e-4 * np.array(rates), rtol=0.02)
    schedule = plan.optimizer(60_000, 1e-4)._learning_rate
    for stage in range(8):
        first = 3000 * sum(plan.epochs[:stage])
        for step in (first, first + 3000 * plan.epochs[stage] - 1):
            assert float(schedule(step)) == pytest.approx(plan.rates[stage])


def test_points_stand_at_the_end_of_each_stage_and_on_the_way():
    plan = Plan.falling(3, 1e-3)
    ends = plan.ends(5, 60_000)
    assert {60_000 * done for done in (1, 4, 13, 40, 121)} <= set(ends) and ends[-1] == 60_000 * 121
    assert max(np.diff(ends)) <= 2_000_000
    assert plan.ends(8, 60_000)[: len(ends)] == ends
    for wrong, words in ((9, "stages is 9, expected 8 at most"), (0, "stages must be")):
        with pytest.raises(ValueError, match=words):
            plan.ends(wrong, 60_000)


def test_a_model_is_the_paper_s():
    bias = np.linspace(-2.0, 2.0, 784)
    model = Model("IWAE", 5, (200, 100), 50, "tanh", stages.bernoulli, observations.Binarized())
    vae = model.build(bias, seed=1)
    shapes = [tuple(w.shape) for w in vae.trainable_variables if len(w.shape) == 2]
    assert shapes == [(784, 200), (200, 100), (50, 100), (100, 200), (100, 100), (200, 784)]
    assert vae.objective is objectives.importance_weighted and vae.num_samples == 5
    np.testing.assert_allclose(vae.likelihood.projection.bias, bias, rtol=1e-6)
    kernel = vae.posterior.projection.kernel.numpy()
    assert np.abs(kernel).max() <= np.sqrt(6 / 200) and kernel.std() == pytest.approx(np.sqrt(2 / 200), rel=0.05)
    raw = vae.posterior.projection(np.eye(100, dtype=np.float32))
    np.testing.assert_allclose(vae.posterior(np.eye(100, dtype=np.float32)).stddev(), np.exp(raw[:, 50:]), rtol=1e-5)
    for one, two in zip(vae.get_weights(), model.build(bias, seed=1).get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.normal(size=[45, 1]) * np.linspace(-2, 2, 784) + rng.normal(size=[45, 784]) > 0).astype(np.float32)


def run_of(x: np.ndarray, name: str = "tiny") -> Run:
    plan = Plan((1, 2, 3), (1e-2, 5e-3, 1e-3), 20)
    return Run(name, Model("DReG", 3, (8,), 2, "tanh", stages.bernoulli), plan, x[:30], x[30:], np.zeros(784), seed=3)


@pytest.mark.slow
def test_a_stop_changes_nothing_and_more_stages_go_on(x, as_graphs, tmp_path):
    straight, point = run_of(x).finish(str(tmp_path / "one"), 3)
    for count in (1, 3):
        stopped, last = run_of(x).finish(str(tmp_path / "two"), count)
        assert int(stopped.optimizer.iterations) == 2 * sum((1, 2, 3)[:count])
    np.testing.assert_allclose([last.train, last.test], [point.train, point.test], rtol=1e-5)
    for one, two in zip(straight.get_weights(), stopped.get_weights(), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-6)
    assert [p.samples for p in checkpoints.read_points(tmp_path / "two/checkpoints/tiny-seed3")] == [30, 90, 180]
    found = run_of(x).measure(str(tmp_path / "two"), 3, 50)
    exact = evaluation.log_marginal(stopped, x[30:], 50, seed=3)
    assert found["log_marginal"] == pytest.approx(exact.mean, abs=1e-4)
    assert found["standard_error"] is exact.trusted_standard_error is None  # of so few effective samples
    (tmp_path / "two/checkpoints/tiny-seed3/model-180.keras").unlink()
    assert run_of(x).measure(str(tmp_path / "two"), 3, 50) == found  # is read, not measured again
    with pytest.raises(ValueError, match="has seen 180 rows, beyond the 30 of 1 stages"):
        run_of(x).finish(str(tmp_path / "two"), 1)


@pytest.mark.slow
def test_patience_ends_a_stage_with_the_best_weights_and_a_stop_changes_nothing(x, tmp_path):
    """Of rows that no validation row is like, the validation ELBO soon falls."""
    plan = Plan((60,), (3e-2,), 20, patience=3, warm_up=5)
    model = Model("VAE", 1, (8,), 2, "tanh", stages.bernoulli)
    run = Run("early", model, plan, x[:30], x[30:], np.zeros(784), seed=3, validation=1.0 - x[30:])
    assert plan.ends(1, 60_000) == [3_600_000]
    vae, _ = run.finish(str(tmp_path), 1)
    assert 5 < run.measure(str(tmp_path), 1, 10)["epochs"] < 60
    twin = run.model.build(run.pixel_bias, 3)
    twin.compile(plan.optimizer(30, 1e-7))
    history = twin.fit(run.train, validation_data=run.validation, batch_size=20, epochs=60, verbose=0,
                       callbacks=plan.stopping()).history  # fmt: skip
    assert len(history["val_elbo"]) - 4 == 5 + np.argmax(history["val_elbo"][5:])
    for one, two in zip(vae.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-6)


@pytest.fixture
def data(x, tmp_path) -> str:
    """The three datasets in the forms in which they are found, of few rows."""
    folder = tmp_path / "data"
    for name in ("mnist", "silhouettes", "freyface"):
        (folder / name).mkdir(parents=True)
    for prefix, rows in (("train", x[:40]), ("t10k", x[40:])):
        images = struct.pack(">4i", 2051, len(rows), 28, 28) + (255 * rows).astype(np.uint8).tobytes()
        with gzip.open(folder / "mnist" / f"{prefix}-images-idx3-ubyte.gz", "wb") as file:
            file.write(images)
    parts = {"train_data": x[:40].astype(np.uint8), "test_data": x[40:].astype(np.uint8)}
    np.savez(folder / "silhouettes" / "caltech101_silhouettes.npz", **parts)
    faces = np.random.default_rng(1).integers(0, 256, [30, 28, 20], np.uint8)
    np.save(folder / "freyface" / "frey_faces.npy", faces)
    return str(folder)


def written(path: pathlib.Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_the_table_of_iwae_says_what_was_measured(data, as_graphs, tmp_path, monkeypatch):
    monkeypatch.setattr(table1, "_HIDDEN", (6, 5))
    output = tmp_path / "runs"
    rows = table1.table1(str(output), data, ["VAE-1", "DReG-5"], stages=2, num_samples=20, test_rows=5)
    assert [(row["row"], row["epochs"], row["published"]) for row in rows] == [
        ("VAE-1", 4, -86.76),
        ("DReG-5", 4, -84.90),
    ]
    for row, kept in zip(rows, written(output / "iwae_table1.csv"), strict=True):
        assert float(kept["log_marginal"]) == row["log_marginal"] < 0
        assert row["standard_error"] is None and kept["standard_error"] == ""  # it is a lower bound
        assert row["difference"] == row["log_marginal"] - row["published"]
        model = checkpoints.load(output / "checkpoints" / f"iwae-{row['row']}")
        assert model.noise is not None and model.num_samples == int(row["row"][-1])
        assert float(model.optimizer.epsilon) == pytest.approx(1e-4 / 20)
    for bad, words in (({"rows": ["IWAE-50"]}, "There is no IWAE-50"), ({"test_rows": 6}, "between 1 and 5")):
        with pytest.raises(ValueError, match=words):
            table1.table1(str(output), data, **bad)


@pytest.mark.slow
def test_the_renyi_table_has_folds_of_faces_and_stages_of_silhouettes(data, as_graphs, tmp_path):
    rows = renyi.table(
        str(tmp_path), data, methods=["VR-max"], num_samples=2, folds=2, epochs=2, stages=1, marginal_samples=20
    )
    assert [(row["dataset"], row["folds"], row["published"]) for row in rows] == [
        ("silhouettes", None, None),
        ("frey", 2, None),
    ]
    assert len(written(tmp_path / "renyi.csv")) == 2
    values = [
        json_value(path)
        for path in sorted((tmp_path / "checkpoints").glob("frey-VR-max-2-rate0.0005-fold*/measured-*.json"))
    ]
    assert rows[1]["log_marginal"] == pytest.approx(np.mean(values))
    assert rows[1]["standard_error"] == pytest.approx(np.std(values, ddof=1) / np.sqrt(2))


@pytest.mark.slow
def test_the_table_of_flows_has_a_model_of_each_number_of_them(data, as_graphs, tmp_path, monkeypatch):
    monkeypatch.setattr(planar, "_HIDDEN", 6)
    rows = planar.table(str(tmp_path), data, [0, 2], updates=1, num_samples=20, test_rows=5)
    assert [(row["num_flows"], row["epochs"], row["published"]) for row in rows] == [(0, 3, -89.9), (2, 3, None)]
    assert len(written(tmp_path / "flows.csv")) == 2
    for row in rows:
        model = checkpoints.load(tmp_path / "checkpoints" / f"flows-{row['num_flows']}-rate1e-05")
        assert model.posterior.describe().fixed == ({"num_flows": 2} if row["num_flows"] else {})
        assert [w.shape for w in model.encoder.weights] == [(784, 24), (24,)] and model.latent_dim == 40
        assert float(model.optimizer.momentum) == 0.9
    for bad, words in (({"num_flows": [-1]}, "num_flows must be at least 0"), ({"test_rows": 6}, "between 1 and 5")):
        with pytest.raises(ValueError, match=words):
            planar.table(str(tmp_path), data, **bad)


@pytest.mark.slow
def test_the_vamp_table_has_both_priors(data, as_graphs, tmp_path, monkeypatch):
    monkeypatch.setattr(vamp, "_HIDDEN", (6,))
    more = {"epochs": 1, "num_components": 3, "num_samples": 20, "test_rows": 5}
    monkeypatch.setattr(vamp, "_TRAIN_ROWS", 30)
    (bits,) = vamp.table(str(tmp_path), data, ["freyface"], ["vamp"], **more)
    (own,) = vamp.table(str(tmp_path / "exemplars"), data, ["mnist"], ["exemplar"], **more, num_exemplars=20)
    assert (own["prior"], own["published"], own["published_error"], own["epochs"]) == ("exemplar", -82.09, 0.18, 1)
    kept = checkpoints.load(tmp_path / "exemplars" / "checkpoints" / "mnist-exemplar-3-20").prior
    images = datasets.mnist(data + "/mnist")[0]
    np.testing.assert_array_equal(kept.exemplars, images[:20])
    assert kept.num_drawn == 3
    rows = vamp.table(str(tmp_path), data, ["mnist"], **more)
    assert [(row["prior"], row["published"], row["epochs"]) for row in rows] == [
        ("normal", -84.45, 1),
        ("vamp", -82.43, 1),
    ]
    assert len(written(tmp_path / "vamp.csv")) == 2
    faces = checkpoints.load(tmp_path / "checkpoints" / "freyface-vamp-3")
    levels = np.load(data + "/freyface/frey_faces.npy").reshape(-1, 560)[np.random.default_rng(0).permutation(30)[20:]]
    nats = evaluation.log_marginal(faces, levels, 20, seed=0)
    assert bits["ours"] == pytest.approx(-nats.mean / 560 / np.log(2), abs=1e-4)
    assert bits["standard_error"] is nats.trusted_standard_error is None
    model = checkpoints.load(tmp_path / "checkpoints" / "mnist-vamp-3")
    assert model.prior.num_components == 3 and type(model.optimizer).__name__ == "NormalizedAdam"
    assert [w.shape for w in model.encoder.weights] == [(784, 12), (12,)] and model.noise is not None
    features = np.random.default_rng(0).normal(scale=50, size=[20, 6]).astype(np.float32)
    scales = model.posterior(features).stddev().numpy()
    assert np.exp(-3) - 1e-5 < scales.min() < 0.06 and 2.5 < scales.max() < np.e + 1e-5
    assert float(model.objective.beta(40)) == pytest.approx(0.4)  # one step an epoch, 100 epochs
    for bad, words in (({"priors": ["flow"]}, "There is no flow"), ({"test_rows": 6}, "between 1 and 5")):
        with pytest.raises(ValueError, match=words):
            vamp.table(str(tmp_path), data, ["mnist"], **bad)


def test_binary_images_are_drawn_once_by_their_greys():
    greys = np.tile(np.linspace(0.0, 1.0, 5, dtype=np.float32), [4000, 1])
    np.testing.assert_array_equal(datasets.binary(greys, 1), datasets.binary(greys, 1))
    assert set(np.unique(datasets.binary(greys, 1))) == {0.0, 1.0}
    np.testing.assert_allclose(datasets.binary(greys, 1).mean(axis=0), greys[0], atol=0.04)


def json_value(path: pathlib.Path) -> float:
    return checkpoints.remembered(path, dict)["log_marginal"]


def test_folds_hold_out_every_face_once(data):
    runs = [renyi._faces("frey", "VAE", 5, data, 10, 5e-4, fold, seed=0) for fold in range(10)]
    held_out = np.concatenate([run.test for run in runs])
    faces = datasets.faces(f"{data}/freyface/frey_faces.npy")
    np.testing.assert_array_equal(np.sort(held_out, axis=0), np.sort(faces, axis=0))
    for run in runs:
        both = np.concatenate([run.train, run.test])
        np.testing.assert_array_equal(np.sort(both, axis=0), np.sort(faces, axis=0))


def test_the_published_rows_have_a_method_each():
    assert {method for *_, method in renyi.PUBLISHED} <= METHODS.keys()
    assert {row.rpartition("-")[0] for row in table1.PUBLISHED} <= METHODS.keys()
    with pytest.raises(ValueError, match=r"folds must lie between 1 and 10, received 11"):
        renyi.table(folds=11)


def test_a_file_without_silhouettes_says_what_it_has(tmp_path):
    np.savez(tmp_path / "x.npz", other=np.zeros(3))
    with pytest.raises(ValueError, match="has no test_data and no train_data, only other"):
        datasets.silhouettes(str(tmp_path / "x.npz"))
