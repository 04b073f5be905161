"""Annealed importance sampling where log p(x) is known: unbiased weights, a sandwich that closes, every support."""

import numpy as np
import pytest
import tensorflow as tf

import tfvae
from tests import linear_gaussian
from tfvae import evaluation, likelihoods, networks, priors
from tfvae.evaluation import MarginalEstimate, annealing

X, CONDITION = linear_gaussian.rows(40, seed=3)
EXACT = linear_gaussian.Exact(False).log_marginal(X)


@pytest.fixture(scope="module")
def far_off() -> tfvae.VAE:
    """p(x, z) is known; q(z|x), which is not asked, is far from p(z|x)."""
    return linear_gaussian.vae(wider=3.0, shift=5.0)


@pytest.mark.xla
def test_log_p_is_exact_within_its_error(far_off):
    found = evaluation.annealed_log_marginal(far_off, X, num_temperatures=200, batch_size=20)
    error = np.sqrt(np.mean(found.standard_error**2) / len(X))
    assert abs(found.mean - EXACT.mean()) < 4 * error + 0.01
    assert np.abs(found.log_marginal - EXACT).max() < 0.5
    assert 0.5 < found.acceptance_rate.mean() < 0.85
    assert np.median(found.effective_sample_size) > 12


@pytest.mark.slow
def test_weights_are_unbiased_even_of_two_poor_steps(far_off):
    """E w = p(x) however short the walk; and log of the mean of few is below, as a bound must be."""
    found = evaluation.annealed_log_marginal(far_off, X[:5], 2, num_chains=2000, num_leapfrog_steps=2)
    assert (np.abs(found.log_marginal - EXACT[:5]) < 5 * found.standard_error + 0.05).all()
    same = np.repeat(X[:1], 400, axis=0)
    few = evaluation.annealed_log_marginal(far_off, same, 2, num_chains=2, num_leapfrog_steps=2, batch_size=400)
    assert few.mean < EXACT[0] - 4 * few.mean_standard_error


@pytest.mark.xla
@pytest.mark.slow
def test_the_sandwich_holds_the_truth_and_closes(far_off):
    gaps = []
    for num_temperatures in (5, 200):
        found = evaluation.bidirectional(far_off, 200, num_temperatures, num_chains=4, batch_size=200, seed=2)
        truth = linear_gaussian.Exact(False).log_marginal(found.x.astype(np.float64))
        for side, sign in ((found.lower, 1.0), (found.upper, -1.0)):
            off = sign * (truth - side.log_marginal)
            assert off.mean() > -4 * off.std(ddof=1) / np.sqrt(len(off))
        gaps.append(found.gap)
    assert gaps[0] > 5 * abs(gaps[1])
    assert abs(gaps[1]) < 0.05


@pytest.mark.slow
def test_a_conditional_model_is_walked_under_its_condition():
    vae = linear_gaussian.vae(conditional=True, shift=2.0)
    rows = {"x": X[:10], "condition": CONDITION[:10]}
    found = evaluation.annealed_log_marginal(vae, rows, 100, batch_size=10)
    exact = linear_gaussian.Exact(True).log_marginal(X[:10].astype(np.float64), CONDITION[:10].astype(np.float64))
    np.testing.assert_allclose(found.log_marginal, exact, atol=0.5)
    done: list[int] = []
    found = evaluation.bidirectional(vae, 3, 10, batch_size=2, condition=CONDITION[:3], progress=done.append)
    assert found.x.shape == (3, 4) and done == [2, 3, 5, 6]


@pytest.mark.slow
def test_a_prior_with_bounds_is_walked_where_it_has_none():
    """z in [0, 1]: log p(x) by a grid of z."""
    vae = tfvae.VAE(
        networks.mlp([4]), networks.mlp([4]), tfvae.DistributionLayer("Beta", [1]), likelihoods.bernoulli([6]),
        prior=priors.Family("Beta", [1], concentration1=2.0, concentration0=3.0), seed=1,
    )  # fmt: skip
    x = np.eye(6, dtype="float32")
    z = (np.arange(2000, dtype=np.float32) + 0.5)[:, np.newaxis] / 2000
    log_joint = np.stack([vae.log_joint(np.repeat(row[np.newaxis], 2000, axis=0), z).numpy() for row in x])
    exact = np.logaddexp.reduce(log_joint.astype(np.float64), axis=1) - np.log(2000)
    found = evaluation.annealed_log_marginal(vae, x, 200)
    np.testing.assert_allclose(found.log_marginal, exact, atol=0.02)


def test_the_schedule_rises_from_0_to_1_and_is_dense_at_both_ends():
    betas = annealing.schedule(1000).astype(np.float64)
    steps = np.diff(betas)
    assert betas[0] == 0.0 and betas[-1] == 1.0 and (steps > 0).all()
    assert steps[500] > 10 * steps[0] and np.isclose(steps[0], steps[-1], rtol=0.05)


@pytest.mark.slow
def test_the_seed_fixes_it_and_the_batch_size_is_no_matter_of_meaning(far_off):
    one, again = (evaluation.annealed_log_marginal(far_off, X[:7], 20, batch_size=7).log_marginal for _ in range(2))
    np.testing.assert_array_equal(one, again)
    assert evaluation.annealed_log_marginal(far_off, X[:7], 20, batch_size=3).log_marginal.shape == (7,)


def test_estimates_of_weights_are_those_of_their_sums():
    log_weight = np.random.default_rng(0).normal(scale=3, size=[4, 50]) - 700
    found = MarginalEstimate.of_weights(log_weight)
    weight = np.exp(log_weight + 700)
    np.testing.assert_allclose(found.log_marginal, np.log(weight.mean(axis=1)) - 700)
    np.testing.assert_allclose(found.standard_error, weight.std(axis=1, ddof=1) / np.sqrt(50) / weight.mean(axis=1))


@pytest.mark.parametrize("wrong", [{"num_temperatures": 0}, {"num_chains": 1}, {"num_leapfrog_steps": 0}])
def test_numbers_out_of_range_are_refused(far_off, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        evaluation.annealed_log_marginal(far_off, X, **wrong)


def test_no_rows_are_refused(far_off):
    with pytest.raises(ValueError, match="no rows"):
        evaluation.annealed_log_marginal(far_off, tf.zeros([0, 4]))
