"""The AR(1) prior: its moments, and what no q of independent units can go below."""

import numpy as np
import pytest
import scipy.optimize
from tensorflow_probability import distributions as tfd

from tests import linear_gaussian
from tfvae import priors
from tfvae.divergences import closed_form_kl


def by_numpy(prior: priors.FirstOrderAutoregressive) -> np.ndarray:
    """Its covariance, from the recursion."""
    rng, steps = np.random.default_rng(0), prior.latent_dim // prior.num_channels
    z = [rng.normal(size=[400_000, prior.num_channels])]
    for _ in range(steps - 1):
        z.append(prior.correlation * z[-1] + np.sqrt(1 - prior.correlation**2) * rng.normal(size=z[0].shape))
    return np.cov(np.hstack(z).T)


@pytest.mark.parametrize("channels", [1, 2])
def test_it_is_the_recursion(channels):
    prior = priors.FirstOrderAutoregressive(6, correlation=-0.7, num_channels=channels)
    np.testing.assert_allclose(prior().covariance(), by_numpy(prior), atol=0.01)


@pytest.mark.parametrize(("dim", "channels"), [(1, 1), (2, 1), (7, 1), (8, 2)])
def test_no_independent_units_come_nearer_than_its_least_kl(dim, channels):
    prior = priors.FirstOrderAutoregressive(dim, correlation=0.8, num_channels=channels)
    precision = np.linalg.inv(prior().covariance().numpy().astype(np.float64))

    def kl(log_scale: np.ndarray) -> float:
        quadratic = np.diag(precision) @ np.exp(2 * log_scale)
        return 0.5 * (quadratic - dim - np.linalg.slogdet(precision)[1]) - log_scale.sum()

    assert prior.least_kl == pytest.approx(scipy.optimize.minimize(kl, np.zeros(dim)).fun, abs=1e-5)


def test_kl_from_independent_normals_has_a_closed_form():
    prior, rng = priors.FirstOrderAutoregressive(5, correlation=0.95)(), np.random.default_rng(1)
    loc, scale = rng.normal(size=[3, 5]).astype(np.float32), rng.uniform(0.2, 2, [3, 5]).astype(np.float32)
    covariance = prior.covariance().numpy().astype(np.float64)
    truth = [
        0.5 * (np.trace(np.linalg.solve(covariance, np.diag(s**2))) + m @ np.linalg.solve(covariance, m) - 5)
        + 0.5 * np.linalg.slogdet(covariance)[1]
        - np.log(s).sum()
        for m, s in zip(loc.astype(np.float64), scale.astype(np.float64), strict=True)
    ]
    for q in (tfd.Independent(tfd.Normal(loc, scale), 1), tfd.MultivariateNormalDiag(loc, scale)):
        np.testing.assert_allclose(closed_form_kl(q, prior), truth, rtol=1e-4)
    one_scale = tfd.Independent(tfd.Normal(loc, 1.0), 1)
    assert closed_form_kl(one_scale, prior).shape == [3]
    assert closed_form_kl(tfd.Independent(tfd.Laplace(loc, scale), 1), prior) is None


def test_a_model_of_it_keeps_its_kl():
    prior = priors.FirstOrderAutoregressive(2, correlation=0.9)
    vae = linear_gaussian.vae(prior=prior, seed=0)
    x, _ = linear_gaussian.rows(50)
    vae.compile(jit_compile=True)
    vae.fit(x, epochs=1, verbose=0)
    assert vae.evaluate(x, verbose=0, return_dict=True)["kl"] > prior.least_kl


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"correlation": 1.0}, "correlation is 1.0, expected a number above -1, below 1"),
        ({"num_channels": 3}, "latent_dim is 4, expected a multiple of num_channels, 3"),
    ],
)
def test_what_is_no_chain_is_told(arguments, said):
    with pytest.raises(ValueError, match=said):
        priors.FirstOrderAutoregressive(4, **arguments)
