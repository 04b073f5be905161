"""Objectives of q(z): every estimate against the whole sum, NumPy's covariance, and two loops over all pairs."""

import itertools

import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfvae import divergences, objectives
from tfvae.objectives import DisentangledInferredPrior, Latent, MaximumMeanDiscrepancy, Terms, TotalCorrelation

RNG = np.random.default_rng(0)
K, N, D = 2, 5, 3
LOC, SCALE = RNG.normal(size=[N, D]).astype(np.float32), RNG.uniform(0.3, 1.5, size=[N, D]).astype(np.float32)
Z = np.float32(LOC + SCALE * RNG.normal(size=[K, N, D]))
LOG_LIKELIHOOD = RNG.normal(size=[K, N]).astype(np.float32)
PRIOR = tfd.Independent(tfd.Normal(tf.zeros([D]), 1.0), 1)
ROWS = np.arange(N)


def terms_of(rows, weights=None, seed=(1, 2), z=Z) -> Terms:
    """Terms of some of the rows."""
    rows = np.asarray(rows)
    q = tfd.Independent(tfd.Normal(tf.constant(LOC[rows]), tf.constant(SCALE[rows])), 1)
    z = tf.constant(z[:, rows])
    kl = divergences.closed_form_kl(q, PRIOR)
    latent = Latent(z, q, PRIOR, q.log_prob(z), PRIOR.log_prob(z), kl, True, q)
    weights = None if weights is None else tf.constant(weights, tf.float32)
    return Terms((latent,), tf.constant(LOG_LIKELIHOOD[:, rows]), weights, None, tf.constant(seed, tf.int32))


def objective(made, rows=ROWS, weights=None) -> np.ndarray:
    return made(terms_of(rows, weights)).objective.numpy().astype(np.float64)


# log q(z_d|x) of each z given each row, [K, N, N, D], and the mixtures over all rows, [K, N] and [K, N, D]
BY_UNIT = scipy.stats.norm(LOC, SCALE).logpdf(Z[:, :, np.newaxis].astype(np.float64))
LOG_Q = scipy.special.logsumexp(BY_UNIT.sum(axis=-1), axis=-1) - np.log(N)
LOG_MARGINALS = scipy.special.logsumexp(BY_UNIT, axis=-2) - np.log(N)
LOG_PRIOR = scipy.stats.norm.logpdf(Z.astype(np.float64)).sum(axis=-1)
LOG_POSTERIOR = np.stack([BY_UNIT[:, i, i].sum(axis=-1) for i in ROWS], axis=-1)


@pytest.mark.parametrize("stratified", [True, False])
def test_three_parts_of_weight_one_are_the_elbo_by_draws(stratified):
    for rows in (ROWS, [0, 3], [2]):
        whole = objectives.elbo_a(terms_of(rows)).bound
        made = TotalCorrelation(100, beta=1.0, stratified=stratified)
        np.testing.assert_allclose(objective(made, rows), whole, rtol=1e-5, atol=1e-5)


def test_of_the_whole_data_each_part_is_exact():
    parts = {
        "alpha": LOG_POSTERIOR - LOG_Q,
        "beta": LOG_Q - LOG_MARGINALS.sum(axis=-1),
        "gamma": LOG_MARGINALS.sum(axis=-1) - LOG_PRIOR,
    }
    for name, part in parts.items():
        one = {"alpha": 0.0, "beta": 0.0, "gamma": 0.0, name: 2.0}
        paid = LOG_LIKELIHOOD.mean(axis=0) - objective(TotalCorrelation(N, **one))
        np.testing.assert_allclose(paid, 2.0 * part.mean(axis=0), rtol=1e-4, atol=1e-5)


def test_stratified_densities_are_unbiased_over_all_batches():
    """Of each z the mean of q(z), over every batch of 3 of the 5 rows that holds its own, is the mixture itself."""
    made = TotalCorrelation(N)
    for i in ROWS:
        found = []
        for batch in itertools.combinations(ROWS, 3):
            if i in batch:
                weights = np.exp(made._log_weights(terms_of(batch)).numpy())[batch.index(i)]
                np.testing.assert_allclose(weights.sum(), 1.0, rtol=1e-6)
                found.append((weights * np.exp(BY_UNIT[:, i, list(batch)].sum(axis=-1))).sum(axis=-1))
        np.testing.assert_allclose(np.mean(found, axis=0), np.exp(LOG_Q[:, i]), rtol=1e-5)


def test_minibatch_weights_are_those_of_the_paper():
    found = objective(TotalCorrelation(100, beta=4.0, alpha=0.0, gamma=0.0, stratified=False))
    shift = np.log(N) - np.log(100 * N)  # 1 / (N B) in place of 1 / B
    correlation = (LOG_Q + shift) - (LOG_MARGINALS + shift).sum(axis=-1)
    np.testing.assert_allclose(found, (LOG_LIKELIHOOD - 4.0 * correlation).mean(axis=0), rtol=1e-4, atol=1e-4)


MADE = [
    TotalCorrelation(50, beta=3.0),
    TotalCorrelation(50, beta=3.0, stratified=False),
    DisentangledInferredPrior(),
    DisentangledInferredPrior(2.0, of_means=False),
]


