"""Probabilities of counts against fifty digits, where the textbook's forms have lost theirs in float32."""

import itertools
import operator

import mpmath
import numpy as np
import pytest
import tensorflow as tf

from tfvae import families
from tfvae.families import saddle_points

mpmath.mp.dps = 50
SIZES = [1e-30, 1e-4, 0.02, 1.0, 2.9, 3.0, 50.0, 1e4, 1e7, 1e30]
LOG_MEANS = [-60.0, -1.0, 0.0, 5.0, 11.5, 16.0, 85.0]
COUNTS = [0.0, 1.0, 2.0, 3.0, 30.0, 1e5, 1e7]
VECTORS = [(5, 30), (5, 100_000), (400, 1_000_000)]


def exactly(values) -> list[mpmath.mpf]:
    return [mpmath.mpf(float(value)) for value in values]


def off(found, truth: mpmath.mpf) -> float:
    """The error, in units of the larger of 1 and the truth."""
    return abs(float(found) - float(truth)) / max(1.0, abs(float(truth)))


def log_negative_binomial(x, log_mean, size) -> mpmath.mpf:
    mean = mpmath.exp(log_mean)
    ways = mpmath.loggamma(x + size) - mpmath.loggamma(size) - mpmath.loggamma(x + 1)
    return ways + x * mpmath.log(mean / (size + mean)) + size * mpmath.log(size / (size + mean))


def log_multinomial(x, shares) -> mpmath.mpf:
    ways = mpmath.loggamma(sum(x) + 1) - sum(mpmath.loggamma(count + 1) for count in x)
    return ways + sum(count * mpmath.log(share / sum(shares)) for count, share in zip(x, shares, strict=True))


def log_dirichlet_multinomial(x, alpha) -> mpmath.mpf:
    def rising(start, by):
        return mpmath.loggamma(start + by) - mpmath.loggamma(start)

    ways = mpmath.loggamma(sum(x) + 1) - sum(mpmath.loggamma(count + 1) for count in x)
    return ways + sum(map(rising, alpha, x)) - rising(sum(alpha), sum(x))


def test_a_negative_binomial_is_exact_at_any_mean_and_size():
    grid = np.float32(list(itertools.product(COUNTS, LOG_MEANS, SIZES)))
    found = saddle_points.log_negative_binomial(*map(tf.constant, grid.T)).numpy()
    compiled = tf.function(saddle_points.log_negative_binomial, jit_compile=True)(*map(tf.constant, grid.T)).numpy()
    truth = [log_negative_binomial(*exactly(point)) for point in grid]
    assert max(map(off, found, truth)) < 1e-5
    assert max(map(off, compiled, truth)) < 1e-5


def slope_of_truth(point: list[mpmath.mpf], which: int) -> float:
    def along(value):
        return log_negative_binomial(*point[:which], value, *point[which + 1 :])

    return float(mpmath.diff(along, point[which], relative=True))


@pytest.mark.parametrize("size", SIZES[1:-1])
@pytest.mark.parametrize("log_mean", [-1.0, 5.0, 11.5])
def test_the_slopes_of_a_negative_binomial_are_those_of_fifty_digits(size, log_mean):
    x = tf.constant([0.0, 2.0, 100.0, 90_000.0])
    given = tf.fill([4], log_mean), tf.fill([4], size)
    with tf.GradientTape() as tape:
        tape.watch(given)
        found = saddle_points.log_negative_binomial(x, *given)
    for which, slopes in enumerate(tape.gradient(found, given)):
        for count, slope in zip(exactly(x), slopes.numpy(), strict=True):
            point = [count, *exactly(values[0] for values in given)]
            truth = slope_of_truth(point, which + 1)
            # a slope in r is a difference of logarithms, of which float32 keeps six digits
            assert abs(slope - truth) <= 1e-4 * abs(truth) + 1e-5 * (1.0 if which else float(count) ** 0.5 + 1.0)


