"""Ranks on the linear-Gaussian model, whose q is p(z|x) or is not, and the test against SciPy's."""

import numpy as np
import pytest
import scipy.stats

from tests import linear_gaussian
from tfvae import VAE, DistributionLayer, evaluation, likelihoods, networks, posteriors
from tfvae.evaluation.calibration import Calibration


@pytest.mark.parametrize("conditional", [False, True])
def test_the_exact_posterior_passes(conditional):
    condition = linear_gaussian.rows(1000)[1] if conditional else None
    vae = linear_gaussian.vae(conditional)
    done: list[int] = []
    found = evaluation.simulation_based_calibration(vae, condition=condition, batch_size=300, progress=done.append)
    assert done == [300, 600, 900, 1000]
    assert found.ranks.shape == (1000, 2) and found.ranks.min() >= 0 and found.ranks.max() <= 99
    assert found.corrected_p_value > 0.01
    coverage = found.coverage(0.9)
    assert coverage.level == pytest.approx(0.9)
    np.testing.assert_allclose(coverage.share, 0.9, atol=4 * coverage.standard_error)


@pytest.mark.parametrize(("wider", "shift"), [(0.7, 0.0), (1.4, 0.0), (1.0, 0.3)])
def test_another_posterior_fails_in_its_own_way(wider, shift):
    found = evaluation.simulation_based_calibration(linear_gaussian.vae(wider=wider, shift=shift), batch_size=1000)
    assert found.corrected_p_value < 1e-6
    if not shift:  # z* = m + s e, of which the interval holds Φ⁻¹(0.95) wider s
        exact = 1 - 2 * scipy.stats.norm.sf(scipy.stats.norm.isf(0.05) * wider)
        np.testing.assert_allclose(found.coverage(0.9).share, exact, atol=0.05)
    else:
        assert (found.ranks.mean(axis=0) < 45).all()


def test_the_p_values_are_scipys_and_uniform_under_uniform_ranks():
    ranks = np.random.default_rng(0).integers(0, 100, [400, 300])
    found = Calibration.of(ranks, 99, 20)
    for i in range(3):
        statistic, p_value = scipy.stats.chisquare(np.histogram(ranks[:, i], np.arange(0, 101, 5))[0])
        assert (found.chi_square[i], found.p_value[i]) == pytest.approx((statistic, p_value))
    assert scipy.stats.kstest(found.p_value, "uniform").pvalue > 0.01


def test_numbers_of_the_model_pass_and_others_do_not():
    vae = linear_gaussian.vae()
    exact = linear_gaussian.W.T @ linear_gaussian.W + linear_gaussian.SCALE**2 * np.eye(4)
    rng = np.random.default_rng(1)
    x = rng.multivariate_normal(linear_gaussian.LOC, exact, 1000).astype(np.float32)
    x[:, 2] = linear_gaussian.LOC[2] + 2 * (x[:, 2] - linear_gaussian.LOC[2])
    done: list[int] = []
    found = evaluation.predictive_calibration(vae, x, batch_size=512, progress=done.append)
    assert done == [*range(512, len(x), 512), len(x)]
    right = [0, 1, 3]
    assert found.p_value[2] < 1e-6 and found.p_value[right].min() > 0.003
    coverage = found.coverage(0.5)
    np.testing.assert_allclose(coverage.share[right], 0.5, atol=4 * coverage.standard_error)


@pytest.mark.slow
def test_ties_are_broken_so_that_pixels_of_a_right_model_pass():
    """A decoder that knows no z: pixels of chance 1/2."""
    likelihood = likelihoods.bernoulli([5], kernel_initializer="zeros")
    vae = VAE(networks.mlp([4]), networks.mlp([4]), posteriors.diagonal_normal(2), likelihood, seed=0)
    rng = np.random.default_rng(0)
    fair, rare = (rng.random([1000, 5]) < chance for chance in (0.5, 0.3))
    assert evaluation.predictive_calibration(vae, fair.astype(np.float32)).corrected_p_value > 0.01
    assert evaluation.predictive_calibration(vae, rare.astype(np.float32)).p_value.max() < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["LibraryNegativeBinomial", "NegativeBinomial"])
