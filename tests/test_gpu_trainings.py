"""A training that goes elsewhere and comes back is ``fit``'s, and so is what ``log_marginal`` gives of it."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest

from benchmarks.gpu import rounds, trainings
from tfvae import evaluation
from tfvae.experiments import stages
from tfvae.experiments.stages import Model, Plan, Run

pytestmark = pytest.mark.xla

ROOT = pathlib.Path(__file__).resolve().parents[1]
ELSEWHERE = """
import sys
sys.modules["tensorflow"] = sys.modules["keras"] = sys.modules["tfvae"] = None
import pathlib, time
from benchmarks.gpu import rounds
folder, received, *names = sys.argv[1:]
for name in names:
    rounds.train(pathlib.Path(folder), pathlib.Path(received), name, time.monotonic() + 600, "float32")
"""
X = (np.random.default_rng(0).random([45, 784]) < 0.3).astype(np.float32)
MODEL = Model("VAE", 1, (8,), 2, "tanh", stages.bernoulli)
RUNS = {
    "iwae-once": Run("once", MODEL, Plan((1,), (1e-2,), 20), X[:30], X[30:], np.zeros(784), seed=3),
    "iwae-early": Run(
        "early",
        MODEL,
        Plan((60,), (3e-2,), 20, patience=3, warm_up=5),
        X[:30],
        X[30:],
        np.zeros(784),
        seed=3,
        validation=1.0 - X[30:],
    ),
}


@pytest.fixture(scope="module")
def received(tmp_path_factory) -> pathlib.Path:
    """What two trainings came to in a process that cannot import TensorFlow."""
    folder, received = (tmp_path_factory.mktemp(name) for name in ("carried", "received"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(trainings.SAMPLES, "iwae", 120)
        for name, run in RUNS.items():
            trainings.carry_run(folder, name, run, 1)
    command = [sys.executable, "-c", ELSEWHERE, str(folder), str(received), *RUNS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return received


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(trainings, "run_of", lambda name, data_dir: RUNS[name])


@pytest.mark.slow
def test_an_epoch_elsewhere_is_one_of_fit(received):
    run = RUNS["iwae-once"]
    facts, values, sums, history = rounds.read_received(received / "iwae-once.npz")
    assert facts["differences"]["train"] < 1e-5 and facts["differences"]["marginal"] < 1e-3
    assert facts["ended"] and facts["done"] == len(history) == 1
    vae, before = run.build(), run.build().get_weights()
    fitted = vae.fit(run.train[np.random.default_rng(3).permutation(30)], batch_size=20, shuffle=False, verbose=0)
    for came, expected, first in zip(values.values(), vae.get_weights(), before, strict=True):
        np.testing.assert_allclose(came, expected, rtol=1e-5, atol=1e-6)
        assert came.dtype == np.uint32 or np.max(np.abs(came - first)) > 1e-3
    assert history[0]["elbo"] == pytest.approx(fitted.history["elbo"][0], rel=1e-5)
    there = evaluation.MarginalEstimate.of_sums(*sums.astype(np.float64), facts["num_samples"])
    here = evaluation.log_marginal(vae, run.test, facts["num_samples"], seed=3)
    np.testing.assert_allclose(there.log_marginal, here.log_marginal, atol=1e-3)
    np.testing.assert_allclose(there.effective_sample_size, here.effective_sample_size, rtol=0.02)


@pytest.mark.slow
def test_patience_elsewhere_is_that_of_early_stopping(received):
    facts, *_, history = rounds.read_received(received / "iwae-early.npz")
    elbo = [epoch["val_elbo"] for epoch in history]
    assert facts["ended"] and 5 < len(elbo) < 60 and len(elbo) - 4 == 5 + np.argmax(elbo[5:])


@pytest.mark.slow
def test_what_comes_back_is_found_by_reproduce(received, tmp_path, capsys):
    options = type("Options", (), {"received": received, "output": tmp_path, "data_dir": "nowhere"})
    trainings.bring(options)
    assert "iwae-once: 1 epochs: " in capsys.readouterr().out
    for name, run in RUNS.items():
        facts, values, *_ = rounds.read_received(received / f"{name}.npz")
        found = run.measure(str(tmp_path), 1, facts["num_samples"])
        assert found["epochs"] == facts["done"]
        kept, point = run.finish(str(tmp_path), 1)
        for weight, value in zip(kept.get_weights(), values.values(), strict=True):
            np.testing.assert_array_equal(weight, value)
        assert point.test == pytest.approx(kept.evaluate(run.test, verbose=0, return_dict=True)["elbo"], abs=2.0)


def test_rows_that_are_no_levels_do_not_travel(tmp_path):
    with pytest.raises(ValueError, match="256 levels"):
        rounds.write(tmp_path, rounds.Training({"name": "one"}, [], {"train": rounds.Leg(b"", [], [], [], [], {}, 1)}),
                     {"train": np.full([2, 3], 0.5, np.float32)})  # fmt: skip


@pytest.mark.parametrize("name", ["iwae-VAE", "flows-ten", "vamp-mnist-exemplar", "nothing"])
def test_a_run_of_no_table_is_named(name, monkeypatch):
    monkeypatch.undo()
    with pytest.raises(ValueError, match=f"'{name}' is no run: expected iwae-VAE-1"):
        trainings.run_of(name, "nowhere")
