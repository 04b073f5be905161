"""Judges by name: what each finds is its own function's, and goes to the record, the card and the screen."""

import json
import math

import numpy as np
import pytest

from tests import linear_gaussian
from tfvae import evaluation, runs, tables
from tfvae.evaluation import judges
from tfvae.exporting import card, provenance


@pytest.fixture
def quick(monkeypatch):
    for name, count in (("_ANNEALED_ROWS", 30), ("_CALIBRATED_ROWS", 200), ("_COMPARED_ROWS", 60)):
        monkeypatch.setattr(judges, name, count)


def of_the_model(count: int) -> np.ndarray:
    covariance = linear_gaussian.W.T @ linear_gaussian.W + linear_gaussian.SCALE**2 * np.eye(4)
    return np.random.default_rng(3).multivariate_normal(linear_gaussian.LOC, covariance, count).astype(np.float32)


def test_a_right_model_is_found_right_and_a_wrong_one_wrong(quick):
    x, names = of_the_model(200), ["surgery", "calibration", "samples"]
    right = evaluation.judge(linear_gaussian.vae(), x, names)
    assert list(right) == names
    assert right["calibration"]["corrected_p_value"] > 0.01 and right["samples"]["p_value"] > 0.01
    own = evaluation.elbo_surgery(linear_gaussian.vae(), x)
    assert right["surgery"]["mutual_information"] == pytest.approx(own.mutual_information.mean, rel=1e-6)
    wrong = evaluation.judge(linear_gaussian.vae(wider=0.5), x + 3, ["calibration", "samples"])
    assert wrong["calibration"]["corrected_p_value"] < 1e-6 and wrong["samples"]["p_value"] < 0.01
    assert wrong["samples"]["precision"] < 0.5


def test_rows_in_the_order_of_their_classes_are_like_the_model_all_the_same(quick):
    x = of_the_model(200)
    found = evaluation.judge(linear_gaussian.vae(), x[np.argsort(x[:, 0])], ["samples"])["samples"]
    assert found["p_value"] > 0.01 and found["rows"] == 60


@pytest.mark.slow
def test_every_judge_finds_finite_numbers(quick):
    x, c = linear_gaussian.rows(30)
    vae, done = linear_gaussian.vae(conditional=True), []
    found = evaluation.judge(vae, {"x": x, "condition": c}, list(judges.JUDGES), progress=done.append)
    assert done == [1, 2, 3, 4, 5]
    for name, numbers in found.items():
        assert all(isinstance(value, (int, float)) and math.isfinite(value) for value in numbers.values()), name
    exact = linear_gaussian.Exact(conditional=True).log_marginal(x, c).mean()
    assert found["annealing"]["log_marginal"] == pytest.approx(exact, abs=0.1)
    assert abs(found["annealing"]["sandwich_gap"]) < 0.1
    provenance.Measured(judges=json.loads(json.dumps(found)))


def test_an_unknown_judge_is_told_the_nearest_before_anything_is_read(tmp_path):
    with pytest.raises(ValueError, match="names has 'calibraton', which is no judge: did you mean calibration"):
        runs.evaluate(tmp_path / "none", tmp_path / "none", judges=["surgery", "calibraton"])
    with pytest.raises(ValueError, match="'xyz', which is no judge: there are annealing, calibration, predictive"):
        judges.check_judges(["xyz"])
    with pytest.raises(ValueError, match="names is 'surgery', expected a list of judges"):
        judges.check_judges("surgery")


def test_the_card_carries_what_was_found():
    found = {"surgery": {"kl": 12.3456, "kl_standard_error": 0.01, "total_correlation": None}}
    measured = provenance.Measured(judges=found)
    rows = dict(card._measured_rows({**vars(measured), "dataset": vars(measured.dataset)}))
    assert rows["surgery"] == "kl 12.35 ± 0.01, total correlation unknown"
    assert rows["surgery"] == tables.findings(found["surgery"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"surgery": {"kl": float("nan")}},
        {"surgery": {"kl": "12"}},
        {"surgery": {"kl": True}},
        {"surgery": {"kl": 10**400}},
        {"surgery": []},
        {"<b>": {"kl": 1.0}},
        {"surgery": {f"n{i}": 1.0 for i in range(51)}},
        {},
        "surgery",
    ],
)
def test_findings_of_another_kind_are_refused(wrong):
    with pytest.raises(ValueError, match=r"judges (is|has) .* expected"):
        provenance.Measured(judges=wrong)