@pytest.mark.parametrize("compiled", [False, True])
def test_slopes_stay_finite_and_right_at_the_ends_of_float32(compiled):
    """Of means up to e^85 the slope is that of μ^-r; of sizes down to 1e-30 that of r times what x has."""

    @tf.function(jit_compile=compiled, autograph=False)
    def slopes(x, log_mean, size):
        with tf.GradientTape() as tape:
            tape.watch([log_mean, size])
            found = saddle_points.log_negative_binomial(x, log_mean, size)
        return tape.gradient(found, [log_mean, size])

    x, log_mean, size = map(tf.constant, np.float32([*itertools.product([0, 10, 1e5], [45, 70, 85], [1, 1e3])]).T)
    np.testing.assert_allclose(slopes(x, log_mean, size)[0], -size, rtol=1e-5)
    tiny = np.float32([1e-10, 1e-20, 1e-30])
    of_mean, of_size = slopes(tf.fill([3], 3.0), tf.math.log(tiny), tf.constant(tiny))  # a probability of ½
    np.testing.assert_allclose(of_size + of_mean / tiny, 1 / tiny, rtol=1e-5)
    assert all(np.isfinite(slope).all() for slope in slopes(tf.zeros(3), tf.math.log(tiny), tf.constant(tiny)))


@pytest.mark.parametrize(("words", "total"), VECTORS)
def test_a_multinomial_is_exact_for_large_totals(words, total):
    rng = np.random.default_rng(words)
    logits = rng.normal(scale=1.5, size=words).astype(np.float32)
    shares = np.exp(logits.astype(np.float64)) / np.exp(logits.astype(np.float64)).sum()
    x = rng.multinomial(total, shares).astype(np.float32)
    truth = log_multinomial(exactly(x), [mpmath.exp(value) for value in exactly(logits)])
    for p in (families.Multinomial(np.float32(total), logits=logits), families.BagOfWords(logits)):
        assert off(p.log_prob(x), truth) < 3e-5


@pytest.mark.parametrize("size", [0.5, 50.0, 1e4, 1e7])
@pytest.mark.parametrize(("words", "total"), VECTORS)
def test_a_dirichlet_multinomial_is_exact_for_large_totals_and_concentrations(words, total, size):
    rng = np.random.default_rng(words)
    alpha = (size * rng.dirichlet(np.ones(words))).astype(np.float32)
    x = rng.multinomial(total, rng.dirichlet(np.maximum(alpha, 1e-3))).astype(np.float32)
    truth = log_dirichlet_multinomial(exactly(x), exactly(alpha))
    for p in (families.DirichletMultinomial(np.float32(total), alpha), families.DirichletBagOfWords(alpha)):
        assert off(p.log_prob(x), truth) < 1e-5


@pytest.mark.parametrize("total", [0, 1, 30, 100_000, 1_000_000])
def test_successes_are_exact_for_large_totals(total):
    n, x = np.float32(total), np.float32([0, total // 3, (total + 1) // 2, total])
    for logit in np.float32([-4.0, 0.0, 3.0, 40.0]):
        shares = [mpmath.exp(float(logit)), mpmath.mpf(1)]
        truth = [log_multinomial([count, total - count], shares) for count in exactly(x)]
        assert max(map(off, families.Binomial(n, logits=logit).log_prob(x), truth)) < 1e-4
    for alpha in np.float32([[0.5, 0.5], [50, 20], [1e5, 3e5], [1e6, 1e6]]):
        truth = [log_dirichlet_multinomial([count, total - count], exactly(alpha)) for count in exactly(x)]
        assert max(map(off, families.BetaBinomial(n, *alpha).log_prob(x), truth)) < 1e-5


def test_a_negative_binomials_kin_are_exact_too():
    theta, logits = np.float32([0.5, 1e4, 1e7]), np.float32([12.0, 4.0, -2.0])
    zero = np.float32([-1.0, 57.5, -80.0])
    x = np.float32([1e5, 5e5, 1.3535e6])
    log_mean = [mpmath.log(r) + logit for r, logit in zip(exactly(theta), exactly(logits), strict=True)]
    truth = [log_negative_binomial(*point) for point in zip(exactly(x), log_mean, exactly(theta), strict=True)]
    assert max(map(off, families.NegativeBinomial(theta, logits=logits).log_prob(x), truth)) < 1e-5
    inflated = families.ZeroInflatedNegativeBinomial(
        inflated_loc_logits=zero, total_count=theta, logits=logits
    ).log_prob(x)
    counted = [-mpmath.log1p(mpmath.exp(2 * gate)) for gate in exactly(zero)]  # TFP's sigmoid is of twice the logit
    assert max(map(off, inflated, map(operator.add, truth, counted))) < 1e-5
