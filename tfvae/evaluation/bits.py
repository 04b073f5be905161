"""Bits per dimension: nats of a picture as they compare between sizes, where they are of its 8-bit levels."""

import math
from collections.abc import Sequence
from typing import Any

from tfvae import observations
from tfvae.arguments import check_number, checked_shape
from tfvae.evaluation.samples import numbers
from tfvae.families import facts
from tfvae.models.vae import VAE, check_vae

# Their probabilities are those of the levels themselves.
_OF_LEVELS = (facts.COUNTS, facts.SUCCESSES, facts.LABELS, facts.LEVELS)


def bits_per_dimension(nats: Any, event_shape: Sequence[int], bin_width: float = 1.0) -> Any:
    """-(log p + D log w) / (D log 2) for log p in nats, a number or an array, of D = ∏ ``event_shape`` numbers.

    Args:
        nats: log p(x) or a bound on it. Of a lower bound the bits are an upper one.
        event_shape: Shape of one observation.
        bin_width: w, the width of a level where p is a density: 1/256 where x is (b + u) / 256 of the level b (Theis
            et al., arXiv 1511.01844, section 3.1). 1 where p is a probability of the levels themselves.

    Example:
        >>> bits_per_dimension(0.0, [28, 28, 1], bin_width=1 / 256)  # uniform on [0, 1)
        8.0
    """
    check_number(0, is_open=True, bin_width=bin_width)
    if not isinstance(nats, float):
        nats = numbers("nats", nats, "a number, or an array of numbers")
    size = math.prod(checked_shape("event_shape", event_shape))
    return -(nats + size * math.log(bin_width)) / (size * math.log(2.0))


def level_width(vae: VAE) -> float:
    """The ``bin_width`` of a model of 8-bit levels.

    Raises:
        ValueError: If what its likelihood scores are no levels. Greys under a Bernoulli are probabilities of a 1, and
            a density of levels without noise can be made as large as one likes.

    Example:
        >>> from tfvae import likelihoods, networks, posteriors
        >>> made = {"likelihood": likelihoods.sigmoid_normal([8]), "noise": observations.Dequantized()}
        >>> level_width(VAE(networks.mlp([4]), networks.mlp([4]), posterior=posteriors.diagonal_normal(2), **made))
        0.00390625
    """
    check_vae(vae)
    if vae.likelihood.missing:
        raise ValueError("Rows of which numbers are missing have not all the same number of dimensions to divide by.")
    if isinstance(vae.noise, observations.Dequantized):
        return 1 / 256
    if vae.likelihood.facts is not None and vae.likelihood.facts.support in _OF_LEVELS:
        return 1.0
    family = vae.likelihood.family.__name__
    raise ValueError(
        f"The {family} likelihood of this model scores no 8-bit levels, so that its nats have no bits per dimension: "
        "take a probability of levels, such as likelihoods.discretized_logistic, or a density of real numbers with "
        "noise=observations.Dequantized()."
    )
