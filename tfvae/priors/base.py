"""What a prior is: a layer that is asked for p(z), or for p(z|condition)."""

import abc
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfvae.arguments import check_latent_dim, check_name
from tfvae.families import facts

Encode = Callable[[tf.Tensor], tfd.Distribution]


class Prior(keras.layers.Layer, abc.ABC):
    """p(z), event shape ``[D]``. As a Keras layer it trains, saves and loads with its model.

    A subclass gives the distribution; what it learns are its weights, which are generative weights of the model. One
    that needs q(z|x) keeps what ``bind`` gives it.

    Args:
        latent_dim: D.
        name: Keras's.
    """

    # Whether it is made of training rows, so that ``in_training`` is told those of the batch, as they came: ``rows=``.
    of_rows = False
    new_rows: Any = None  # what a user has made it of, which the model checks as rows of fit, and drops

    def __new__(cls, *args: Any, **kwargs: Any) -> "Prior":
        if cls is Prior:
            raise TypeError(
                "Prior is what all priors have in common. For one family, fixed or learned, write "
                'priors.Family("Gamma", [2], concentration=1.0, rate=1.0).'
            )
        return super().__new__(cls, *args, **kwargs)

    def __init__(self, latent_dim: int, name: str = "prior"):
        check_name(name)
        super().__init__(name=name, dtype="float32")
        check_latent_dim(latent_dim)
        self.latent_dim = int(latent_dim)
        self.built = True

    @abc.abstractmethod
    def distribution(self, condition: tf.Tensor | None = None) -> tfd.Distribution:
        """p(z), batch shape ``[]``; of a prior that sees the condition ``[B, ...]``, p(z|condition), ``[B]``."""

    def __call__(self, condition: tf.Tensor | None = None) -> tfd.Distribution:
        """See ``distribution``."""
        return self.distribution(condition)

    def bind(self, encode: Encode) -> None:
        """Called by the model that takes this prior, with x ``[C, *event]`` of floats -> q(z|x) as in inference."""

    def in_training(self, condition: tf.Tensor | None, seed: tf.Tensor) -> tfd.Distribution:
        """``distribution``, as a step of training asks for it: what a prior estimates, it draws by the seed."""
        return self(condition)

    def normalize(self) -> Any:
        """Find what training had only estimated well enough to be reported: what ``priors.fit`` ends with."""

    def initialize(self, z: np.ndarray, seed: int) -> None:
        """Start from draws ``[N, D]`` of the aggregate posterior: what ``priors.fit`` calls before its first step."""


def check_latent_dims(prior: Prior, latent_dim: int) -> None:
    """Raise ValueError unless the prior is of the posterior's z: one made of q(z|x) gives that, whatever it was told.

    Example:
        >>> from tfvae import priors
        >>> check_latent_dims(priors.StandardNormal(2), 2)
    """
    if prior.latent_dim != latent_dim:
        raise ValueError(
            f"The prior's event shape is [{prior.latent_dim}], the posterior's is [{latent_dim}]: make them equal."
        )


def check_prior(prior: tfd.Distribution, posterior: tfd.Distribution, family: str) -> None:
    """Raise ValueError unless p(z) is a density on the set where q(z|x) lives."""
    event: Sequence[int] = posterior.event_shape
    if prior.event_shape != event:
        raise ValueError(
            f"The prior's event shape is {list(prior.event_shape)}, the posterior's is {list(event)}: make them equal."
        )
    free = [_degrees_of_freedom(d) for d in (posterior, prior)]
    if free[0] != free[1]:
        raise ValueError(
            f"The posterior {family} has {free[0]} degrees of freedom and the prior {free[1]}, so that KL(q‖p) is "
            f"infinite. Pass a prior on the same set, such as priors.Family({family!r}, {list(event)}, ...)."
        )


def _degrees_of_freedom(distribution: tfd.Distribution) -> int:
    known = facts.of(distribution)
    return distribution.event_shape[-1] - (known.support.lost_dimensions if known else 0)
