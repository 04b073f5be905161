"""q(z|x) as a flow of networks that see the encoder's features."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfvae.arguments import check_latent_dim
from tfvae.distribution_layer import DistributionLayer, Family
from tfvae.families.flow import Flow
from tfvae.flows.autoregressive import stack


@keras.saving.register_keras_serializable("tfvae")
class FlowPosterior(DistributionLayer):
    """Maps features ``[B, F]`` to a diagonal normal, carried through autoregressive steps that see the features too.

    See ``posteriors.inverse_autoregressive`` and ``posteriors.coupling``.

    Args:
        latent_dim: D.
        num_flows: Steps.
        transform, hidden, is_coupling: See ``flows.Autoregressive``.
        name: Keras's.

    Example:
        >>> FlowPosterior(2, 4, hidden=[8], is_coupling=True)(tf.zeros([5, 16])).batch_shape
        TensorShape([5])
    """

    def __init__(
        self,
        latent_dim: int,
        num_flows: int = 2,
        transform: str = "gate",
        hidden: Sequence[int] = (320,),
        is_coupling: bool = False,
        name: str = "posterior",
        trainable: bool = True,
    ):
        check_latent_dim(latent_dim)
        super().__init__("Normal", [latent_dim], name=name, trainable=trainable)
        options = {"transform": transform, "hidden": hidden, "is_coupling": is_coupling}
        self.flows = stack(num_flows, latent_dim=latent_dim, **options)
        self._options = {"num_flows": num_flows, **options, "hidden": list(hidden)}

    def build(self, input_shape: Sequence[int | None]) -> None:
        super().build(input_shape)
        for flow in self.flows:
            flow.build(input_shape[-1])

    def _of_rows(self, features: tf.Tensor, parameters: Any, is_held: bool = False) -> tfd.Distribution:
        context = tf.cast(features, tf.float32)
        context = tf.stop_gradient(context) if is_held else context
        base = super()._of_rows(features, parameters)
        return Flow(base, [flow.step(context, is_held) for flow in self.flows])

    def describe(self) -> Family:
        """See ``DistributionLayer.describe``."""
        kind = "coupling layers" if self._options["is_coupling"] else "autoregressive steps"
        name = f"Normal through {self._options['transform']} {kind}"
        return Family(name, {"num_flows": self._options["num_flows"]}, [], {})

    def get_config(self) -> dict[str, Any]:
        return {"latent_dim": self.event_shape[-1], **self._options, "name": self.name, "trainable": self.trainable}
