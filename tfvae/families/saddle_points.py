"""log P(x) of counts by their saddle points, exact in float32 for large ones too.

The textbook's x log λ - λ - log x! is a difference of numbers a million times its size. As Loader writes it (Fast and
Accurate Computation of Binomial Probabilities, 2000) it is -x (e^t - 1 - t) - ½ log(2πx) - δ(x) with t = log λ - log x
and Stirling's error δ(y) = log Γ(y + 1) - (y + ½) log y + y - ½ log 2π: nothing here is large where log p is not.
Every other family of counts is a Poisson or a negative binomial in this form, or a ratio of them.
"""

import math

import tensorflow as tf

_SERIES = 0.25  # below, e^t - 1 - t by its series
# δ(1) and δ(2), for which its series is too short
_STIRLING = [1.0 - 0.5 * math.log(2.0 * math.pi), 2.0 - 1.5 * math.log(2.0) - 0.5 * math.log(2.0 * math.pi)]


def log_poisson(x: tf.Tensor, log_rate: tf.Tensor) -> tf.Tensor:
    """log P(x) of a count x = 0, 1, 2, ... under a Poisson of rate e^log_rate, nats.

    Example:
        >>> round(float(log_poisson(tf.constant(2.0), tf.constant(0.0))), 4)  # log(e⁻¹ / 2)
        -1.6931
    """
    some = tf.maximum(x, 1.0)
    t = log_rate - tf.math.log(some)
    away = some * _excess(t, tf.math.expm1(t))
    return tf.where(x < 0.5, -tf.exp(log_rate), -away - log_peak(some))


