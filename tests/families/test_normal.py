"""Normals of low rank and mixtures of normals against SciPy, scikit-learn's formulae and quadrature."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import special, stats
from tensorflow_probability import distributions as tfd

import tfvae
from tfvae import DistributionLayer, divergences, families, networks, posteriors, priors
from tfvae.families import draws

RNG = np.random.default_rng(0)
LOC, D_FACTOR = RNG.normal(size=[2, 4]).astype(np.float32), RNG.uniform(0.2, 2.0, size=[2, 4]).astype(np.float32)
V = RNG.normal(size=[2, 4, 2]).astype(np.float32)


def test_a_truncated_normal_s_kl_to_a_uniform_prior_is_that_of_quadrature():
    for loc, scale in ((0.0, 0.1), (0.95, 0.3), (-0.5, 1.0), (0.2, 8.0)):
        q = tfd.Independent(tfd.TruncatedNormal([loc, -loc], scale, -1.0, 1.0), 1)
        z = np.linspace(-1.0, 1.0, 200_001)
        density = stats.truncnorm((-1 - loc) / scale, (1 - loc) / scale, loc, scale).pdf(z)
        expected = 2 * np.trapezoid(special.xlogy(density, 2 * density), z)
        p = priors.Family("Uniform", [2], low=-1.0, high=1.0)()
        np.testing.assert_allclose(divergences.closed_form_kl(q, p), expected, rtol=1e-3, atol=2e-5)
    smaller = priors.Family("Uniform", [2], low=-1.0, high=0.5)()
    assert np.isposinf(divergences.closed_form_kl(q, smaller))


@pytest.mark.parametrize(
    ("make", "prior"),
    [
        (posteriors.truncated_normal, lambda: priors.Family("Uniform", [3], low=-1.0, high=1.0)),
        (posteriors.power_spherical, lambda: priors.Family("SphericalUniform", [3])),
    ],
)
def test_posteriors_of_a_box_and_of_a_sphere_have_an_exact_kl(make, prior):
    vae = tfvae.VAE(networks.mlp([4]), networks.mlp([4]), make(3), DistributionLayer("Normal", [2]), prior(), seed=0)
    terms = vae.terms(RNG.normal(size=[5, 2]).astype(np.float32), 4000, seed=1)
    drawn = np.asarray(terms.log_posterior - terms.log_prior)
    assert terms.kl_is_exact
    assert (np.abs(drawn.mean(axis=0) - terms.kl) < 4.5 * drawn.std(axis=0) / np.sqrt(4000) + 1e-4).all()


def low_rank(v: np.ndarray = V) -> tfd.Distribution:
    return families.MultivariateNormalDiagPlusLowRankCovariance(LOC, D_FACTOR, v)


def covariances(v: np.ndarray = V) -> list[np.ndarray]:
    return [np.diag(d) + w @ w.T for d, w in zip(D_FACTOR.astype(float), v.astype(float), strict=True)]


def test_a_low_rank_normal_is_scipys():
    z = RNG.normal(size=[2, 4]).astype(np.float32)
    truth = [
        stats.multivariate_normal(m, c).logpdf(x) for m, c, x in zip(LOC, covariances(), z.astype(float), strict=True)
    ]
    np.testing.assert_allclose(low_rank().log_prob(z), truth, rtol=1e-4)
    noise = tf.constant(RNG.normal(size=[100_000, 1, 4]), tf.float32)
    for drawn in (low_rank().sample(100_000, seed=[1, 2]), draws.from_noise(low_rank(), noise)):
        for row in range(2):
            np.testing.assert_allclose(np.cov(drawn[:, row].numpy().T), covariances()[row], atol=0.1)


@pytest.mark.parametrize(
    "prior",
    [
        lambda: priors.StandardNormal(4)(),
        lambda: tfd.Independent(tfd.Normal([0.0, 1.0, -1.0, 0.5], [1.0, 0.5, 2.0, 1.5]), 1),
        lambda: tfd.MultivariateNormalDiag([0.0, 1.0, -1.0, 0.5], [1.0, 0.5, 2.0, 1.5]),
    ],
)
def test_its_kl_is_that_of_the_full_covariances(prior):
    p = prior()
    kl = divergences.closed_form_kl(low_rank(), p)
    scale_tril = np.linalg.cholesky(np.stack(covariances())).astype(np.float32)
    full = tfd.MultivariateNormalTriL(LOC, scale_tril)
    as_diagonal = tfd.MultivariateNormalDiag(p.mean(), p.stddev())
    np.testing.assert_allclose(kl, tfd.kl_divergence(full, as_diagonal), rtol=1e-4)
    zero = np.zeros_like(V)
    np.testing.assert_allclose(
        divergences.closed_form_kl(low_rank(zero), p),
        tfd.kl_divergence(tfd.MultivariateNormalDiag(LOC, np.sqrt(D_FACTOR)), as_diagonal),
        rtol=1e-4,
    )


@pytest.mark.slow
def test_a_model_trains_with_it():
    vae = tfvae.VAE(
        networks.mlp([8]), networks.mlp([8]),
        DistributionLayer("MultivariateNormalDiagPlusLowRankCovariance", [3], rank=2), DistributionLayer("Normal", [5]),
        seed=0,
    )  # fmt: skip
    vae.compile(keras.optimizers.Adam(0.01))
    x = np.random.default_rng(0).normal(size=[64, 5]).astype(np.float32)
    elbo = vae.fit(x, epochs=30, verbose=0).history["elbo"]
    assert elbo[-1] > elbo[0] and vae.terms(x, 2).kl_is_exact


def mixture(weight: tf.Tensor) -> tfd.Distribution:
    logits = tf.stack([tf.math.log(weight), tf.math.log(1.0 - weight)])
    return families.NormalMixture(logits, loc=[[-1.0], [2.0]], scale=[[0.5], [1.0]])


def test_a_mixture_is_the_sum_of_its_components():
    z = np.linspace(-3, 5, 21, dtype=np.float32)[:, None]
    truth = special.logsumexp(
        [np.log(0.3) + stats.norm(-1, 0.5).logpdf(z), np.log(0.7) + stats.norm(2, 1).logpdf(z)], axis=0
    )[:, 0]
    q = mixture(tf.constant(0.3))
    np.testing.assert_allclose(q.log_prob(z), truth, rtol=1e-5)
    drawn = np.ravel(q.sample(20_000, seed=[1, 2]))
    assert stats.kstest(drawn, lambda t: 0.3 * stats.norm(-1, 0.5).cdf(t) + 0.7 * stats.norm(2, 1).cdf(t)).pvalue > 1e-3


def test_the_gradient_of_a_draw_reaches_the_weights_of_a_mixture():
    """d E[z] / dπ = loc_0 - loc_1 = -3, d E[z²] / dπ = (1 + 0.25) - (4 + 1) = -3.75."""
    weight = tf.fill([20_000], 0.3)

    @tf.function(jit_compile=True, autograph=False)
    def gradients(weight):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(weight)
            logits = tf.stack([tf.math.log(weight), tf.math.log(1.0 - weight)], axis=-1)
            z = families.NormalMixture(logits, loc=[[-1.0], [2.0]], scale=[[0.5], [1.0]]).sample(seed=[1, 2])
            square = z**2
        return tape.gradient(z, weight), tape.gradient(square, weight)

    for found, truth in zip(gradients(weight), (-3.0, -3.75), strict=True):
        error = np.std(found) / np.sqrt(20_000)
        assert abs(np.mean(found) - truth) < 4 * error and error < 0.2


def test_stratified_draws_share_out_the_components_and_are_each_of_the_mixture():
    rows, k = 4000, 6
    logits = np.tile(np.log(np.float32([0.3, 0.7])), [rows, 1])
    loc, scale = np.float32([[-1.0], [2.0]]), np.float32([[0.5], [1.0]])

    def drawn(family, loc=loc):
        return np.ravel(family(logits, loc, scale).sample(k, seed=[1, 2])).reshape(k, rows)

    far = drawn(families.StratifiedNormalMixture, np.float32([[-100.0], [100.0]]))
    assert set(np.unique((far < 0).sum(0))) == {1, 2}  # 6 times 0.3, up or down
    assert abs((far < 0).sum(0).mean() - k * 0.3) < 4 * np.sqrt(0.8 * 0.2 / rows)
    z = drawn(families.StratifiedNormalMixture)
    for one in z:  # rows are independent
        cdf = lambda t: 0.3 * stats.norm(-1, 0.5).cdf(t) + 0.7 * stats.norm(2, 1).cdf(t)  # noqa: E731
        assert stats.kstest(one, cdf).pvalue > 1e-3
    # Of a row's mean: the variance within components, and between them that of one draw rounded up or down.
    within, between = 0.3 * 0.25 + 0.7 * 1.0, 9.0 * 0.8 * 0.2 / k**2
    assert np.var(z.mean(0)) == pytest.approx(within / k + between, rel=0.1)
    assert np.var(drawn(families.NormalMixture).mean(0)) == pytest.approx((within + 9.0 * 0.21) / k, rel=0.1)


def test_the_gradient_of_stratified_draws_is_that_of_the_mixtures_mean():
    weight = tf.fill([4000], 0.3)
    with tf.GradientTape() as tape:
        tape.watch(weight)
        logits = tf.stack([tf.math.log(weight), tf.math.log(1.0 - weight)], axis=-1)
        q = families.StratifiedNormalMixture(logits, loc=[[-1.0], [2.0]], scale=[[0.5], [1.0]])
        mean = tf.reduce_mean(q.sample(4, seed=[1, 2])[..., 0], axis=0)
    found = tape.gradient(mean, weight).numpy()
    assert abs(found.mean() + 3.0) < 4 * found.std() / np.sqrt(4000)
    layer = posteriors.normal_mixture(2, stratified=True)
    assert layer.describe().name == "StratifiedNormalMixture"


@pytest.mark.slow
def test_a_hypersphere_has_a_posterior_and_its_uniform_prior():
    vae = tfvae.VAE(
        networks.mlp([8]), networks.mlp([8]),
        DistributionLayer("PowerSpherical", [4]), DistributionLayer("Normal", [5]),
        prior=priors.Family("SphericalUniform", [4]), seed=0,
    )  # fmt: skip
    x = np.random.default_rng(0).normal(size=[16, 5]).astype(np.float32)
    terms = vae.terms(x, 500)
    assert terms.kl_is_exact
    estimate = np.mean(terms.log_posterior - terms.log_prior, axis=0)
    error = np.std(terms.log_posterior - terms.log_prior, axis=0) / np.sqrt(500)
    assert np.all(np.abs(estimate - terms.kl) < 4.5 * error)
    np.testing.assert_allclose(np.linalg.norm(terms.z, axis=-1), 1.0, rtol=1e-5)
    vae.compile(jit_compile=False)
    assert np.isfinite(vae.fit(x, epochs=2, verbose=0).history["elbo"]).all()
