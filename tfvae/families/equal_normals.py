"""Many normals of one width and one weight, about as many as a data set has rows: distances are matrix products."""

import math
from typing import Any

import tensorflow as tf
from tensorflow_probability import bijectors as tfb
from tensorflow_probability import distributions as tfd
from tensorflow_probability import random as tfp_random

from tfvae.families.random import standard_normal, standard_uniform

_BLOCK = 4096  # means at once


class EqualNormals(tfd.Distribution):
    """(1/N) Σ_n N(z; m_n, σ² I), or for each row the mean over those components that are not left out for it.

    ‖z - m‖² is ‖z‖² - 2 z·m + ‖m‖², with z and m taken from the mean of all means: in float32 log p is right to about
    1e-6 ‖z - m‖² / σ² nats.

    Args:
        means: m, ``[N, D]``.
        scale: σ, one number.
        left_out: Which components a row is to do without, bool ``[B, N]``; a row that has no others keeps all. z is
            then ``[..., B, D]``.

    Example:
        >>> p = EqualNormals([[0.0], [9.0]], 1.0, left_out=[[False, True], [True, False]])
        >>> p.log_prob([[0.0], [9.0]]).numpy().round(3), p.batch_shape
        (array([-0.919, -0.919], dtype=float32), TensorShape([2]))
    """

    def __init__(self, means: Any, scale: Any, left_out: Any = None, name: str = "EqualNormals"):
        self._means = tf.convert_to_tensor(means)
        self._scale = tf.convert_to_tensor(scale, self._means.dtype)
        self._left_out = None
        if left_out is not None:
            left_out = tf.convert_to_tensor(left_out)
            self._left_out = left_out & ~tf.reduce_all(left_out, axis=-1, keepdims=True)
        super().__init__(self._means.dtype, tfd.FULLY_REPARAMETERIZED, False, True, parameters={}, name=name)

    def _log_prob(self, z: tf.Tensor) -> tf.Tensor:
        centre = tf.stop_gradient(tf.reduce_mean(self._means, axis=0))
        z, means = (z - centre) / self._scale, (self._means - centre) / self._scale
        size, latent_dim = self._means.shape
        blocks = [self._block(z, means, start, min(start + _BLOCK, size)) for start in range(0, size, _BLOCK)]
        found = blocks[0] if len(blocks) == 1 else tf.reduce_logsumexp(tf.stack(blocks), axis=0)
        count = tf.cast(size, self.dtype)
        if self._left_out is not None:
            count -= tf.reduce_sum(tf.cast(self._left_out, self.dtype), axis=-1)
        return found - tf.math.log(count) - latent_dim * (tf.math.log(self._scale) + 0.5 * math.log(2.0 * math.pi))

    def _block(self, z: tf.Tensor, means: tf.Tensor, start: int, stop: int) -> tf.Tensor:
        """log Σ exp(-‖z - m‖² / 2) over some of the means."""
        means = means[start:stop]
        products = tf.linalg.matmul(z, tf.linalg.matrix_transpose(means)) - 0.5 * tf.reduce_sum(means**2, axis=-1)
        exponents = tf.minimum(products - 0.5 * tf.reduce_sum(z**2, axis=-1, keepdims=True), 0.0)
        if self._left_out is not None:
            exponents = tf.where(self._left_out[:, start:stop], tf.cast(-float("inf"), self.dtype), exponents)
        return tf.reduce_logsumexp(exponents, axis=-1)

    def _sample_n(self, n: Any, seed: Any = None) -> tf.Tensor:
        of_component, of_noise = tf.unstack(tf.random.experimental.stateless_split(tfp_random.sanitize_seed(seed), 2))
        size = self._means.shape[0]
        there = tf.fill([size], True) if self._left_out is None else ~self._left_out
        up_to = tf.cumsum(tf.cast(there, tf.int32), axis=-1)
        u = standard_uniform(tf.concat([tf.shape(up_to)[:-1], [n]], axis=0), of_component)
        before = tf.cast(u * tf.cast(up_to[..., -1:], tf.float32), tf.int32)
        chosen = tf.minimum(tf.searchsorted(up_to, before, side="right"), size - 1)
        means = tf.gather(self._means, tf.transpose(chosen))
        return means + self._scale * tf.cast(standard_normal(tf.shape(means), of_noise), self.dtype)

    def _default_event_space_bijector(self) -> tfb.Bijector:
        return tfb.Identity()

    def _batch_shape(self) -> tf.TensorShape:
        return tf.TensorShape([]) if self._left_out is None else self._left_out.shape[:1]

    def _batch_shape_tensor(self) -> tf.Tensor:
        return tf.zeros([0], tf.int32) if self._left_out is None else tf.shape(self._left_out)[:1]

    def _event_shape(self) -> tf.TensorShape:
        return self._means.shape[-1:]

    def _event_shape_tensor(self) -> tf.Tensor:
        return tf.shape(self._means)[-1:]
