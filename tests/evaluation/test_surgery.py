"""The parts of the KL against sums over every row in float64 and, for many rows, against normal distributions."""

import numpy as np
import pytest
import scipy.stats

from tests import linear_gaussian
from tfvae import VAE, DistributionLayer, evaluation, networks, posteriors

PARTS = ("kl", "mutual_information", "marginal_kl", "total_correlation", "dimensionwise_kl")


def made_rows(count: int, covariance: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.multivariate_normal(linear_gaussian.LOC, covariance, count).astype(np.float32)


@pytest.fixture(scope="module")
def correlated() -> np.ndarray:
    """Cov x, under which the means of the two units are correlated and wider than the prior's."""
    mixed = np.linalg.pinv(linear_gaussian.KERNEL).T @ np.array([[1.0, 0.9], [0.0, 0.6]]) * 1.5
    return mixed @ mixed.T + 0.01 * np.eye(4)


def exact_parts(covariance: np.ndarray, wider: float) -> dict[str, float]:
    """q(z) = N(0, K' C K + V) for x ~ N(b, C)."""
    kernel, within = linear_gaussian.KERNEL, np.diag(wider**2 * linear_gaussian.VARIANCE)
    total = kernel.T @ covariance @ kernel + within
    log_det = np.linalg.slogdet(total)[1]
    information = 0.5 * (log_det - np.linalg.slogdet(within)[1])
    correlation = 0.5 * (np.log(np.diag(total)).sum() - log_det)
    by_unit = 0.5 * (np.diag(total) - 1 - np.log(np.diag(total))).sum()
    values = (information + correlation + by_unit, information, correlation + by_unit, correlation, by_unit)
    return dict(zip(PARTS, values, strict=True))


def test_many_rows_have_the_parts_of_normal_distributions(correlated):
    vae = linear_gaussian.vae(wider=1.5)
    x = made_rows(4000, correlated)
    found = evaluation.elbo_surgery(vae, x, num_draws=4000, batch_size=500)
    exact = exact_parts(np.cov(x, rowvar=False), 1.5)
    assert exact["total_correlation"] > 0.1 and exact["dimensionwise_kl"] > 0.1
    for name in PARTS:
        part = getattr(found, name)
        assert abs(part.mean - exact[name]) < 4 * part.standard_error + 0.01, name
        assert part.standard_error < 0.06


@pytest.mark.parametrize(("count", "num_draws"), [(7, 50), pytest.param(40, 25, marks=pytest.mark.slow)])
def test_few_rows_have_the_sums_over_every_row(count, num_draws):
    """In batches of 3, and with a q so narrow that float32's exp of most pairs is 0."""
    vae = linear_gaussian.vae(wider=0.1)
    x = linear_gaussian.rows(count)[0]
    found = evaluation.elbo_surgery(vae, x, num_draws, batch_size=3)
    from_all = evaluation.elbo_surgery(vae, x, num_draws, batch_size=count)
    scale = 0.1 * np.sqrt(linear_gaussian.VARIANCE)
    means = (x - linear_gaussian.LOC) @ linear_gaussian.KERNEL
    rng = np.random.default_rng(1)
    z = means[:, None] + scale * rng.normal(size=[count, 300, 2])
    units = scipy.stats.norm(means[:, None, None], scale).logpdf(z)  # [row of q, row of z, draw, unit]
    log_q = units.sum(-1)[range(count), range(count)]
    joint = np.logaddexp.reduce(units.sum(-1)) - np.log(count)
    apart = (np.logaddexp.reduce(units) - np.log(count)).sum(-1)
    prior = scipy.stats.norm.logpdf(z).sum(-1)
    exact = (log_q - prior, log_q - joint, joint - prior, joint - apart, apart - prior)
    for name, values in zip(PARTS, exact, strict=True):
        part, other = getattr(found, name), getattr(from_all, name)
        assert abs(part.mean - values.mean()) < 4 * part.standard_error + 0.02, name
        assert abs(part.mean - other.mean) < 4 * np.hypot(part.standard_error, other.standard_error) + 1e-3, name


def test_the_sums_are_exact_and_the_information_is_at_most_log_n(correlated):
    vae = linear_gaussian.vae(wider=0.01)
    found = evaluation.elbo_surgery(vae, made_rows(30, correlated), num_draws=100, batch_size=8)
    assert found.mutual_information.mean + found.marginal_kl.mean == pytest.approx(found.kl.mean, abs=1e-9)
    both = found.total_correlation.mean + found.dimensionwise_kl.mean
    assert both == pytest.approx(found.marginal_kl.mean, abs=1e-9)
    assert np.log(30) - 0.05 < found.mutual_information.mean < np.log(30) + 1e-4
    assert (found.num_rows, found.num_draws) == (30, 100)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "fixed"), [("Laplace", {}), ("Normal", {"scale": [0.5, 0.8]})])
def test_a_code_that_tells_nothing_misses_the_prior_by_its_own_kl(family, fixed):
    posterior = DistributionLayer(family, [2], kernel_initializer="zeros", **fixed)
    vae = VAE(networks.mlp([4]), networks.mlp([4]), posterior, DistributionLayer("Normal", [4]), seed=0)
    found = evaluation.elbo_surgery(vae, linear_gaussian.rows(20)[0], num_draws=4000, batch_size=8)
    q = vae.encode(linear_gaussian.rows(1)[0]).distribution
    kl = np.sum(0.5 * np.log(2 * np.pi) + 0.5 * (q.mean() ** 2 + q.variance()) - q.entropy())
    assert abs(found.mutual_information.mean) < 1e-4 and abs(found.total_correlation.mean) < 1e-4
    assert abs(found.dimensionwise_kl.mean - kl) < 4 * found.dimensionwise_kl.standard_error


@pytest.mark.slow
def test_units_that_are_tied_have_no_total_correlation():
    vae = VAE(networks.mlp([4]), networks.mlp([4]), posteriors.full_normal(2), DistributionLayer("Normal", [4]), seed=0)
    found = evaluation.elbo_surgery(vae, linear_gaussian.rows(20)[0], num_draws=20)
    assert found.total_correlation is None and found.dimensionwise_kl is None
    assert found.mutual_information.mean + found.marginal_kl.mean == pytest.approx(found.kl.mean, abs=1e-9)
