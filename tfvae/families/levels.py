"""Pixels as what they are: one of 256 levels, with a probability that sums to 1 over them.

Level k is the number x = k / (L - 1) in [0, 1], as the model divides bytes by 255. A density on the line, rounded to
the nearest level, gives it P(x) = F(x + h) - F(x - h), h half a step; what lies below 0 and above 1 belongs to the ends
(Salimans et al., arXiv 1701.05517, equation 2; Kingma et al., arXiv 1606.04934, appendix C.5).
"""

import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tensorflow_probability import bijectors as tfb
from tensorflow_probability import distributions as tfd
from tensorflow_probability import math as tfp_math
from tensorflow_probability import random as tfp_random
from tensorflow_probability import util as tfp_util

from tfvae.engine import xla
from tfvae.families.random import standard_normal, standard_uniform

_Properties = tfp_util.ParameterProperties
_NARROW = 0.01  # standard deviations: of bins below, Φ(b) and Φ(a) leave no digits of their difference


def _log_share(width: tf.Tensor) -> tf.Tensor:
    """log(1 - exp(-width)): with it σ(a) - σ(b) = σ(a) σ(-b) (1 - exp(b - a)), no digit lost in either tail."""
    return tf.math.log(-tf.math.expm1(-width))


def _logistic_log_probs(x: tf.Tensor, loc: tf.Tensor, scale: tf.Tensor, num_levels: int) -> tf.Tensor:
    """log P(x) under a logistic, nats. Its gradient is finite in every branch."""
    half = 0.5 / (num_levels - 1)
    is_lowest, is_highest = x < half, x > 1.0 - half
    below = xla.softplus((loc - half - x) / scale)  # -log F(x + h)
    above = xla.softplus((x - half - loc) / scale)  # -log (1 - F(x - h))
    between = below + above - _log_share(2.0 * half / scale)
    return -tf.where(is_lowest, below, tf.where(is_highest, above, between))


def _ndtr(z: tf.Tensor) -> tf.Tensor:
    return 0.5 * tf.math.erfc(-z * math.sqrt(0.5))


def _normal_log_probs(x: tf.Tensor, loc: tf.Tensor, scale: tf.Tensor, num_levels: int) -> tf.Tensor:
    """log P(x) under a normal, nats: by log Φ in the tail where it has digits, by the density where bins are narrow."""
    half = 0.5 / (num_levels - 1)
    away, width = (x - loc) / scale, 2.0 * half / scale
    lower, upper = -tf.abs(away) - 0.5 * width, -tf.abs(away) + 0.5 * width  # by symmetry, in the left tail
    log_upper = tfd.Normal(0.0, 1.0).log_cdf(upper)
    gap = tf.where(width < _NARROW, 1.0, log_upper - tfd.Normal(0.0, 1.0).log_cdf(lower))
    wide = log_upper + tfp_math.log1mexp(gap)
    narrow = tf.math.log(width) - 0.5 * away**2 + ((away**2 - 1.0) * width**2) / 24.0 - 0.5 * math.log(2 * math.pi)
    end = tf.where(x < half, 1.0, -1.0) * away + 0.5 * width
    is_end = (x < half) | (x > 1.0 - half)
    return tf.where(is_end, tfd.Normal(0.0, 1.0).log_cdf(end), tf.where(width < _NARROW, narrow, wide))


def _standard_logistic(shape: Any, seed: Any, dtype: Any = tf.float32) -> tf.Tensor:
    u = standard_uniform(shape, seed, dtype)
    return tf.math.log(u) - tf.math.log1p(-u)


def _rounded(y: tf.Tensor, num_levels: int) -> tf.Tensor:
    """The nearest levels of numbers on the line."""
    return tf.round(tf.clip_by_value(y, 0.0, 1.0) * (num_levels - 1)) / (num_levels - 1)


