"""A sigmoid between two ends whose gradient is a number everywhere: TFP's is NaN in float32 from 88.8 on."""

from typing import Any

import tensorflow as tf
from tensorflow_probability import bijectors as tfb

_SMALL = -9.0  # below, exp(x) is σ(x) to float32's last digit, and σ itself may have lost some


class Sigmoid(tfb.Sigmoid):
    """low + (high - low) σ(x), 0 to 1 where no ends are given.

    TFP computes exp(x) for every x and takes it where x is small. Where it is infinite its gradient, which counts 0
    times, makes a NaN: a pixel that is always white brings a decoder there.

    Example:
        >>> with tf.GradientTape() as tape:
        ...     tape.watch(x := tf.constant([-1000.0, 0.0, 1000.0]))
        ...     y = Sigmoid(1.0, 3.0).forward(x)
        >>> y.numpy().tolist(), tape.gradient(y, x).numpy().tolist()
        ([1.0, 2.0, 3.0], [0.0, 0.5, 0.0])
    """

    def _forward(self, x: Any) -> tf.Tensor:
        if self._is_standard_sigmoid:
            return _sigmoid(x)
        low, high = tf.convert_to_tensor(self.low), tf.convert_to_tensor(self.high)
        return tf.where(x < 0, low + (high - low) * _sigmoid(x), high - (high - low) * _sigmoid(-x))


def _sigmoid(x: tf.Tensor) -> tf.Tensor:
    return tf.where(x < _SMALL, tf.exp(tf.minimum(x, _SMALL)), tf.sigmoid(x))
