"""Families of a few values against TFP and their own probabilities."""

import decimal
import itertools

import numpy as np
import pytest
import tensorflow as tf
from scipy import special, stats
from tensorflow_probability import distributions as tfd

from tfvae import families
from tfvae.families import draws

N = 100_000


@pytest.mark.parametrize("jit_compile", [False, True])
def test_bernoulli_draws_each_pixel_by_its_probability(jit_compile):
    logits = np.array([-4.0, -0.5, 0.0, 3.0], np.float32)
    draw = tf.function(lambda seed: families.Bernoulli(logits=logits).sample(N, seed=seed), jit_compile=jit_compile)
    x, p = draw(tf.constant([3, 4])).numpy(), special.expit(logits.astype(np.float64))
    assert set(np.unique(x)) == {0.0, 1.0} and x.dtype == np.float32
    assert np.all(np.abs(x.mean(axis=0) - p) < 4 * np.sqrt(p * (1 - p) / N))
    assert np.abs(np.corrcoef(x.T) - np.eye(4)).max() < 5 / np.sqrt(N)
    assert stats.kstest(families.standard_uniform([N], [5, 6]), stats.uniform.cdf).pvalue > 1e-3


@pytest.mark.parametrize("logit", [-60.0, -3.0, 0.0, 2.5, 60.0])
def test_bernoulli_is_tfps_on_binary_and_grey_values(logit):
    x = np.array([0.0, 0.25, 1.0], np.float32)
    expected = tfd.Bernoulli(logits=np.float64(logit), dtype=tf.float64).log_prob(x.astype(np.float64))
    np.testing.assert_allclose(families.Bernoulli(logits=logit).log_prob(x), expected, rtol=1e-6, atol=1e-6)
    assert families.Bernoulli(logits=logit).sample(3).dtype == tf.float32


CUTS = np.array([-1.0, 0.3, 2.0], np.float32)


def ordered_log_prob(k: int, cuts: np.ndarray, loc: float) -> float:
    """log [σ(c_k - η) - σ(c_{k-1} - η)] in 80 digits."""
    with decimal.localcontext(prec=80):
        eta = decimal.Decimal(float(loc))
        below = [1 / (1 + (eta - decimal.Decimal(float(c))).exp()) for c in cuts]
        below = [decimal.Decimal(0), *below, decimal.Decimal(1)]
        return float((below[k + 1] - below[k]).ln())


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("loc", [-60.0, -16.0, -2.0, 0.0, 1.0, 18.0, 60.0])
def test_ordered_logistic_and_its_gradient_are_exact_far_from_the_cut_points(loc, jit_compile):
    @tf.function(jit_compile=jit_compile, autograph=False)
    def run(cuts, eta):
        with tf.GradientTape() as tape:
            tape.watch([cuts, eta])
            log_prob = families.OrderedLogistic(cuts, eta).log_prob(tf.range(4.0))
        return log_prob, tape.jacobian(log_prob, [cuts, eta], experimental_use_pfor=False)

    log_prob, (by_cuts, by_loc) = run(tf.constant(CUTS), tf.constant(loc))
    for k in range(4):
        np.testing.assert_allclose(log_prob[k], ordered_log_prob(k, CUTS, loc), rtol=2e-6, atol=1e-7)
        step = 1e-6
        slopes = [
            (ordered_log_prob(k, CUTS + step * e, loc) - ordered_log_prob(k, CUTS - step * e, loc)) / (2 * step)
            for e in np.eye(3)
        ]
        np.testing.assert_allclose(by_cuts[k], slopes, rtol=1e-3, atol=1e-5)
        slope = (ordered_log_prob(k, CUTS, loc + step) - ordered_log_prob(k, CUTS, loc - step)) / (2 * step)
        np.testing.assert_allclose(by_loc[k], slope, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    "make",
    [
        lambda: families.Categorical(np.array([[0.0, 1.0, -2.0, 0.5], [3.0, 0.0, 0.0, 0.0]], np.float32)),
        lambda: families.OrderedLogistic(CUTS, np.array([-0.5, 2.5], np.float32)),
    ],
)
def test_labels_are_drawn_by_their_probabilities_and_have_their_moments(make):
    p = make()
    assert p.batch_shape == [2] and p.event_shape == []
    pmf = np.exp([p.log_prob(float(k)) for k in range(4)]).T.astype(np.float64)  # [2, 4]
    np.testing.assert_allclose(pmf.sum(axis=1), 1.0, rtol=1e-6)
    draws = p.sample(N, seed=[1, 2]).numpy()
    for row in range(2):
        counts = np.bincount(draws[:, row].astype(int), minlength=4)
        assert stats.chisquare(counts, N * pmf[row] / pmf[row].sum()).pvalue > 1e-3
    values = np.arange(4)
    np.testing.assert_allclose(p.mean(), pmf @ values, rtol=1e-5)
    np.testing.assert_allclose(p.stddev(), np.sqrt(pmf @ values**2 - (pmf @ values) ** 2), rtol=1e-4)
    np.testing.assert_array_equal(p.mode(), np.argmax(pmf, axis=1))
    assert np.isneginf(p.log_prob([4.0, -1.0])).all()


def test_categorical_is_tfps():
    logits = np.random.default_rng(0).normal(size=[3, 5]).astype(np.float32)
    np.testing.assert_allclose(
        families.Categorical(logits).log_prob([0.0, 2.0, 4.0]), tfd.Categorical(logits).log_prob([0, 2, 4]), rtol=1e-6
    )


def test_of_classes_grades_and_rankings_the_likeliest_is_told_and_of_indicators_the_probabilities():
    """Between two likely classes there is no class; what is told is one that the density scores highest."""
    rng, k = np.random.default_rng(0), np.arange(4.0, dtype=np.float32)
    logits = rng.normal(size=[50, 2, 4]).astype(np.float32)
    classes = tfd.Independent(families.Categorical(logits), 1)
    grades = tfd.Independent(families.OrderedLogistic(CUTS, rng.normal(size=[50, 2]).astype(np.float32)), 1)
    for p in (classes, grades, families.Observed(grades.distribution, 1, inside=0.0)):
        scores = np.stack([p.distribution.log_prob(one) for one in k], axis=-1)
        np.testing.assert_array_equal(draws.mean(p), scores.argmax(axis=-1))
    np.testing.assert_array_equal(draws.mean(families.Mixed([classes, grades]))[:, :2], logits.argmax(axis=-1))
    ranking = tfd.PlackettLuce(np.exp(logits[:, 0]))
    orders = np.float32(list(itertools.permutations(range(4))))
    scores = np.stack([ranking.log_prob(one.astype(np.int32)) for one in orders], axis=-1)
    np.testing.assert_array_equal(draws.mean(ranking), orders[scores.argmax(axis=-1)])
    shares = draws.mean(families.OneHotCategorical(logits=logits[:, 0]))
    np.testing.assert_allclose(shares, special.softmax(logits[:, 0], axis=-1), rtol=1e-5)