def log_negative_binomial(x: tf.Tensor, log_mean: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """log P(x) of a count of that mean μ and of variance μ + μ²/r, nats.

    -x ε(t + log μ - log x) - r ε(t) - ½ log(2πx) - δ(x) + ½ log(r / n) + δ(n) - δ(r), with n = r + x,
    t = log(n / (r + μ)) and ε(t) = e^t - 1 - t.

    Args:
        x: Counts.
        log_mean: log μ.
        size: r, TFP's total_count: the inverse dispersion.

    Example:
        >>> round(float(log_negative_binomial(tf.constant(1.0), tf.constant(0.0), tf.constant(1.0))), 4)  # log ¼
        -1.3863
    """
    some = tf.maximum(x, 1.0)
    both, mean = size + some, tf.exp(tf.minimum(log_mean, 80.0))
    log_size, log_both = tf.math.log(size), tf.math.log(both)
    odds = tf.nn.softplus(log_mean - log_size)  # log(1 + μ / r)
    # e^t - 1, where t is small; else the bounds hold, by which no square in a slope overflows.
    apart = (some - mean) / tf.maximum(both / 3, tf.minimum(5 * both, size + mean))
    is_near, far = tf.abs(apart) < 0.5, log_both - log_size - odds
    t = tf.where(is_near, tf.math.log1p(tf.clip_by_value(apart, -0.5, 0.5)), far)
    expm1 = tf.where(is_near, apart, tf.math.expm1(far))
    away = some * _excess(t + _log_ratio(log_mean, mean, some), -expm1 * size / some) + size * _excess(t, expm1)
    spread = 0.5 * (log_size - log_both) + _stirling_error(both, log_both) - _stirling_error(size, log_size)
    return tf.where(x < 0.5, -size * odds, spread - away - log_peak(some))


def log_multinomial(x: tf.Tensor, total: tf.Tensor, log_shares: tf.Tensor) -> tf.Tensor:
    """log n! - Σ log x_i! + Σ x_i log π_i, nats: the ratio of Poissons Π P(x_i; n π_i) / P(n; n).

    Args:
        x: Counts that sum to the total along the last axis.
        total: n, ``[...]``.
        log_shares: log π, ``[..., V]``.

    Example:
        >>> shares = tf.math.log([0.5, 0.5])
        >>> round(float(log_multinomial(tf.constant([1.0, 1.0]), tf.constant(2.0), shares)), 4)  # log ½
        -0.6931
    """
    some = tf.maximum(total, 1.0)  # of an empty bag each term is then x log π = 0
    each = log_poisson(x, log_shares + tf.math.log(some)[..., tf.newaxis])
    joint = tf.reduce_sum(each, axis=-1) + log_peak(some)
    return tf.where(total < 0.5, tf.zeros_like(joint), joint)


def log_dirichlet_multinomial(x: tf.Tensor, total: tf.Tensor, concentration: tf.Tensor) -> tf.Tensor:
    """log p(x) of a multinomial whose shares are drawn of a Dirichlet, nats: a ratio of negative binomials.

    Π NB(x_i; n α_i / Σα, α_i) / NB(n; n, Σα), of means n α_i / Σα and of one and the same probability of a success.

    Args:
        x: Counts that sum to the total along the last axis.
        total: n, ``[...]``.
        concentration: α, ``[..., V]``.

    Example:
        >>> x, alpha = tf.constant([1.0, 1.0]), tf.constant([1.0, 1.0])
        >>> round(float(log_dirichlet_multinomial(x, tf.constant(2.0), alpha)), 4)  # log ⅓
        -1.0986
    """
    some, whole = tf.maximum(total, 1.0), tf.reduce_sum(concentration, axis=-1)
    log_odds = (tf.math.log(some) - tf.math.log(whole))[..., tf.newaxis]
    each = log_negative_binomial(x, tf.math.log(concentration) + log_odds, concentration)
    joint = tf.reduce_sum(each, axis=-1) - log_negative_binomial(some, tf.math.log(some), whole)
    return tf.where(total < 0.5, tf.zeros_like(joint), joint)


def log_zero_inflated(x: tf.Tensor, zero_logits: tf.Tensor, log_prob: tf.Tensor) -> tf.Tensor:
    """log P(x) of what is 0 with probability sigmoid(zero_logits), and else a count of that ``log_prob``, nats.

    Example:
        >>> round(float(log_zero_inflated(tf.constant(0.0), tf.constant(0.0), tf.constant(-1.0))), 4)
        -0.3799
    """
    of_zero = zero_logits + tf.nn.softplus(log_prob - zero_logits)
    return tf.where(x < 0.5, of_zero, log_prob) - tf.nn.softplus(zero_logits)


def log_peak(x: tf.Tensor) -> tf.Tensor:
    """-log P(x) of a Poisson of rate x, x = 1, 2, ...: ½ log(2πx) + δ(x).

    Example:
        >>> round(float(log_peak(tf.constant(1.0))), 4)
        1.0
    """
    one, two = (tf.cast(value, x.dtype) for value in _STIRLING)
    error = tf.where(x < 1.5, one, tf.where(x < 2.5, two, _series(tf.maximum(x, 3.0))))
    return 0.5 * tf.math.log(2 * math.pi * x) + error


def _log_ratio(log_rate: tf.Tensor, rate: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """log λ - log x; where they are alike the logarithms of large numbers have lost what the difference needs."""
    apart = (rate - x) / x
    return tf.where(tf.abs(apart) < 0.5, tf.math.log1p(tf.clip_by_value(apart, -0.5, 0.5)), log_rate - tf.math.log(x))


def _excess(t: tf.Tensor, expm1: tf.Tensor) -> tf.Tensor:
    """e^t - 1 - t, of t and e^t - 1."""
    near = tf.clip_by_value(t, -_SERIES, _SERIES)
    series = near**2 / 2 * (1 + near / 3 * (1 + near / 4 * (1 + near / 5 * (1 + near / 6))))
    return tf.where(tf.abs(t) < _SERIES, series, expm1 - t)


def _stirling_error(y: tf.Tensor, log_y: tf.Tensor) -> tf.Tensor:
    """δ(y) of y > 0, whole or not; below 3 by way of y + 3, for Γ(y + 4) = (y + 3) (y + 2) (y + 1) Γ(y + 1)."""
    small = tf.minimum(y, 3.0)
    steps = (small + 2.5) * tf.math.log(small + 3.0) - tf.math.log((small + 1.0) * (small + 2.0)) - 3.0
    of_small = steps - (small + 0.5) * tf.minimum(log_y, math.log(3.0))
    return tf.where(y < 3.0, of_small + _series(small + 3.0), _series(tf.maximum(y, 3.0)))


def _series(y: tf.Tensor) -> tf.Tensor:
    """δ(y) of y >= 3."""
    return (1 / 12 - (1 / 360 - (1 / 1260 - 1 / (1680 * y**2)) / y**2) / y**2) / y
