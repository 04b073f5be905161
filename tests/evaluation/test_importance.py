"""log p(x) against models whose marginal likelihood is known exactly."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import stats
from scipy.special import logsumexp

import tfvae
from tfvae import VAE, DistributionLayer, evaluation, likelihoods, networks, posteriors
from tfvae.evaluation import importance

NOISE, SPREAD = 0.8, 0.7


def linear_gaussian(latent_dim: int, observed: int = 5, widen: float = 1.0) -> tuple[tfvae.VAE, np.ndarray, np.ndarray]:
    """A VAE with p(x|z) = N(W z + b, NOISE² I) and a posterior near the exact one; with it W and b."""
    vae = tfvae.VAE(
        encoder=keras.layers.Identity(),
        decoder=keras.layers.Identity(),
        posterior=tfvae.DistributionLayer("MultivariateNormalTriL", [latent_dim]),
        likelihood=tfvae.DistributionLayer("Normal", [observed], scale=NOISE),
        seed=1,
    )
    rng = np.random.default_rng(0)
    weights, bias = rng.normal(size=[observed, latent_dim]), rng.normal(size=[observed])
    vae.likelihood.projection.set_weights([weights.T, bias])
    # p(z|x) = N(S Wᵀ(x - b)/NOISE², S), S = (I + WᵀW/NOISE²)⁻¹
    covariance = np.linalg.inv(np.eye(latent_dim) + weights.T @ weights / NOISE**2)
    gain = covariance @ weights.T / NOISE**2
    cholesky = np.linalg.cholesky(covariance) * widen
    raw = vae.posterior._free[1]._bijector.inverse(tf.constant(cholesky, tf.float32)).numpy()
    kernel = np.concatenate([gain.T, np.zeros([observed, raw.size])], axis=1)
    vae.posterior.projection.set_weights([kernel, np.concatenate([-gain @ bias, raw])])
    return vae, weights, bias


def exact_log_marginal(x: np.ndarray, weights: np.ndarray, bias: np.ndarray) -> np.ndarray:
    covariance = weights @ weights.T + NOISE**2 * np.eye(len(bias))
    return stats.multivariate_normal(bias, covariance).logpdf(x)


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return np.random.default_rng(2).normal(size=[37, 5], scale=2.0).astype(np.float32)


@pytest.mark.xla
@pytest.mark.parametrize("latent_dim", [2, 3])
def test_log_marginal_is_exact_on_a_linear_gaussian_model(x, latent_dim):
    vae, weights, bias = linear_gaussian(latent_dim, widen=1.3)
    exact = exact_log_marginal(x, weights, bias)
    estimate = evaluation.log_marginal(vae, x, num_samples=5001, batch_size=16)
    np.testing.assert_allclose(estimate.log_marginal, exact, atol=0.05)
    # The errors are as large as the standard error says, and no larger.
    z = (estimate.log_marginal - exact) / estimate.standard_error
    assert 0.5 < np.std(z) < 1.6
    # Equation 1: the gap of the ELBO is KL(q‖p(z|x)), here that of a normal widened by 1.3 in each direction.
    gap = exact - vae.elbo(x, num_samples=20_000).numpy()
    np.testing.assert_allclose(gap, latent_dim * (1.3**2 / 2 - 0.5 - np.log(1.3)), atol=0.1)


def test_an_exact_posterior_needs_one_sample(x):
    vae, weights, bias = linear_gaussian(2)
    estimate = evaluation.log_marginal(vae, x, num_samples=2)
    np.testing.assert_allclose(estimate.log_marginal, exact_log_marginal(x, weights, bias), atol=1e-3)
    np.testing.assert_allclose(estimate.effective_sample_size, 2.0, atol=1e-3)
    np.testing.assert_allclose(estimate.standard_error, 0.0, atol=0.02)


def test_chunks_and_partial_batches_cover_every_sample_once(x, monkeypatch):
    """A wide posterior's estimate is biased by about -Var/2K: a sample lost or counted twice would show."""
    vae, weights, bias = linear_gaussian(2, widen=2.0)
    exact = exact_log_marginal(x, weights, bias)
    one_chunk = evaluation.log_marginal(vae, x, num_samples=1000)
    monkeypatch.setattr(evaluation.importance, "_FLOATS_AT_ONCE", 5 * 10 * 7)  # chunks of 7 samples, the last of 6
    chunks = evaluation.log_marginal(vae, x, num_samples=1000, batch_size=10)
    for estimate in (one_chunk, chunks):
        assert estimate.log_marginal.shape == (37,)
        assert abs(np.mean(estimate.log_marginal - exact)) < 4 * np.mean(estimate.standard_error) / np.sqrt(37)
    np.testing.assert_allclose(
        np.mean(one_chunk.effective_sample_size), np.mean(chunks.effective_sample_size), rtol=0.1
    )