@pytest.mark.parametrize("made", MADE)
def test_rows_that_fill_the_batch_do_not_count(made):
    filled = objective(made, [0, 1, 2, 4, 4], [1, 1, 1, 0, 0])[:3]
    np.testing.assert_allclose(filled, objective(made, [0, 1, 2]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("made", [*MADE, MaximumMeanDiscrepancy()])
def test_filled_batches_have_finite_gradients(made):
    loc = tf.Variable(LOC)
    with tf.GradientTape() as tape:
        q = tfd.Independent(tfd.Normal(loc, tf.constant(SCALE)), 1)
        z = loc + SCALE * tf.constant((Z - LOC) / SCALE)
        latent = Latent(z, q, PRIOR, q.log_prob(z), PRIOR.log_prob(z), divergences.closed_form_kl(q, PRIOR), True, q)
        weights = tf.constant([1.0, 1.0, 0.0, 0.0, 0.0])
        terms = Terms((latent,), tf.constant(LOG_LIKELIHOOD), weights, None, tf.constant([1, 2]))
        loss = tf.reduce_sum(weights * made(terms).objective)
    gradient = tape.gradient(loss, loc).numpy()
    assert np.isfinite(gradient).all() and np.abs(gradient[:2]).max() > 1e-3
    np.testing.assert_array_equal(gradient[2:], 0.0)


@pytest.mark.parametrize("of_means", [True, False])
def test_dip_s_penalty_is_that_of_numpy_s_covariance(of_means):
    made = DisentangledInferredPrior(3.0, of_means=of_means)
    assert made.diagonal == (30.0 if of_means else 3.0)
    covariance = np.cov(LOC.T.astype(np.float64), ddof=0)
    if not of_means:
        covariance += np.diag((SCALE.astype(np.float64) ** 2).mean(axis=0))
    on, off = np.diag(covariance), covariance - np.diag(np.diag(covariance))
    penalty = 3.0 * (off**2).sum() + made.diagonal * ((on - 1) ** 2).sum()
    elbo = objectives.elbo(terms_of(ROWS)).bound
    np.testing.assert_allclose(objective(made), elbo - penalty, rtol=1e-4)


def mmd(z: np.ndarray, weights=None, seed=(1, 2)) -> float:
    made = MaximumMeanDiscrepancy(mmd_weight=1.0, kl_weight=0.0)(terms_of(ROWS, weights, seed, z))
    return float(np.mean(LOG_LIKELIHOOD.mean(axis=0) - made.objective))


def by_pairs(one: np.ndarray, other: np.ndarray, skip: bool) -> float:
    pairs = [(a, b) for i, a in enumerate(one) for j, b in enumerate(other) if not (skip and i == j)]
    kernel = [
        sum(2 * D * s / (2 * D * s + ((a - b) ** 2).sum()) for s in (0.1, 0.2, 0.5, 1, 2, 5, 10)) for a, b in pairs
    ]
    return float(np.mean(kernel))


@pytest.mark.parametrize("counted", [N, 3])
def test_mmd_is_that_of_all_pairs(counted):
    drawn = PRIOR.sample([K, N], seed=tf.constant([1, 2], tf.int32)).numpy().astype(np.float64)
    expected = np.mean(
        [
            by_pairs(z, z, True) + by_pairs(p, p, True) - 2 * by_pairs(z, p, False)
            for z, p in zip(Z[:, :counted].astype(np.float64), drawn[:, :counted], strict=True)
        ]
    )
    np.testing.assert_allclose(mmd(Z, [1.0] * counted + [0.0] * (N - counted)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_mmd_of_the_prior_with_itself_is_zero_in_the_mean():
    draws = np.random.default_rng(1).normal(size=[300, K, N, D]).astype(np.float32)
    found = np.array([mmd(z, seed=(3, i)) for i, z in enumerate(draws)])
    assert abs(found.mean()) < 4 * found.std(ddof=1) / np.sqrt(len(found))
    assert found.min() < 0 < found.max()
    assert np.mean([mmd(z + 1.5, seed=(3, i)) for i, z in enumerate(draws[:30])]) > 1.0


def test_what_cannot_be_estimated_is_said():
    tied = tfd.MultivariateNormalTriL(tf.zeros([N, D]), tf.eye(D))
    z = tf.constant(Z)
    latent = Latent(z, tied, PRIOR, tied.log_prob(z), PRIOR.log_prob(z), tf.zeros([N]), True, tied)
    with pytest.raises(ValueError, match=r"ties its units together: take posteriors\.diagonal_normal"):
        TotalCorrelation(10)(Terms((latent,), tf.constant(LOG_LIKELIHOOD)))
    for bad in (lambda: TotalCorrelation(0), lambda: TotalCorrelation(5, beta=-1.0)):
        with pytest.raises(ValueError, match=r"expected|must be"):
            bad()
    for bad in (lambda: DisentangledInferredPrior(-1.0), lambda: MaximumMeanDiscrepancy(-0.5)):
        with pytest.raises(ValueError, match="expected 0 or more"):
            bad()
