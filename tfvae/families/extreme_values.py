"""The generalised extreme value distribution where its concentration is 0, the limit of Gumbel, and near it.

TFP's density is 0 there below the location, and its moments are quotients of rounding errors: with w = (1 + c z)^(-1/c)
for the concentration c, all of log w = -log1p(c z) / c, the mean and the variance have c below the line. Here each is
its own power series where c is small. A layer's concentration is 0 for features of 0, as ReLU makes them.
"""

import math
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

_NEAR = 0.03  # where the ninth power is below what float32 has digits for
_POWERS = np.arange(2, 10)
_ZETA = np.array(
    [
        *(1.6449340668482264, 1.2020569031595942, 1.0823232337111382, 1.0369277551433699),
        *(1.0173430619844491, 1.0083492773819229, 1.0040773561979443, 1.0020083928260822),
    ]
)  # Riemann's, of these powers
_LOG1P_OVER = [(-1) ** k / (k + 1) for k in range(9)]  # log1p(u) / u
_LOG_GAMMA_OVER = [np.euler_gamma, *(_ZETA / _POWERS)]  # log Γ(1 - c) / c
_SPREAD_OVER = _ZETA * (2.0**_POWERS - 2) / _POWERS  # (log Γ(1 - 2c) - 2 log Γ(1 - c)) / c²


class GeneralizedExtremeValue(tfd.GeneralizedExtremeValue):
    """TFP's, which is right where the concentration is 0 too, and has digits near it.

    Example:
        >>> p = GeneralizedExtremeValue(0.0, 1.0, 0.0)  # Gumbel(0, 1)
        >>> [round(float(log_prob), 4) for log_prob in p.log_prob([-1.0, 0.0])]
        [-1.7183, -1.0]
    """

    def _log_prob(self, x: tf.Tensor) -> tf.Tensor:
        """(c + 1) log w - w - log scale, where 1 + c z > 0."""
        inside, log_w = self._log_w(x)
        log_prob = (self.concentration + 1.0) * log_w - tf.exp(log_w) - tf.math.log(self.scale)
        return tf.where(inside, log_prob, -math.inf)

    def _cdf(self, x: tf.Tensor) -> tf.Tensor:
        """exp(-w); beyond the end of the support that a negative concentration has it is 1."""
        inside, log_w = self._log_w(x)
        return tf.where(inside, tf.exp(-tf.exp(log_w)), tf.where(self.concentration < 0.0, 1.0, 0.0))

    def _log_w(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Where x lies inside of the support, and log w of x, 0 where it does not."""
        z = (x - self.loc) / self.scale
        inside = self.concentration * z > -1.0
        return inside, -_log1p_over(self.concentration, tf.where(inside, z, 0.0))

    def _mean(self) -> tf.Tensor:
        """loc + scale (Γ(1 - c) - 1) / c."""
        near, small, large = _apart(self.concentration)
        ratio = _series(_LOG_GAMMA_OVER, small)
        of_small = ratio * _expm1_over(small * ratio)
        of_large = tf.math.expm1(tf.math.lgamma(1.0 - tf.minimum(large, 0.999999))) / large
        mean = tf.where(near, of_small, tf.where(large < 1.0, of_large, math.inf))
        return self.loc + self.scale * mean

    def _stddev(self) -> tf.Tensor:
        """scale √(Γ(1 - 2c) - Γ(1 - c)²) / |c|."""
        near, small, large = _apart(self.concentration)
        ratio = _series(_SPREAD_OVER, small)
        log_gamma = small * _series(_LOG_GAMMA_OVER, small)
        of_small = tf.exp(log_gamma) * tf.sqrt(ratio * _expm1_over(small**2 * ratio))
        finite = tf.minimum(large, 0.499999)
        gamma = tf.math.lgamma(1.0 - finite)
        spread = tf.math.expm1(tf.math.lgamma(1.0 - 2.0 * finite) - 2.0 * gamma)
        of_large = tf.exp(gamma) * tf.sqrt(spread) / tf.abs(finite)
        stddev = tf.where(near, of_small, tf.where(large < 0.5, of_large, math.inf))
        return self.scale * tf.ones_like(self.loc) * stddev

    def _variance(self) -> tf.Tensor:
        return self._stddev() ** 2


def _log1p_over(c: tf.Tensor, z: tf.Tensor) -> tf.Tensor:
    """log1p(c z) / c, which is z where c is 0."""
    near, small, large = _apart(c * z)
    return z * tf.where(near, _series(_LOG1P_OVER, small), tf.math.log1p(large) / large)


def _expm1_over(u: tf.Tensor) -> tf.Tensor:
    """expm1(u) / u, which is 1 where u is 0."""
    other = tf.where(u == 0.0, 1.0, u)
    return tf.where(u == 0.0, 1.0, tf.math.expm1(other) / other)


def _apart(c: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Where it is small, it where it is, and where it is not: no branch of a ``where`` then has a NaN to pass on."""
    near = tf.abs(c) < _NEAR
    return near, tf.where(near, c, 0.0), tf.where(near, 1.0, c)


def _series(coefficients: Any, u: tf.Tensor) -> tf.Tensor:
    """Σ a_k u^k, the coefficients from a_0 on."""
    return tf.math.polyval([tf.constant(a, u.dtype) for a in reversed([*coefficients])], u)