def test_log_marginal_repeats_under_a_seed_and_reports_progress(x):
    vae, _, _ = linear_gaussian(2, widen=1.5)
    done: list[int] = []
    first = evaluation.log_marginal(vae, x, num_samples=20, batch_size=16, seed=3, progress=done.append)
    again = evaluation.log_marginal(vae, x, num_samples=20, batch_size=16, seed=3)
    other = evaluation.log_marginal(vae, x, num_samples=20, batch_size=16, seed=4)
    np.testing.assert_array_equal(first.log_marginal, again.log_marginal)
    assert np.any(first.log_marginal != other.log_marginal)
    assert done == [16, 32, 37]


def test_the_summary_is_the_mean_over_rows():
    estimate = evaluation.MarginalEstimate(np.array([1.0, 2.0, 6.0]), np.zeros(3), np.ones(3))
    assert estimate.mean == 3.0
    assert estimate.mean_standard_error == pytest.approx(np.std([1, 2, 6], ddof=1) / np.sqrt(3))


def test_one_row_says_nothing_of_others():
    one = evaluation.MarginalEstimate(np.array([-3.0]), np.array([0.04]), np.array([50.0]))
    assert (one.mean, one.mean_standard_error, one.trusted_standard_error) == (-3.0, None, None)
    assert str(one) == "-3.00 nats of one row"


@pytest.mark.parametrize(
    ("rows", "more", "message"),
    [
        (0, {}, "x has no rows"),
        (3, {"num_samples": 1}, "num_samples must be at least 2, received 1"),
        (3, {"num_samples": 2.5}, "num_samples must be a whole number of 2 or more, received 2.5"),
        (3, {"batch_size": 0}, "batch_size must be at least 1, received 0"),
    ],
)
def test_too_little_to_estimate_is_an_error(x, rows, more, message):
    vae, _, _ = linear_gaussian(2)
    with pytest.raises(ValueError, match=message):
        evaluation.log_marginal(vae, x[:rows], **more)


def test_rows_are_encoded_once_however_many_chunks_of_samples(x, monkeypatch):
    vae, _, _ = linear_gaussian(2)
    encoded = []
    monkeypatch.setattr(VAE, "encode", lambda self, *args, kept=VAE.encode: encoded.append(args) or kept(self, *args))
    monkeypatch.setattr(importance, "_FLOATS_AT_ONCE", 3 * x[:7].size)  # three samples at once
    found = evaluation.log_marginal(vae, x[:7], num_samples=8, batch_size=7)
    assert len(encoded) == 1
    seeds = [tf.random.experimental.stateless_fold_in(tf.constant([0, 0]), i) for i in range(3)]
    weights = np.concatenate([vae.log_weights(x[:7], 3, seed) for seed in seeds])[:8]
    np.testing.assert_allclose(found.log_marginal, logsumexp(weights, axis=0) - np.log(8), rtol=1e-5)


def test_active_units_counts_the_means_that_move():
    vae = tfvae.VAE(networks.mlp([3]), networks.mlp([3]), posteriors.diagonal_normal(4), likelihoods.normal([6]))
    kernel, bias = vae.posterior.projection.get_weights()
    kernel[:, 2:4] = 0.0  # the means of two units no longer depend on x
    vae.posterior.projection.set_weights([kernel * 5, bias])
    x = np.random.default_rng(0).normal(size=[200, 6]).astype(np.float32)
    assert evaluation.active_units(vae, x) == 2
    with pytest.raises(ValueError, match="one row, expected two or more"):
        evaluation.active_units(vae, x[:1])


