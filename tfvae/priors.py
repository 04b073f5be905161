"""p(z): priors as Keras layers.

A prior depends on no input, so it is asked for its ``distribution()``. As a Keras layer it trains, saves and loads with
its model.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import keras
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfvae.distribution_layer import DistributionLayer
from tfvae.families import facts


@keras.saving.register_keras_serializable("tfvae")
class Prior(DistributionLayer):
    """A prior of any family with fixed parameters; ``prior.distribution()`` is p(z).

    Args:
        distribution: A class of ``tfp.distributions`` or its name.
        event_shape: ``[latent_dim]``.
        **fixed: A value for every parameter of the family.

    Raises:
        ValueError: If a parameter has no value, or see ``DistributionLayer``.

    Example:
        >>> Prior("Gamma", [3], concentration=2.0, rate=1.0).distribution().mean().numpy().tolist()
        [2.0, 2.0, 2.0]
    """

    def __init__(self, distribution: str | type, event_shape: Sequence[int], **fixed: Any):
        super().__init__(distribution, event_shape, **fixed)
        if self._free:
            missing = ", ".join(parameter.name for parameter in self._free)
            raise ValueError(f"The prior {self.family.__name__} needs a fixed value for: {missing}.")
        self.built = True

    def distribution(self) -> tfd.Distribution:  # type: ignore[override]
        """p(z), batch shape ``[]``, event shape ``[D]``."""
        return super().distribution(self.constants())

    def call(self, features: tf.Tensor) -> tfd.Distribution:
        """p(z) whatever the features: Keras wants layers to be callable on one input."""
        return self.distribution()

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        return {
            k: v
            for k, v in config.items()
            if k not in ("constraints", "shared") and "kernel" not in k and "bias" not in k
        }


@keras.saving.register_keras_serializable("tfvae")
class StandardNormal(Prior):
    """The paper's prior, p(z) = N(0, I).

    Example:
        >>> round(float(StandardNormal(2).distribution().log_prob([0.0, 0.0])), 4)
        -1.8379
    """

    def __init__(self, latent_dim: int, name: str = "prior"):
        super().__init__("Normal", [latent_dim], loc=0.0, scale=1.0, name=name)

    def get_config(self) -> dict[str, Any]:
        return {"latent_dim": self.event_shape[0], "name": self.name}


@keras.saving.register_keras_serializable("tfvae")
class WeightPrior:
    """The prior on the generative weights, p(θ) = N(0, scale²), for the MAP estimate of the paper's section 5.

    The paper maximises (N/M) Σ L(x) + log p(θ). Divided by N that is the mean bound plus log p(θ) / N, the scaling that
    ``fit`` uses; it depends on the rows of the dataset, so they have to be said. The prior is on weight matrices and
    kernels, not on biases.

    Args:
        num_rows: N, the rows of the training data.
        scale: Standard deviation of a weight.

    Example:
        >>> round(float(WeightPrior(num_rows=10)([tf.zeros([2, 3]), tf.ones([7])])), 4)  # 6 log N(0; 0, 1) / 10
        -0.5514
    """

    def __init__(self, num_rows: int, scale: float = 1.0):
        if num_rows < 1 or scale <= 0:
            raise ValueError(f"WeightPrior needs num_rows >= 1 and scale > 0, received {num_rows} and {scale}.")
        self.num_rows, self.scale = int(num_rows), float(scale)

    def __call__(self, weights: Iterable[Any]) -> tf.Tensor:
        """log p(θ) / N, nats for each row, of those weights that are no biases."""
        normal = tfd.Normal(0.0, self.scale)
        kernels = [tf.cast(w, tf.float32) for w in weights if len(w.shape) > 1]
        return sum((tf.reduce_sum(normal.log_prob(k)) for k in kernels), start=tf.constant(0.0)) / self.num_rows

    def get_config(self) -> dict[str, Any]:
        return {"num_rows": self.num_rows, "scale": self.scale}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "WeightPrior":
        return cls(**config)


def check_prior(prior: tfd.Distribution, posterior: tfd.Distribution, family: str) -> None:
    """Raise ValueError unless p(z) is a density on the set where q(z|x) lives."""
    event = posterior.event_shape
    if prior.event_shape != event:
        raise ValueError(
            f"The prior's event shape is {list(prior.event_shape)}, the posterior's is {list(event)}: make them equal."
        )
    free = [_degrees_of_freedom(d) for d in (posterior, prior)]
    if free[0] != free[1]:
        raise ValueError(
            f"The posterior {family} has {free[0]} degrees of freedom and the prior {free[1]}, so that KL(q‖p) is "
            f"infinite. Pass a prior on the same set, such as Prior({family!r}, {list(event)}, ...)."
        )


def _degrees_of_freedom(distribution: tfd.Distribution) -> int:
    known = facts.of(distribution)
    return distribution.event_shape[-1] - (known.support.lost_dimensions if known else 0)
