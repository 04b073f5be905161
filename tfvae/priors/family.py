"""A prior of one family, fixed or learned."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfvae import distribution_layer
from tfvae.arguments import check_latent_dim, checked_shape
from tfvae.distribution_layer import DistributionLayer
from tfvae.families import facts
from tfvae.priors.base import Prior


@keras.saving.register_keras_serializable("tfvae", name="Prior")  # as files of 0.1 have it
class Family(Prior):
    """A prior of any family whose every parameter is fixed or shared; ``prior()`` is p(z).

    Args:
        distribution: A class of ``tfp.distributions`` or its name, or one of ``families``.
        event_shape: ``[latent_dim]``.
        shared: Parameters that are learned; see ``DistributionLayer``.
        **fixed: A value for every other parameter of the family.

    Raises:
        ValueError: If a parameter is neither fixed nor shared, or see ``DistributionLayer``.

    Example:
        >>> Family("Gamma", [3], concentration=2.0, rate=1.0)().mean().numpy().tolist()
        [2.0, 2.0, 2.0]
        >>> [tuple(weight.shape) for weight in Family("Normal", [3], shared=["loc", "scale"]).trainable_weights]
        [(3,), (3,)]
    """

    def __init__(
        self,
        distribution: str | type,
        event_shape: Sequence[int],
        *,
        shared: Sequence[str] | Mapping[str, Sequence[int]] = (),
        name: str = "prior",
        trainable: bool = True,
        **fixed: Any,
    ):
        event_shape = checked_shape("event_shape", event_shape)
        if not event_shape:
            raise ValueError("event_shape is [], expected [latent_dim].")
        super().__init__(event_shape[-1], name=name)
        self.layer = DistributionLayer(distribution, event_shape, shared=shared, name="family", **fixed)
        self.trainable = trainable
        if self.layer.free:
            missing = ", ".join(self.layer.free)
            raise ValueError(
                f"The prior {self.layer.family.__name__} needs a value for: {missing}. Give it, or name it in shared= "
                "to have it learned."
            )
        self.layer.build((None, 1))

    def distribution(self, condition: tf.Tensor | None = None) -> tfd.Distribution:
        """See ``Prior.distribution``."""
        return self.layer.distribution(self.layer.constants())

    def describe(self) -> distribution_layer.Family:
        """See ``DistributionLayer.describe``."""
        return self.layer.describe()

    def get_config(self) -> dict[str, Any]:
        config = self.layer.get_config()
        fixed = {name: config[name] for name in (*self.layer.fixed, *self.layer.setting)}
        own = {"distribution": config["distribution"], "event_shape": config["event_shape"], "shared": config["shared"]}
        return {**own, **fixed, "name": self.name, "trainable": self.trainable}


@keras.saving.register_keras_serializable("tfvae")
class StandardNormal(Family):
    """The paper's prior, p(z) = N(0, I).

    Example:
        >>> round(float(StandardNormal(2)().log_prob([0.0, 0.0])), 4)
        -1.8379
    """

    def __init__(self, latent_dim: int, name: str = "prior"):
        check_latent_dim(latent_dim)
        super().__init__("Normal", [latent_dim], loc=0.0, scale=1.0, name=name)

    def get_config(self) -> dict[str, Any]:
        return {"latent_dim": self.latent_dim, "name": self.name}


def check_support(prior: Prior, posterior: Any) -> None:
    """Raise ValueError where q(z|x) gives numbers at which p(z) is no density, as far as both are known."""
    known = prior.layer.facts if isinstance(prior, Family) else None
    if known is None or known.support is facts.CIRCLE:  # whose density repeats itself
        return
    name, own = prior.layer.family.__name__, posterior.family.__name__
    if known.support.has_gaps or known.support is facts.BINARY:
        raise ValueError(
            f"The prior {name} is of {known.support.words}, between which the posterior {own} gives numbers too: pass "
            "a prior of real numbers, such as priors.StandardNormal or priors.Mixture."
        )
    for side, q, p in zip(("below", "above"), _ends(posterior), _ends(prior.layer), strict=True):
        if q is not None and p is not None and np.any(np.less(q, p) if side == "below" else np.greater(q, p)):
            raise ValueError(
                f"The posterior {own} gives numbers {side} {np.ravel(p)[0]:g}, where the prior {name} has no density, "
                "so that KL(q‖p) is infinite. Pass a prior that has one there, or a posterior that keeps to its ends."
            )


def _ends(layer: Any) -> list[Any]:
    """The least and the greatest number that a family gives; None where a parameter says that is not fixed."""
    known = getattr(layer, "facts", None)
    support = facts.REAL if known is None else known.support
    ends = zip(support.between, (support.low, support.high), strict=True)
    return [layer.fixed.get(name) if name else end for name, end in ends]
