"""HMC against posteriors and marginal likelihoods that are known exactly."""

import importlib.util
import pathlib
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import special, stats

import tfvae
from tests import linear_gaussian
from tests.conformance import models
from tfvae import evaluation, likelihoods, networks, posteriors, priors
from tfvae.evaluation import appendix_d, hmc

_spec = importlib.util.spec_from_file_location("_exact", pathlib.Path(__file__).with_name("test_importance.py"))
exact = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(exact)


def observations(rows: int) -> np.ndarray:
    return np.random.default_rng(2).normal(size=[rows, 5], scale=2.0).astype(np.float32)


def exact_posterior(x: np.ndarray, weights: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The means ``[B, D]`` of p(z|x) and the Cholesky factor of its covariance."""
    precision = np.eye(weights.shape[1]) + weights.T @ weights / exact.NOISE**2
    mean = np.linalg.solve(precision, weights.T @ (x - bias).T / exact.NOISE**2).T
    return mean, np.linalg.cholesky(np.linalg.inv(precision))


def small_vae(latent_dim: int = 2) -> tfvae.VAE:
    parts = posteriors.diagonal_normal(latent_dim), likelihoods.bernoulli([8])
    return tfvae.VAE(networks.mlp([4]), networks.mlp([4]), *parts, seed=1)


def constant_vae() -> tfvae.VAE:
    """p(x|z) does not depend on z, so that p(z|x) = p(z), here on a simplex, and p(x) = p(x|z)."""
    vae = tfvae.VAE(
        keras.layers.Identity(),
        keras.layers.Identity(),
        tfvae.DistributionLayer("Dirichlet", [3]),
        tfvae.DistributionLayer("Normal", [5]),
        prior=priors.Family("Dirichlet", [3], concentration=[2.0, 3.0, 5.0]),
        seed=1,
    )
    for layer in (vae.likelihood, vae.posterior):
        layer.projection.set_weights([np.zeros_like(w) for w in layer.projection.get_weights()])
    return vae


@pytest.mark.xla
@pytest.mark.parametrize(("latent_dim", "num_leapfrog_steps"), [(2, 10), (3, 4)])
def test_draws_match_the_exact_posterior(latent_dim, num_leapfrog_steps):
    """From a start in a q(z|x) three times too wide, of which nothing may remain."""
    vae, weights, bias = exact.linear_gaussian(latent_dim, widen=3.0)
    x = observations(200)
    chain = hmc.sample_posterior(vae, x, 400, num_leapfrog_steps)
    assert chain.z.shape == (400, 200, latent_dim)
    mean, cholesky = exact_posterior(x, weights, bias)
    noise = np.linalg.solve(cholesky, (chain.z.numpy() - mean)[..., None])[..., 0]  # N(0, I) if the draws are right
    np.testing.assert_allclose(noise.mean(axis=(0, 1)), 0.0, atol=0.03)
    np.testing.assert_allclose(np.einsum("sbi,sbj->ij", noise, noise) / (400 * 200), np.eye(latent_dim), atol=0.03)
    # Every row for itself: no chain has stuck, circled or run in another row's posterior.
    assert np.abs(noise.mean(axis=0)).max() < 0.7
    assert noise.std(axis=0).min() > 0.6
    assert noise.std(axis=0).max() < 1.5
    assert np.mean(chain.acceptance_rate) == pytest.approx(0.9, abs=0.03)
    assert np.abs(chain.acceptance_rate - 0.9).max() < 0.12
    # log p(x, z), which the chain hands on, is that of its own draws.
    log_joint = stats.norm.logpdf(chain.z).sum(axis=-1)
    log_joint += stats.norm(chain.z.numpy() @ weights.T + bias, exact.NOISE).logpdf(x).sum(axis=-1)
    np.testing.assert_allclose(chain.log_joint, log_joint, rtol=1e-3, atol=1e-3)


def test_transitions_leave_the_posterior_as_it_is():
    """From exact draws, by steps so large that without rejections the distribution would widen."""
    vae, weights, bias = exact.linear_gaussian(2)
    x = observations(4000)
    mean, cholesky = exact_posterior(x, weights, bias)
    rng = np.random.default_rng(0)
    z = tf.constant(mean + rng.normal(size=mean.shape) @ cholesky.T, tf.float32)
    step_size = tf.fill([4000, 1], 0.45)

    @tf.function(jit_compile=True, autograph=False)
    def program(z):
        return hmc.continue_chain(vae, x, z, step_size, 20, 4, tf.constant([5, 6]))

    chain = program(z)
    assert 0.4 < np.mean(chain.acceptance_rate) < 0.93
    noise = np.linalg.solve(cholesky, (chain.z[-1].numpy() - mean)[..., None])[..., 0]
    np.testing.assert_allclose(noise.mean(axis=0), 0.0, atol=0.06)
    np.testing.assert_allclose(np.cov(noise.T), np.eye(2), atol=0.09)
    started = np.linalg.solve(cholesky, (z.numpy() - mean)[..., None])[..., 0]
    assert abs(np.mean(noise * started)) < 0.1  # the chains have moved on from where they stood
    np.testing.assert_array_equal(program(z).z, chain.z)
    np.testing.assert_array_equal(chain.step_size, step_size)


@pytest.mark.slow
def test_a_bounded_prior_is_sampled_in_a_space_without_bounds():
    vae, x = constant_vae(), observations(100)
    chain = hmc.sample_posterior(vae, x, 400, num_leapfrog_steps=4)
    assert chain.u.shape == (400, 100, 2)
    np.testing.assert_allclose(np.sum(chain.z, axis=-1), 1.0, atol=1e-5)
    prior = stats.dirichlet([2.0, 3.0, 5.0])
    draws = chain.z.numpy().reshape(-1, 3)
    np.testing.assert_allclose(draws.mean(axis=0), prior.mean(), atol=0.01)
    np.testing.assert_allclose(draws.var(axis=0), prior.var(), rtol=0.06)
    # Appendix D in the space without bounds: the Jacobian belongs to log p(x, u).
    bandwidth = appendix_d._bandwidth(chain.u[:200], appendix_d._BANDWIDTHS["kde"])
    log_weight = appendix_d._log_density(chain.u[200:], chain.u[:200], bandwidth) - chain.log_joint[200:]
    estimate = np.log(200) - special.logsumexp(log_weight, axis=0)
    known = vae.decode(tf.fill([100, 3], 1 / 3)).log_prob(x)
    assert np.mean(estimate - known) == pytest.approx(0.0, abs=0.05)


@pytest.mark.slow
def test_a_useless_encoder_leaves_no_chain_stuck():
    """q(z|x) lies almost wholly on the rim of the simplex, where float32 knows no density."""
    vae, x = constant_vae(), observations(50)
    kernel, bias = vae.posterior.projection.get_weights()
    vae.posterior.projection.set_weights([kernel, bias - 1.5])  # concentrations of 0.2
    for seed in range(3):
        done: list[int] = []
        chain = hmc.sample_posterior(vae, x, 50, num_leapfrog_steps=4, seed=seed, progress=done.append)
        assert done == sorted({*done}) and done[-1] == 350
        assert np.all(np.isfinite(chain.log_joint)) and np.all(np.isfinite(chain.step_size))
        assert np.min(chain.acceptance_rate) > 0.5


class TwoBumps(keras.layers.Layer):
    """z to the mean of x: 1 at z = 1, 0.5 at z = -1, else about 0."""

    def call(self, z):
        return keras.ops.exp(-4 * (z - 1) ** 2) + 0.5 * keras.ops.exp(-4 * (z + 1) ** 2)


@pytest.mark.slow
def test_a_chain_starts_at_the_mode_that_counts_wherever_the_encoder_points():
    """p(z|x) has a poor mode at -1, where q(z|x) lies, and the one that makes up log p(x) at 1."""
    noise = 0.1
    vae = tfvae.VAE(
        keras.layers.Identity(),
        TwoBumps(),
        tfvae.DistributionLayer("Normal", [1], scale=0.05),
        tfvae.DistributionLayer("Normal", [1], scale=noise),
        seed=0,
    )
    x = np.linspace(0.9, 1.0, 5, dtype=np.float32)[:, None]
    vae.decode(vae.encode(x).sample(1))  # builds
    vae.posterior.projection.set_weights([np.zeros([1, 1]), np.full([1], -1.0)])
    vae.likelihood.projection.set_weights([np.ones([1, 1]), np.zeros([1])])
    z = np.linspace(-6, 6, 200_001)
    mean = np.exp(-4 * (z - 1) ** 2) + 0.5 * np.exp(-4 * (z + 1) ** 2)
    density = stats.norm.pdf(z) * stats.norm.pdf(x, mean, noise)
    known = np.log(density.sum(axis=1) * (z[1] - z[0]))
    estimate = evaluation.hmc_log_marginal(vae, x, 400)
    np.testing.assert_allclose(estimate.log_marginal, known, atol=0.1)


@pytest.mark.xla
@pytest.mark.slow
@pytest.mark.parametrize(("latent_dim", "density"), [(2, "normal"), (3, "kde")])
def test_the_marginal_is_exact_on_a_linear_gaussian_model(latent_dim, density):
    vae, weights, bias = exact.linear_gaussian(latent_dim, widen=1.3)
    x, done = observations(90), []
    estimate = evaluation.hmc_log_marginal(vae, x, 400, density=density, batch_size=64, progress=done.append)
    error = estimate.log_marginal - exact.exact_log_marginal(x, weights, bias)
    assert done == [64, 90]
    assert error.shape == (90,)
    assert abs(np.mean(error)) < 0.02
    assert np.mean(np.abs(error)) < 0.05
    assert np.abs(error).max() < 0.5
    # Half of a t distribution's errors (4 degrees of freedom) lie within 0.74; a slow chain's are larger.
    assert 0.45 < np.median(np.abs(error / estimate.standard_error)) < 1.3
    assert np.mean(estimate.acceptance_rate) == pytest.approx(0.9, abs=0.03)
    assert np.all((estimate.effective_sample_size > 20) & (estimate.effective_sample_size <= 200.01))


def test_the_density_keeps_mean_and_covariance_and_at_its_widest_is_the_normal():
    rng = np.random.default_rng(0)
    draws = (rng.normal(size=[30, 2, 3]) @ rng.normal(size=[3, 3])).astype(np.float32)
    points = rng.normal(size=[7, 2, 3]).astype(np.float32)
    for h in (1.0, 0.4):
        found = appendix_d._log_density(tf.constant(points), tf.constant(draws), tf.constant([h, h])).numpy()
        for row in range(2):
            mean, covariance = draws[:, row].mean(axis=0), np.cov(draws[:, row].T)
            centres = mean + np.sqrt(1 - h**2) * (draws[:, row] - mean)
            kernels = [stats.multivariate_normal(c, h**2 * covariance).logpdf(points[:, row]) for c in centres]
            log_q = special.logsumexp(kernels, axis=0) - np.log(30)
            np.testing.assert_allclose(found[:, row], log_q, rtol=2e-3, atol=1e-3)


def test_the_bandwidth_follows_the_shape_of_the_posterior():
    rng = np.random.default_rng(0)
    normal = rng.normal(size=[400, 20, 2])
    two_peaks = normal * 0.1 + rng.choice([-1, 1], size=[400, 20, 1])
    draws = tf.constant(np.concatenate([normal, two_peaks], axis=1), tf.float32)
    bandwidth = appendix_d._bandwidth(draws, appendix_d._BANDWIDTHS["kde"]).numpy()
    assert np.median(bandwidth[:20]) > 0.5
    assert np.max(bandwidth[20:]) < 0.35


@pytest.mark.slow
def test_the_marginal_repeats_under_a_seed():
    program = appendix_d._reciprocal_mean(small_vae(), 16, 4, 5, (0.5, 1.0))
    x = tf.constant(np.eye(8, dtype=np.uint8) * 255)
    first, again, other = (program(x, tf.constant([seed, 0]))[0].numpy() for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert np.all(first != other)


def test_many_dimensions_warn(monkeypatch):
    answers = (tf.zeros([8]),) * 4
    monkeypatch.setattr(appendix_d, "_reciprocal_mean", lambda *settings: lambda x, seed: answers)
    x = np.eye(8, dtype="float32")
    with pytest.warns(UserWarning, match=r"6 dimensions.*evaluation\.log_marginal"):
        evaluation.hmc_log_marginal(small_vae(6), x, 48)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluation.hmc_log_marginal(small_vae(5), x, 48)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_samples": 0}, "num_samples must be at least 1"),
        ({"num_samples": 15}, "needs 16 draws at least, received num_samples=15"),
        ({"num_leapfrog_steps": 0}, "num_leapfrog_steps must be at least 1, received 0"),
        ({"num_burnin_steps": -1}, "num_burnin_steps must be at least 0"),
        ({"density": "histogram"}, "one of kde, normal, received 'histogram'"),
        ({"x": np.zeros([0, 8])}, "x has no rows"),
        ({"x": np.zeros([3, 7])}, r"expected \(N, 8\)"),
    ],
)
def test_wrong_settings_say_what_is_wrong(settings, message):
    with pytest.raises(ValueError, match=message):
        evaluation.hmc_log_marginal(small_vae(), **{"x": np.zeros([3, 8]), **settings})


def test_a_wrong_target_is_an_error():
    with pytest.raises(ValueError, match=r"between 0 and 1, received 90"):
        hmc.sample_posterior(small_vae(), np.zeros([3, 8]), 5, target_accept=90)


@pytest.mark.parametrize("name", sorted(models.PRIORS))
def test_each_prior_of_real_numbers_can_be_walked(name):
    vae = linear_gaussian.vae(prior=models.PRIORS[name]())
    z = hmc.unbounded(vae, vae.batch(models.X)).forward(tf.constant([[0.5, -1.0]]))
    assert z.shape == [1, 2] and np.isfinite(z).all()
