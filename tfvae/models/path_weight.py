"""The weight of the gradient that comes back through z: one number in place of a second surrogate and a second tape."""

from collections.abc import Callable

import tensorflow as tf


class PathWeight:
    """What the gradient that comes back through z counts: known once the objective has seen z, so bound late."""

    weight: tf.Tensor | float | None = None

    def of(self, z: tf.Tensor) -> tf.Tensor:
        """z ``[K, B, D]``, whose gradient is multiplied by ``weight``, ``[K, B]`` or a scalar, where there is one."""

        @tf.custom_gradient
        def weighted(z: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
            def gradient(upstream: tf.Tensor) -> tf.Tensor:
                return (
                    upstream if self.weight is None else upstream * tf.convert_to_tensor(self.weight)[..., tf.newaxis]
                )

            return tf.identity(z), gradient

        return weighted(z)
