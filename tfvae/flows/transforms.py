"""What a step does to one unit: maps of the real line, each with its inverse and the logarithm of its slope."""

import math
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf
from tensorflow_probability import bijectors as tfb

Pair = tuple[tf.Tensor, tf.Tensor]

_FORGET = 1.5  # σ starts at sigmoid(1.5): a step keeps most of what came, as an LSTM's forget gate
_STEEPEST = 3.0  # of log slopes, either way
_BINS, _BOUND, _LOWEST = 8, 5.0, 1e-3


class Transform(NamedTuple):
    """A map z -> y of each unit.

    Attributes:
        num_outputs: Numbers that a network gives for each unit, ``raw [..., D, num_outputs]``.
        forward: z, raw -> y, log dy/dz, all ``[..., D]``.
        inverse: y, raw -> z, log dy/dz.
    """

    num_outputs: int
    forward: Callable[[tf.Tensor, tf.Tensor], Pair]
    inverse: Callable[[tf.Tensor, tf.Tensor], Pair]


def _gate(raw: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    gate = raw[..., 1] + _FORGET
    return tf.sigmoid(gate), (1.0 - tf.sigmoid(gate)) * raw[..., 0], -tf.nn.softplus(-gate)


def _gated(z: tf.Tensor, raw: tf.Tensor) -> Pair:
    """y = σ z + (1 - σ) m, the inverse autoregressive flow's (Kingma et al., arXiv 1606.04934, eq. 13-14)."""
    sigma, shift, log_slope = _gate(raw)
    return sigma * z + shift, log_slope + tf.zeros_like(z)


def _ungated(y: tf.Tensor, raw: tf.Tensor) -> Pair:
    _, shift, log_slope = _gate(raw)
    return (y - shift) * tf.exp(-log_slope), log_slope + tf.zeros_like(y)


def _log_slope(raw: tf.Tensor) -> tf.Tensor:
    return _STEEPEST * tf.tanh(raw[..., 1] / _STEEPEST)


def _scaled(z: tf.Tensor, raw: tf.Tensor) -> Pair:
    """y = z exp(s) + m, RealNVP's (Dinh et al., arXiv 1605.08803), with s held between -3 and 3."""
    log_slope = _log_slope(raw)
    return z * tf.exp(log_slope) + raw[..., 0], log_slope + tf.zeros_like(z)


def _unscaled(y: tf.Tensor, raw: tf.Tensor) -> Pair:
    log_slope = _log_slope(raw)
    return (y - raw[..., 0]) * tf.exp(-log_slope), log_slope + tf.zeros_like(y)


def _spline(raw: tf.Tensor) -> tfb.RationalQuadraticSpline:
    """Monotone rational quadratics (Durkan et al., arXiv 1906.04032) on [-5, 5], the identity outside; raw 0 is it."""
    widths, heights, slopes = tf.split(raw, [_BINS, _BINS, _BINS - 1], axis=-1)
    start = math.log(math.expm1(1.0 - _LOWEST))
    shares = [_LOWEST + (1.0 - _BINS * _LOWEST) * tf.nn.softmax(part) for part in (widths, heights)]
    sizes = [2.0 * _BOUND * share for share in shares]
    return tfb.RationalQuadraticSpline(*sizes, _LOWEST + tf.nn.softplus(slopes + start), range_min=-_BOUND)


def _splined(z: tf.Tensor, raw: tf.Tensor) -> Pair:
    spline = _spline(raw)
    return spline.forward(z), spline.forward_log_det_jacobian(z)


def _unsplined(y: tf.Tensor, raw: tf.Tensor) -> Pair:
    spline = _spline(raw)
    z = spline.inverse(y)
    return z, spline.forward_log_det_jacobian(z)


TRANSFORMS = {
    "gate": Transform(2, _gated, _ungated),
    "affine": Transform(2, _scaled, _unscaled),
    "spline": Transform(3 * _BINS - 1, _splined, _unsplined),
}
