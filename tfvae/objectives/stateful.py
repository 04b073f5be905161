"""Objectives that remember: Keras layers whose weights are the model's, called with terms as all objectives are."""

from typing import Any

import keras

from tfvae.objectives.configured import Configured
from tfvae.objectives.terms import Estimate, Terms


class Stateful(Configured, keras.layers.Layer):
    """An objective with weights, which its model saves, loads and replicates.

    A subclass whose weights are trained, against the model or beside it, has an ``optimizer`` of its own.
    """

    def __init__(self) -> None:
        keras.layers.Layer.__init__(self, dtype="float32")
        self.built = True

    def __call__(self, terms: Terms) -> Estimate:
        """See the subclass; Keras's own ``__call__`` takes tensors alone."""
        raise NotImplementedError

    def add_state(self, name: str, value: float) -> Any:
        """A number that steps of training assign; each replica has its own, of which the mean is read."""
        initial = keras.initializers.Constant(value)
        kind = {"synchronization": "on_read", "aggregation": "mean", "trainable": False}
        return keras.Variable(initial, shape=(), dtype="float32", name=name, **kind)