def test_counts_whose_rate_is_drawn_of_a_gamma_pass_under_their_own_model(name):
    """A decoder that knows no z; TFP's draws of a Gamma for a negative binomial have no kernel in XLA."""
    likelihood = DistributionLayer(name, [8], total_count=2.0, kernel_initializer="zeros")
    vae = VAE(networks.mlp([4]), networks.mlp([4]), posteriors.diagonal_normal(2), likelihood, seed=0)
    rng = np.random.default_rng(0)
    if name == "NegativeBinomial":  # logits of 0
        x, wrong = rng.negative_binomial(2.0, 0.5, [1000, 8]), rng.poisson(2.0, [1000, 8])
    else:  # of equal shares, but for what the total says of each count
        x = rng.negative_binomial(2.0, 2.0 / (2.0 + 50.0), [1000, 8])
        wrong = rng.multinomial(400, np.full(8, 1 / 8), 1000)
    found = evaluation.predictive_calibration(vae, x.astype(np.float32), num_draws=39)
    far = evaluation.predictive_calibration(vae, wrong.astype(np.float32), num_draws=39)
    assert found.ranks.shape == (1000, 8) and far.corrected_p_value < 1e-10
    if name == "NegativeBinomial":
        assert found.corrected_p_value > 0.01
    else:
        np.testing.assert_allclose(found.coverage(0.5).share, 0.5, atol=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["BagOfWords", "DirichletBagOfWords"])
def test_bags_are_held_against_bags_of_as_many_words(name):
    """A decoder that knows no z; rows of 0 to 59 words, right under one of the two families."""
    fixed = {"concentration": 2.0} if name.startswith("Dirichlet") else {"logits": 0.0}
    likelihood = likelihoods.mixed([DistributionLayer("Normal", [1]), DistributionLayer(name, [4], **fixed)])
    likelihood = likelihood.parts[1] if name == "BagOfWords" else likelihood
    vae = VAE(networks.mlp([4]), networks.mlp([4]), posteriors.diagonal_normal(2), likelihood, seed=0)
    rng = np.random.default_rng(0)
    words = rng.integers(0, 60, 1000)
    rows = {
        "BagOfWords": rng.multinomial(words, np.full(4, 0.25)),
        "DirichletBagOfWords": [
            rng.multinomial(n, share) for n, share in zip(words, rng.dirichlet([2.0] * 4, 1000), strict=True)
        ],
    }
    columns = [] if name == "BagOfWords" else [np.zeros([1000, 1])]
    found = {
        of: evaluation.predictive_calibration(vae, np.hstack([*columns, x]).astype(np.float32), num_draws=39)
        for of, x in rows.items()
    }
    own, other = found.pop(name), found.popitem()[1]
    assert own.p_value[-4:].min() > 0.003 and other.p_value[-4:].max() < 1e-10
    with pytest.raises(ValueError, match="scored given the total of their row, which nothing here draws"):
        evaluation.simulation_based_calibration(vae, num_rows=100, num_draws=9, num_bins=5)


def test_bins_that_do_not_fit_are_told():
    with pytest.raises(ValueError, match="num_bins is 7, expected a divisor of num_draws \\+ 1 = 100"):
        evaluation.simulation_based_calibration(linear_gaussian.vae(), num_bins=7)
    with pytest.raises(ValueError, match="num_bins is 20 for 50 rows, expected at most 10"):
        evaluation.simulation_based_calibration(linear_gaussian.vae(), num_rows=50)
    with pytest.raises(ValueError, match=r"level is 1\.5, expected a share"):
        Calibration.of(np.arange(40)[:, None] % 4, 3, 4).coverage(1.5)
