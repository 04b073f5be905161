"""Optimisers that Keras lacks and a paper asks for."""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("tfvae")
class NormalizedAdam(keras.optimizers.Adam):
    """Adam of each weight's gradient divided by its norm, as the VampPrior's and Exemplar VAE's authors train.

    Adam alone forgets the scale of a gradient that stays the same; this forgets that of each step.

    Example:
        >>> weight = keras.Variable([0.0, 0.0])
        >>> optimizer = NormalizedAdam(0.1)
        >>> optimizer.apply([tf.constant([30.0, 40.0])], [weight])
        >>> optimizer._momentums[0].numpy().round(2).tolist() == np.float32([0.06, 0.08]).tolist()
        True
    """

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """See Keras."""
        gradient = ops.cast(gradient, variable.dtype)
        length = ops.sqrt(ops.sum(ops.square(gradient)))
        super().update_step(gradient / (length + 1e-12), variable, learning_rate)
