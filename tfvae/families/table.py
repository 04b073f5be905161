"""Rows of a table: cells that may be missing, and columns of several families.

A cell that is NaN is missing, and log p(x) is that of the observed cells: independent given z, each of the others is
integrated over by being left out (Mattei & Frellsen, arXiv 1812.02633, equation 4; Nazábal et al., arXiv 1807.03653).
"""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from tensorflow_probability import distributions as tfd
from tensorflow_probability import random as tfp_random

from tfvae.families import draws
from tfvae.families.discrete import Categorical, OrderedLogistic

_Independent: Any = tfd.Independent.__bases__[0]  # TFP makes objects of it where a part is no composite tensor


class Observed(_Independent):
    """Independent cells of one family, of which those that are NaN are missing and count for nothing.

    Args:
        distribution: The cells, ``[..., *event]``.
        num_axes: How many axes the event has.
        inside: A number of the support, or one for each cell, that takes the place of a missing one: 0 times an
            infinite gradient would be NaN.

    Example:
        >>> row = Observed(tfd.Normal([0.0, 5.0], 1.0), 1, inside=0.0)
        >>> row.log_prob([0.0, float("nan")]).numpy().round(4)
        np.float32(-0.9189)
    """

    def __init__(self, distribution: tfd.Distribution, num_axes: int, inside: Any):
        super().__init__(distribution, num_axes)
        self._axes, self._inside = list(range(-num_axes, 0)), tf.convert_to_tensor(inside, tf.float32)

    def _log_prob(self, x: tf.Tensor) -> tf.Tensor:
        gone = x != x
        log_prob = self.distribution.log_prob(tf.where(gone, tf.cast(self._inside, x.dtype), x))
        return tf.reduce_sum(tf.where(gone, 0.0, log_prob), axis=self._axes)


class Mixed(tfd.Distribution):
    """Columns of several families, independent of one another: log p(x) is the sum over the parts.

    Args:
        parts: Distributions of vectors, one for the first columns, one for the next, ...

    Example:
        >>> row = Mixed([tfd.MultivariateNormalDiag([0.0, 0.0]), tfd.Independent(tfd.Poisson([2.0]), 1)])
        >>> row.event_shape, row.mean().numpy().tolist()
        (TensorShape([3]), [0.0, 0.0, 2.0])
    """

    def __init__(self, parts: Sequence[tfd.Distribution], name: str = "Mixed"):
        self.parts = list(parts)
        self._sizes = [part.event_shape[-1] for part in self.parts]
        super().__init__(
            dtype=tf.float32,
            reparameterization_type=tfd.NOT_REPARAMETERIZED,
            validate_args=False,
            allow_nan_stats=True,
            parameters={"parts": self.parts, "name": name},
            name=name,
        )

    @classmethod
    def _parameter_properties(cls, dtype: Any, num_classes: Any = None) -> dict[str, Any]:
        raise NotImplementedError

    def _event_shape(self) -> tf.TensorShape:
        return tf.TensorShape([sum(self._sizes)])

    def _event_shape_tensor(self) -> tf.Tensor:
        return tf.constant([sum(self._sizes)])

    def _batch_shape(self) -> tf.TensorShape:
        return self.parts[0].batch_shape

    def _batch_shape_tensor(self) -> tf.Tensor:
        return self.parts[0].batch_shape_tensor()

    def _log_prob(self, x: tf.Tensor) -> tf.Tensor:
        columns = tf.split(x, self._sizes, axis=-1)
        return tf.add_n([part.log_prob(some) for part, some in zip(self.parts, columns, strict=True)])

    def _sample_n(self, n: Any, seed: Any = None) -> tf.Tensor:
        seeds = tfp_random.split_seed(seed, n=len(self.parts))
        drawn = [part.sample(n, seed=one) for part, one in zip(self.parts, tf.unstack(seeds), strict=True)]
        return tf.concat([tf.cast(some, tf.float32) for some in drawn], axis=-1)

    def _mean(self) -> tf.Tensor:
        return tf.concat([tf.cast(draws.mean(part), tf.float32) for part in self.parts], axis=-1)

    def _stddev(self) -> tf.Tensor:
        return tf.concat([tf.cast(draws.stddev(part), tf.float32) for part in self.parts], axis=-1)


def centre(distribution: tfd.Distribution, weights: tf.Tensor) -> tf.Tensor:
    """Σ_k w_k E[x|z_k], ``[B, *event]``, for p(x|z_k) of batch ``[K, B]``; of classes the likeliest of the mixture.

    Where a mean does not exist or says nothing, the mode stands in for it, as in ``draws.mean``.

    Example:
        >>> p = tfd.Independent(tfd.Normal([[[1.0]], [[3.0]]], 1.0), 1)
        >>> centre(p, tf.constant([[0.25], [0.75]])).numpy().tolist()
        [[2.5]]
    """
    if isinstance(distribution, Mixed):
        return tf.concat([centre(part, weights) for part in distribution.parts], axis=-1)
    if isinstance(distribution, _Independent) and isinstance(distribution.distribution, (Categorical, OrderedLogistic)):
        probs = _weighted(tf.exp(distribution.distribution.log_probs()), weights)
        return tf.cast(tf.argmax(probs, axis=-1), tf.float32)
    return _weighted(tf.cast(draws.mean(distribution), tf.float32), weights)


def _weighted(values: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Σ_k w_k of values ``[K, B, ...]``."""
    one_each = tf.concat([tf.shape(weights), tf.ones([values.shape.rank - 2], tf.int32)], axis=0)
    return tf.reduce_sum(tf.reshape(weights, one_each) * values, axis=0)
