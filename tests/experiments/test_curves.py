"""Learning curves at a tiny size: their points, a stop and what follows it, what is counted as a sample."""

import pathlib

import keras
import numpy as np
import pytest

from tfvae import baselines
from tfvae.experiments import checkpoints, curves
from tfvae.experiments.aevb import settings

POINTS = [1000, 12_000, 15_000, 20_000]  # the first moves nothing: it ends before the hundredth step
METHODS = ("AEVB", "WS")


@pytest.fixture(scope="module", autouse=True)
def short(quick):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(curves, "POINTS", POINTS)
        yield


def run(data: settings.Data, method: str, samples: float = 2e4, checkpoint=None, **more) -> list[checkpoints.Point]:
    return list(curves.curve(data, 2, method, int(samples), checkpoint, **more))


def assert_same(points: list[checkpoints.Point], expected: list[checkpoints.Point]) -> None:
    """But for the time, and for last digits, which differ without XLA and may turn a pixel of a wake-sleep dream."""
    values = [[(p.samples, p.train, p.test, p.failed_rows) for p in one] for one in (points, expected)]
    np.testing.assert_allclose(*values, rtol=0, atol=5e-4)


@pytest.fixture(scope="module")
def straight(data, short) -> dict[str, list[checkpoints.Point]]:
    """Each method's curve, run in one go."""
    return {method: run(data, method) for method in METHODS}


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_curve_has_the_papers_points_and_rises(straight, method):
    points = straight[method]
    assert [point.samples for point in points] == POINTS
    assert all(np.isfinite([point.train, point.test]).all() for point in points)
    assert points[-1].train > points[0].train + 0.005
    seconds = [point.seconds for point in points]
    assert seconds == sorted(seconds)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_stop_changes_nothing(data, straight, method, tmp_path):
    folder = tmp_path / "run"
    assert_same(run(data, method, 1e3, folder), straight[method][:1])
    stopped = curves.curve(data, 2, method, 20_000, folder)
    for _ in range(3):
        next(stopped)
    stopped.close()
    assert [point.samples for point in checkpoints.read_points(folder)] == POINTS[:3]
    assert_same(run(data, method, 2e4, folder), straight[method])
    assert sorted(path.name for path in folder.iterdir()) == ["model-20000.keras", "points.csv"]
    # A finished run is read, not trained; no more of it than was asked for.
    (folder / "model-20000.keras").unlink()
    assert_same(run(data, method, 2e4, folder), straight[method])
    assert [point.samples for point in run(data, method, 1.2e4, folder)] == POINTS[:2]


@pytest.mark.slow
@pytest.mark.parametrize("killed_at", ["incomplete.keras", "incomplete.csv"])
@pytest.mark.parametrize("saves", [0, 2])
def test_a_kill_in_the_middle_of_saving_costs_one_stretch(data, straight, killed_at, saves, tmp_path, monkeypatch):
    """The process dies just before a finished file takes its place, at the first save or at a later one."""
    replace, calls = checkpoints.os.replace, []

    def dies(source, target):
        name = pathlib.Path(source).name
        calls.extend([name] if name.startswith("incomplete") else [])
        if name == killed_at and len(calls) > 2 * saves:
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.os, "replace", dies)
        with pytest.raises(KeyboardInterrupt):
            run(data, "AEVB", checkpoint=tmp_path)
    assert (tmp_path / killed_at).exists()
    assert [point.samples for point in checkpoints.read_points(tmp_path)] == POINTS[:saves]
    assert_same(run(data, "AEVB", checkpoint=tmp_path), straight["AEVB"])


@pytest.mark.slow
def test_a_stop_within_a_stretch_goes_on_there(data, straight, tmp_path, monkeypatch):
    report = curves._Report

    class Stops(report):
        def on_train_batch_end(self, batch, logs=None):
            super().on_train_batch_end(batch, logs)
            if self._start == 1000 and batch == 60:
                raise RuntimeError("stopped")

    often = checkpoints.Checkpoint
    monkeypatch.setattr(checkpoints, "Checkpoint", lambda folder: often(folder, steps=1))
    monkeypatch.setattr(curves, "_Report", Stops)
    with pytest.raises(RuntimeError, match="stopped"):
        run(data, "AEVB", checkpoint=tmp_path)
    assert [path.name for path in tmp_path.glob("until-*")] == ["until-12000"]
    seen: list[int] = []
    monkeypatch.setattr(curves, "_Report", report)
    assert_same(run(data, "AEVB", checkpoint=tmp_path, progress=seen.append), straight["AEVB"])
    assert 1000 + 100 < seen[0] <= 1000 + 61 * 100 and not list(tmp_path.glob("until-*"))


