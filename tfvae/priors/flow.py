"""Priors that are flows: N(0, I) through steps made of networks, of which the density is the cheap direction."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfvae import families, flows
from tfvae.families.flow import Inverted
from tfvae.priors.base import Prior


@keras.saving.register_keras_serializable("tfvae", name="FlowPrior")
class Flow(Prior):
    """p(z) = N(f(z); 0, I) |det df/dz|, f invertible and learned (arXiv 1605.08803; masked: arXiv 1705.07057).

    A density takes one call of a network a step. So does a draw of coupling layers, all but the same number; of masked
    autoregressive flows it takes D.

    Args:
        latent_dim: D.
        num_flows: Steps; the units take turns.
        hidden: Hidden units of each network.
        transform: "affine" (RealNVP), "spline" (neural spline flows) or "gate"; see ``flows.Autoregressive``.
        is_coupling: Whether a step sees half of the units, or, as a masked autoregressive flow, all units before.
        name: Keras's.

    Example:
        >>> Flow(2, hidden=[8])().sample(5, seed=(0, 1)).shape
        TensorShape([5, 2])
    """

    def __init__(
        self,
        latent_dim: int,
        num_flows: int = 4,
        hidden: Sequence[int] = (64, 64),
        transform: str = "affine",
        is_coupling: bool = True,
        name: str = "prior",
    ):
        super().__init__(latent_dim, name=name)
        options = {"hidden": hidden, "transform": transform, "is_coupling": is_coupling}
        self.flows = flows.stack(num_flows, latent_dim=latent_dim, **options)
        for flow in self.flows:
            flow.build()
        self._options = {"num_flows": num_flows, **options, "hidden": list(hidden)}

    def distribution(self, condition: tf.Tensor | None = None) -> tfd.Distribution:
        """See ``Prior.distribution``."""
        zeros = tf.zeros([self.latent_dim])
        base = tfd.Independent(families.Normal(zeros, zeros + 1.0), 1)
        return families.Flow(base, [Inverted(flow.step()) for flow in self.flows])

    def get_config(self) -> dict[str, Any]:
        return {"latent_dim": self.latent_dim, **self._options, "name": self.name}


@keras.saving.register_keras_serializable("tfvae", name="AutoregressivePrior")
class Autoregressive(Flow):
    """p(z) = Π_d N(z_d; m(z_1, ..., z_d-1), s(z_1, ..., z_d-1)²), m and s of one ``networks.Masked``.

    Args:
        latent_dim: D.
        hidden: Hidden units of the network.
        name: Keras's.

    Example:
        >>> round(float(tf.reduce_mean(Autoregressive(2, hidden=[8])().log_prob(tf.zeros([1, 2])))), 1)
        -1.8
    """

    def __init__(self, latent_dim: int, hidden: Sequence[int] = (256, 256), name: str = "prior"):
        super().__init__(latent_dim, 1, hidden, is_coupling=False, name=name)

    def get_config(self) -> dict[str, Any]:
        return {"latent_dim": self.latent_dim, "hidden": self._options["hidden"], "name": self.name}
