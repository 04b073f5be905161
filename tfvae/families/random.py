"""Noise that is fixed by its seed: the same numbers in eager mode, in a graph and in an XLA program.

Uniform numbers are equal there to the last bit, normal ones up to the rounding of Φ⁻¹.
"""

from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_probability import random as tfp_random

_PHILOX = 1  # tf.random.Algorithm.PHILOX as the raw operations number it
_DIGITS = {tf.float64: 52, tf.float32: 23, tf.float16: 10, tf.bfloat16: 7}  # binary ones of a uniform number


def standard_normal(shape: Any, seed: Any, dtype: Any = tf.float32) -> tf.Tensor:
    """ε ~ N(0, I), fixed by its seed and by the number of draws: Φ⁻¹((1 + u) / 2), u ~ U(-1, 1).

    TensorFlow runs a seed through Philox to make the key of another Philox. XLA repeats the first for every number
    drawn, which took a fifth of a training step at batch 100 and a third at 2048. A generator's key may be any number,
    so the seed is the key. TensorFlow's normals are Box and Muller's, whose sines take XLA four times as long as Φ⁻¹,
    and which it pairs by the shape of the draw, so that they are other numbers than in eager mode.

    Example:
        >>> standard_normal([2], seed=(1, 2)).shape
        TensorShape([2])
    """
    precision = tf.float64 if dtype == tf.float64 else tf.float32
    spare = 0 if precision == tf.float64 else 8  # bits that u would round away
    bits = _bits(shape, seed, tf.int32)
    u = (tf.cast(tf.bitwise.right_shift(bits, spare), precision) + 0.5) * 2.0 ** (spare - 31)  # never 0, 1 or -1
    return tf.cast(-tf.sign(u) * tf.math.ndtri(0.5 - 0.5 * tf.abs(u)), dtype)  # either tail to its last bit


def stratified_normal(num_draws: int, size: int) -> np.ndarray:
    """ε ``[num_draws, size]``, the same at every call, for means that have no formula: a Latin hypercube of normals.

    Each coordinate takes the middle of each of ``num_draws`` equally likely strata once, in an order of its own, and
    has mean 0 and mean square 1. A mean of g(ε) has then the error of what in g joins several coordinates alone (McKay,
    Beckman & Conover 1979; Stein 1987): of a sum of functions of one coordinate each, next to none.

    Example:
        >>> noise = stratified_normal(100, 3)
        >>> noise.shape, bool((abs(noise.mean(axis=0)) < 1e-6).all()), (noise**2).mean(axis=0).round(5).tolist()
        ((100, 3), True, [1.0, 1.0, 1.0])
    """
    with tf.init_scope():
        middles = tf.math.ndtri((np.arange(num_draws) + 0.5) / num_draws).numpy()
        order = np.argsort(standard_uniform([num_draws, size], [0, 0]).numpy(), axis=0, kind="stable")
    return (middles / np.sqrt(np.mean(middles**2))).astype(np.float32)[order]


def standard_uniform(shape: Any, seed: Any, dtype: Any = tf.float32) -> tf.Tensor:
    """Uniform numbers in [0, 1), fixed as those of ``standard_normal``: the first binary digits of a random integer.

    TensorFlow's uniforms are the last digits of the same integers, and the first in an XLA program.

    Example:
        >>> standard_uniform([2], seed=(1, 2)).shape
        TensorShape([2])
    """
    dtype = tf.as_dtype(dtype)
    width, unsigned, signed = (64, tf.uint64, tf.int64) if dtype == tf.float64 else (32, tf.uint32, tf.int32)
    digits = _DIGITS[dtype]
    first = tf.bitwise.right_shift(_bits(shape, seed, unsigned), tf.constant(width - digits, unsigned))
    exact = tf.float64 if width == 64 else tf.float32
    return tf.cast(tf.cast(tf.bitcast(first, signed), exact) * 2.0**-digits, dtype)


def _bits(shape: Any, seed: Any, dtype: Any) -> tf.Tensor:
    key = tf.bitcast(tf.cast(tfp_random.sanitize_seed(seed), tf.int32), tf.uint64)[tf.newaxis]
    keyed = {"shape": tf.cast(shape, tf.int32), "key": key, "counter": tf.zeros([2], tf.uint64), "alg": _PHILOX}
    return tf.raw_ops.StatelessRandomUniformFullIntV2(**keyed, dtype=dtype)