def _moments(below: Callable[[Any], tf.Tensor], loc: tf.Tensor, num_levels: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Mean and variance of x, level after level to save memory; ``below(bound)`` is P(x < bound), and symmetric in loc.

    Moments are taken about a level c near loc, E[k - c] = Σ_j P(k ≥ j) - 1[j ≤ c] and E[(k - c)²] the same sum with
    the factors 2 (j - c) - 1, so that small variances keep their digits.
    """
    centre = _rounded(loc, num_levels) * (num_levels - 1)

    def add(j: tf.Tensor, first: tf.Tensor, second: tf.Tensor) -> tuple[tf.Tensor, ...]:
        bound = (j - 0.5) / (num_levels - 1)
        excess = tf.where(j <= centre, -below(bound), below(2.0 * loc - bound))
        return j + 1.0, first + excess, second + (2.0 * (j - centre) - 1.0) * excess

    zero = tf.zeros_like(below(0.0))
    start = (tf.constant(1.0, zero.dtype), zero, zero)
    _, first, second = tf.while_loop(lambda j, *_: j < num_levels, add, start, maximum_iterations=num_levels - 1)
    return (centre + first) / (num_levels - 1), (second - first**2) / (num_levels - 1) ** 2


class _Levels(tfd.Distribution):
    """What all here share: levels as floats, no gradient through a draw."""

    def __init__(self, name: str, num_levels: int, **parameters: Any):
        self._num_levels = num_levels
        tensors = {key: tf.convert_to_tensor(value) for key, value in parameters.items()}
        super().__init__(
            dtype=next(iter(tensors.values())).dtype,
            reparameterization_type=tfd.NOT_REPARAMETERIZED,
            validate_args=False,
            allow_nan_stats=True,
            parameters={**tensors, "num_levels": num_levels, "name": name},
            name=name,
        )

    def _stddev(self) -> tf.Tensor:
        return tf.sqrt(self._variance())


class DiscretizedLogistic(_Levels):
    """A logistic, rounded to levels, the likelihood of VAEs whose bits per dimension are reported.

    Args:
        loc, scale: The logistic's, where x lies in [0, 1].
        num_levels: L, 256 for bytes.

    Example:
        >>> p = DiscretizedLogistic(loc=0.3, scale=0.2, num_levels=4)
        >>> p.prob([0.0, 1 / 3, 2 / 3, 1.0]).numpy().round(4), round(float(p.mean()), 4)
        (array([0.3392, 0.3918, 0.204 , 0.065 ], dtype=float32), 0.3316)
    """

    def __init__(self, loc: Any, scale: Any, num_levels: int = 256, name: str = "DiscretizedLogistic"):
        super().__init__(name, num_levels, loc=loc, scale=scale)

    @classmethod
    def _parameter_properties(cls, dtype: Any, num_classes: Any = None) -> dict[str, Any]:
        return {"loc": _Properties(), "scale": _Properties(default_constraining_bijector_fn=tfb.Softplus)}

    def _event_shape(self) -> tf.TensorShape:
        return tf.TensorShape([])

    def _log_prob(self, x: tf.Tensor) -> tf.Tensor:
        return self._log_probs(tf.cast(x, self.dtype), self.loc, self.scale, self._num_levels)

    def _sample_n(self, n: Any, seed: Any = None) -> tf.Tensor:
        noise = self._noise(tf.concat([[n], self.batch_shape_tensor()], axis=0), seed)
        return _rounded(self.loc + self.scale * noise, self._num_levels)

    def _mean(self) -> tf.Tensor:
        return _moments(self._below, self.loc, self._num_levels)[0]

    def _variance(self) -> tf.Tensor:
        return _moments(self._below, self.loc, self._num_levels)[1]

    def _below(self, bound: Any) -> tf.Tensor:
        return self._cdf_of((bound - self.loc) / self.scale)

    @property
    def loc(self) -> tf.Tensor:
        return self.parameters["loc"]

    @property
    def scale(self) -> tf.Tensor:
        return self.parameters["scale"]

    _log_probs = staticmethod(_logistic_log_probs)
    _noise = staticmethod(_standard_logistic)
    _cdf_of = staticmethod(tf.sigmoid)


class DiscretizedNormal(DiscretizedLogistic):
    """A normal, rounded to levels; its tails are lighter than the logistic's, so that an outlier costs more.

    Example:
        >>> p = DiscretizedNormal(loc=0.3, scale=0.2, num_levels=4)
        >>> p.prob([0.0, 1 / 3, 2 / 3, 1.0]).numpy().round(4)
        array([0.2525, 0.5889, 0.1548, 0.0038], dtype=float32)
    """

    def __init__(self, loc: Any, scale: Any, num_levels: int = 256, name: str = "DiscretizedNormal"):
        super().__init__(loc, scale, num_levels, name)

    @classmethod
    def _parameter_properties(cls, dtype: Any, num_classes: Any = None) -> dict[str, Any]:
        return super()._parameter_properties(dtype, num_classes)  # TFP warns of a class that does not say so itself

    _log_probs = staticmethod(_normal_log_probs)
    _noise = staticmethod(standard_normal)
    _cdf_of = staticmethod(_ndtr)


class DiscretizedLogisticMixture(_Levels):
    """A mixture of K such logistics for the channels of a pixel, each channel's loc moved by those before it.

    loc_c + Σ_{j<c} coefficient_cj (x_j - 1/2) of the observed x_j, which is PixelCNN++'s, written for x in [0, 1]
    (Salimans et al., arXiv 1701.05517, equation 3). One channel is a mixture of discretised logistics.

    Args:
        logits: Unnormalised logarithms of the components' weights, ``[..., K]``.
        loc, scale: ``[..., C, K]``.
        coefficients: ``[..., C (C - 1) / 2, K]``, for c = 1: j = 0; c = 2: j = 0, 1; ...
        num_levels: L, 256 for bytes.

    Example:
        >>> parameters = {"loc": [[0.3]], "scale": [[0.2]], "coefficients": tf.zeros([0, 1])}
        >>> DiscretizedLogisticMixture([0.0], **parameters, num_levels=4).prob([1 / 3]).numpy().round(4)
        np.float32(0.3918)
    """

    def __init__(
        self,
        logits: Any,
        loc: Any,
        scale: Any,
        coefficients: Any,
        num_levels: int = 256,
        name: str = "DiscretizedLogisticMixture",
    ):
        super().__init__(name, num_levels, logits=logits, loc=loc, scale=scale, coefficients=coefficients)

    @classmethod
    def _parameter_properties(cls, dtype: Any, num_classes: Any = None) -> dict[str, Any]:
        """``num_classes`` is the number of components."""
        pairs = lambda channels: channels * (channels - 1) // 2  # noqa: E731
        of_each = lambda shape: [*shape, num_classes]  # noqa: E731
        return {
            "logits": _Properties(event_ndims=1, shape_fn=lambda shape: [*shape[:-1], num_classes]),
            "loc": _Properties(event_ndims=2, shape_fn=of_each),
            "scale": _Properties(event_ndims=2, shape_fn=of_each, default_constraining_bijector_fn=tfb.Softplus),
            "coefficients": _Properties(
                event_ndims=2,
                shape_fn=lambda shape: [*shape[:-1], pairs(shape[-1]), num_classes],
                default_constraining_bijector_fn=tfb.Tanh,
            ),
        }

    def _event_shape(self) -> tf.TensorShape:
        return self.parameters["loc"].shape[-2:-1]

    def _locs(self, channel: int, before: list[tf.Tensor]) -> tf.Tensor:
        """Those of a channel's components, ``[..., K]``, given the channels ``[..., 1]`` or ``[..., K]`` before it."""
        first = channel * (channel - 1) // 2
        coefficients = self.parameters["coefficients"][..., first : first + channel, :]
        moved = [coefficients[..., j, :] * (x - 0.5) for j, x in enumerate(before)]
        return sum(moved, self.parameters["loc"][..., channel, :])

    def _scale_of(self, channel: int) -> tf.Tensor:
        return self.parameters["scale"][..., channel, :]

    def _log_prob(self, x: tf.Tensor) -> tf.Tensor:
        channels = tf.split(tf.cast(x, self.dtype), self.event_shape[-1], axis=-1)
        log_joint = tf.nn.log_softmax(self.parameters["logits"])
        for c, value in enumerate(channels):
            locs = self._locs(c, channels[:c])
            log_joint += _logistic_log_probs(value, locs, self._scale_of(c), self._num_levels)
        return tf.reduce_logsumexp(log_joint, axis=-1)

    def _sample_n(self, n: Any, seed: Any = None) -> tf.Tensor:
        seeds = tfp_random.split_seed(seed, n=2)
        logits = self.parameters["logits"]
        batch = tf.concat([[n], self.batch_shape_tensor()], axis=0)
        below = tf.cumsum(tf.nn.softmax(logits), axis=-1)[..., :-1]
        drawn = standard_uniform(tf.concat([batch, [1]], axis=0), seeds[0], self.dtype)
        chosen = tf.one_hot(
            tf.reduce_sum(tf.cast(drawn >= below, tf.int32), axis=-1), logits.shape[-1], dtype=self.dtype
        )
        noise = _standard_logistic(tf.concat([batch, self.event_shape], axis=0), seeds[1], self.dtype)
        channels: list[tf.Tensor] = []
        for c in range(self.event_shape[-1]):
            loc, scale = (
                tf.reduce_sum(chosen * value, axis=-1, keepdims=True)
                for value in (self._locs(c, channels), self._scale_of(c))
            )
            channels.append(_rounded(loc + scale * noise[..., c : c + 1], self._num_levels))
        return tf.concat(channels, axis=-1)

    def _mean(self) -> tf.Tensor:
        """Each component's channels in turn, those before at their means: exact but for what the ends cut off."""
        weights = tf.nn.softmax(self.parameters["logits"])
        channels: list[tf.Tensor] = []
        for c in range(self.event_shape[-1]):
            one = DiscretizedLogistic(self._locs(c, channels), self._scale_of(c), self._num_levels)
            channels.append(one.mean())
        return tf.stack([tf.reduce_sum(weights * mean, axis=-1) for mean in channels], axis=-1)
