"""Long estimates run as programs of about a second, for Ctrl-C, and give the same whatever the parts."""

import itertools

import numpy as np
import pytest

from tests import linear_gaussian
from tfvae import evaluation
from tfvae.engine import pace
from tfvae.evaluation import annealing, hmc, importance

X = np.random.default_rng(0).normal(size=[3, 4]).astype(np.float32)
FEW = {"num_temperatures": 12, "num_chains": 2, "num_leapfrog_steps": 2}


@pytest.mark.parametrize(
    ("room", "estimate", "parts"),
    [
        (importance, lambda vae: evaluation.log_marginal(vae, X, num_samples=30), 5),
        pytest.param(
            annealing,
            lambda vae: evaluation.annealed_log_marginal(vae, X, **FEW),
            12 + 12 + annealing._WARM_UP,
            marks=pytest.mark.slow,
        ),
        pytest.param(
            hmc,
            lambda vae: evaluation.hmc_log_marginal(vae, X, num_samples=16, num_leapfrog_steps=2, num_burnin_steps=3),
            16 + 3,
            marks=pytest.mark.slow,
        ),
    ],
)
def test_slow_programs_are_short_and_give_the_same(room, estimate, parts, monkeypatch):
    monkeypatch.setattr(importance, "_FLOATS_AT_ONCE", 6 * 100 * 4)
    vae, ended, wait = linear_gaussian.vae(), [], room.waited_for
    at_once = estimate(vae)
    vae.forget_programs()
    clock = itertools.count(0, 10)  # every program takes ten seconds
    monkeypatch.setattr(pace.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(room, "waited_for", lambda state: ended.append(1) or wait(state))
    np.testing.assert_allclose(estimate(vae).log_marginal, at_once.log_marginal, rtol=1e-6)
    assert len(ended) == parts

    def stopped(state):
        raise KeyboardInterrupt

    monkeypatch.setattr(room, "waited_for", stopped)
    with pytest.raises(KeyboardInterrupt):
        estimate(vae)