@pytest.mark.slow
def test_the_training_bound_is_the_mean_since_the_point_before(data, straight):
    """Against steps taken one at a time, with the rows in the engine's own order."""
    model = settings.build(data, 2, "AEVB")
    seen: list[float] = []

    class Bounds(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(logs["elbo"])

    model.compile(model.optimizer, steps_per_execution=1)
    model.fit(data.train, batch_size=100, steps_per_epoch=10, verbose=0, callbacks=[Bounds()])
    assert len(seen) == 10  # Keras logs the running mean of the epoch
    assert seen[-1] == pytest.approx(straight["AEVB"][0].train, abs=1e-4)
    # While nothing moves, it is the bound of the untrained model, known to a nat: 6 log ½, and a KL near 0.
    assert straight["AEVB"][0].train == pytest.approx(6 * np.log(0.5), abs=0.02)
    assert straight["AEVB"][0].test == pytest.approx(6 * np.log(0.5), abs=0.02)


def test_progress_counts_samples(data):
    seen: list[int] = []
    run(data, "AEVB", 1.2e4, progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 12_000
    assert 1000 in seen


@keras.saving.register_keras_serializable("tests")
class FiveUpdates(baselines.WakeSleep):
    """Stands in for a method that evaluates each row of a minibatch five times, as Monte Carlo EM does."""

    num_updates = 5

    def __init__(self, vae, num_rows, **more):
        super().__init__(vae, **more)
        self.num_rows = num_rows

    def get_config(self):
        return {**super().get_config(), "num_rows": self.num_rows}


def test_each_weight_update_of_monte_carlo_em_evaluates_its_samples(data, tmp_path, monkeypatch):
    monkeypatch.setattr(baselines, "MonteCarloEM", FiveUpdates, raising=False)
    seen: list[int] = []
    points = [2500, 12_000]
    assert run(data, "MCEM", 2500, tmp_path, progress=seen.append, points=points)[0].samples == seen[-1] == 2500
    model = checkpoints.load(tmp_path)
    assert int(model.optimizer.iterations) == 2  # all 250 rows at once, five times each
    assert (model.num_rows, curves.vae_of(model)) == (250, model.vae)
    assert run(data, "MCEM", 1.2e4, tmp_path, points=points)[-1].samples == 12_000
    assert int(checkpoints.load(tmp_path).optimizer.iterations) == 9  # 9.6 times 1250 samples


def test_what_is_measured_can_be_chosen(data, tmp_path):
    def measure(model, seen, history):
        assert seen is data and set(history) >= {"elbo", "loss"}
        return curves.Measured(1.0, float(model.optimizer.iterations), failed_rows=3)

    points = run(data, "AEVB", 2e3, tmp_path, measure=measure, points=[500, 2000])
    assert [(p.samples, p.train, p.test, p.failed_rows) for p in points] == [(500, 1, 5, 3), (2000, 1, 20, 3)]
    assert checkpoints.read_points(tmp_path) == points


def test_points_kept_before_failures_were_counted_are_read(tmp_path):
    (tmp_path / "points.csv").write_text("samples,train,test,seconds\n1000,-2.5,-3.5,1.5\n")
    assert checkpoints.read_points(tmp_path) == [checkpoints.Point(1000, -2.5, -3.5, 1.5, 0)]


def test_a_failed_row_is_told(data, tmp_path, capsys):
    points = curves.follow(
        "mine", data, 2, "AEVB", 500, tmp_path, 3, lambda *_: curves.Measured(-1.0, -2.0, 4), points=[500]
    )
    assert "mine: no estimate for 4 rows at 500 samples" in "".join(capsys.readouterr())
    assert checkpoints.read_points(tmp_path / "checkpoints" / "mine-seed3") == points


def test_a_curve_without_a_point_is_an_error(data):
    with pytest.raises(ValueError, match="starts at 1,000 samples, received 999"):
        run(data, "AEVB", 999)