def test_an_estimate_of_few_effective_samples_is_not_trusted():
    """q(z|x) far from p(z|x): the error of 20 samples is small and wrong, which is said."""
    keras.utils.set_random_seed(0)
    layer = DistributionLayer("Normal", [10], loc=3.0, scale=0.5)
    vae = VAE(networks.mlp([4]), networks.mlp([4]), layer, likelihoods.bernoulli([8]), seed=0)
    rows = np.eye(8, dtype=np.float32)
    with pytest.warns(UserWarning, match=r"rests on \d+\.\d effective samples of 20: it is a lower bound"):
        few = evaluation.log_marginal(vae, rows, num_samples=20)
    assert not few.is_trusted
    near = VAE(networks.mlp([4]), networks.mlp([4]), posteriors.diagonal_normal(1), likelihoods.bernoulli([8]), seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert evaluation.log_marginal(near, rows, num_samples=100).is_trusted


@pytest.mark.slow
def test_weights_of_rows_that_are_no_numbers_are_told_once():
    """By what is behind them, and not by effective samples, which there are none of."""
    decoder = keras.layers.Lambda(lambda z: z * np.nan)
    vae = VAE(networks.mlp([4]), decoder, posteriors.diagonal_normal(8), likelihoods.bernoulli([8]), seed=0)
    with pytest.warns(UserWarning, match="numbers that the model gives are NaN or infinite") as told:
        evaluation.log_marginal(vae, np.eye(8, dtype=np.float32), num_samples=30)
    assert len(told) == 1


@pytest.mark.parametrize(("scale", "trusted"), [(0.8, True), (0.35, False)])
def test_a_tail_too_heavy_is_not_trusted_however_many_samples_it_has(scale, trusted):
    """q = N(0, s²) for p(z|x) = N(0, 1): weights have Pareto's tail of shape 1 - s², reached slowly."""
    vae = VAE(
        keras.layers.Identity(),
        keras.layers.Lambda(lambda z: 0 * z),
        DistributionLayer("Normal", [1], loc=0.0, scale=scale),
        likelihoods.bernoulli([8]),
        seed=0,
    )
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", UserWarning)
        found = evaluation.log_marginal(vae, np.tile(np.eye(8, dtype=np.float32), [8, 1]), num_samples=3000)
    assert np.median(found.effective_sample_size) > 10
    z = np.random.default_rng(0).normal(0, scale, [1000, 64])
    own = evaluation.pareto_shape(stats.norm.logpdf(z) - stats.norm.logpdf(z, 0, scale))
    assert found.median_pareto_shape == pytest.approx(np.median(own), abs=0.06)
    assert found.is_trusted == trusted and any("Pareto's k̂ 0.7" in str(one.message) for one in told) != trusted


def test_the_tail_is_of_the_model_s_own_weights_and_not_known_of_few(x, monkeypatch):
    vae = VAE(networks.mlp([4]), networks.mlp([4]), posteriors.diagonal_normal(2), likelihoods.normal(x.shape[1:]))
    monkeypatch.setattr(importance, "_FLOATS_AT_ONCE", 30 * x[:7].size)
    found = evaluation.log_marginal(vae, x[:7], num_samples=100, batch_size=7)
    seeds = [tf.random.experimental.stateless_fold_in(tf.constant([0, 0]), i) for i in range(3)]
    weights = np.concatenate([vae.log_weights(x[:7], 30, seed) for seed in seeds])  # the last chunk is not whole
    np.testing.assert_allclose(found.pareto_shape, evaluation.pareto_shape(weights), rtol=1e-3, atol=1e-3)
    with pytest.warns(UserWarning) as told:
        assert evaluation.log_marginal(vae, x[:7], num_samples=9).median_pareto_shape is None
    assert len(told) == 1 and "samples of 9: it is" in str(told[0].message)


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_where_x_has_no_density_log_p_is_minus_infinity_on_no_samples():
    found = evaluation.MarginalEstimate.of_sums(np.zeros(2), np.array([0.0, 4.0]), np.array([0.0, 10.0]), 2)
    assert found.log_marginal.tolist() == [-np.inf, np.log(2.0)]
    assert found.effective_sample_size.tolist() == [0.0, 1.6] and not np.isnan(found.standard_error).any()
