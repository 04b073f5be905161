"""Normal families."""

from typing import Any

import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfvae.families.random import standard_normal


class Normal(tfd.Normal):
    """TFP's Normal, drawn by ``standard_normal``.

    Example:
        >>> bool(Normal(1.0, 2.0).sample(seed=(1, 2)) == 1.0 + 2.0 * standard_normal([], seed=(1, 2)))
        True
    """

    def _sample_n(self, n: Any, seed: Any = None) -> tf.Tensor:
        loc, scale = tf.convert_to_tensor(self.loc), tf.convert_to_tensor(self.scale)
        shape = tf.concat([[n], tf.broadcast_dynamic_shape(tf.shape(loc), tf.shape(scale))], axis=0)
        return loc + scale * standard_normal(shape, seed, self.dtype)
