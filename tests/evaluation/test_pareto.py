"""Pareto's k̂ against draws whose tail is known."""

import numpy as np
import pytest
from scipy import stats

from tfvae.evaluation import pareto_shape


@pytest.mark.parametrize("shape", [-0.3, 0.2, 0.5, 0.7, 1.0, 1.5])
def test_it_is_the_shape_of_generalised_pareto_draws(shape):
    draws = stats.genpareto.rvs(shape, size=[20_000, 40], random_state=0)
    tail = 3 * np.sqrt(20_000)
    found, error = pareto_shape(np.log(draws)), (1 + max(shape, 0)) / np.sqrt(tail)  # of the maximum likelihood
    shrunk = (tail * shape + 5) / (tail + 10)
    assert abs(found.mean() - shrunk) < 4 * error / np.sqrt(40) + 0.02
    assert 0.5 * error < found.std() < 1.6 * error


def test_a_constant_factor_of_each_row_changes_nothing():
    log_weights = np.random.default_rng(0).normal(size=[1000, 3])
    np.testing.assert_allclose(
        pareto_shape(log_weights), pareto_shape(log_weights + np.array([0.0, 900.0, -900.0])), atol=1e-6
    )


def test_weights_that_a_narrow_proposal_makes_have_a_heavy_tail():
    z = np.random.default_rng(0).normal(size=[5000, 20])
    narrow = stats.norm.logpdf(0.4 * z) - stats.norm.logpdf(0.4 * z, scale=0.4)  # p = N(0, 1), q = N(0, 0.4²)
    wide = stats.norm.logpdf(2 * z) - stats.norm.logpdf(2 * z, scale=2.0)
    assert pareto_shape(narrow).min() > 0.5 > 0.3 > pareto_shape(wide).max()  # k = 1 - 0.4² and below 0
    assert pareto_shape(narrow).mean() == pytest.approx(1 - 0.4**2, abs=0.15)


def test_equal_weights_have_no_tail_and_few_have_none_that_is_seen():
    assert pareto_shape(np.zeros([100, 2])).tolist() == [-np.inf, -np.inf]
    with pytest.raises(ValueError, match=r"shape \(24, 1\), expected \[K, N\] with K of 25 or more"):
        pareto_shape(np.zeros([24, 1]))
