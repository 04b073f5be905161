"""What an objective is given and what it returns: the terms of a batch, and an estimate of a bound."""

import dataclasses
from typing import Any

import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfvae import divergences


@dataclasses.dataclass(frozen=True)
class Latent:
    """One latent variable of a batch: K samples, B rows, all in nats. A ladder has several, each given those above.

    Attributes:
        z: Samples, ``[K, B, D]``.
        posterior: q(z|x), batch shape ``[B]``.
        prior: p(z), batch shape ``[]`` or ``[B]``.
        log_posterior: log q(z|x), ``[K, B]``.
        log_prior: log p(z), ``[K, B]``.
        kl: KL(q(z|x)‖p(z)), ``[B]``: exact where ``kl_is_exact``, else the mean of log q(z|x) - log p(z) over K.
        kl_is_exact: Whether TFP knows a closed form for this pair.
        held: q(z|x) whose parameters take no gradient.
    """

    z: tf.Tensor
    posterior: tfd.Distribution
    prior: tfd.Distribution
    log_posterior: tf.Tensor
    log_prior: tf.Tensor
    kl: tf.Tensor
    kl_is_exact: bool
    held: tfd.Distribution | None = None

    @property
    def log_posterior_held(self) -> tf.Tensor:
        """log q(z|x) as a function of z alone, ``[K, B]``: the gradient reaches q's parameters through z only."""
        if self.held is None:
            raise ValueError("This latent has no q(z|x) with held parameters: its posterior layer must offer `held`.")
        return self.held.log_prob(self.z)

    @property
    def log_posterior_at_held_z(self) -> tf.Tensor:
        """log q(z|x) as a function of q's parameters alone, ``[K, B]``: no gradient goes through z."""
        return self.posterior.log_prob(tf.stop_gradient(self.z))

    def kl_by_unit(self) -> tf.Tensor:
        """KL(q‖p) of each unit of z, ``[B, D]``; see ``divergences.kl_by_unit``."""
        if not all(map(divergences.has_independent_units, (self.posterior, self.prior))):
            return self.kl[..., tf.newaxis]  # a flow's density at z is known from the draw, and dear to find again
        return divergences.kl_by_unit(self.posterior, self.prior, self.z)


@dataclasses.dataclass(frozen=True)
class Terms:
    """Everything an objective may need of one batch: K samples, B rows, all in nats.

    Attributes:
        latents: The latent variables, at least one; sums over them are read from the terms themselves.
        log_likelihood: log p(x|z), ``[K, B]``.
        weights: What each row counts, ``[B]``; 0 for a row that only fills the batch. Statistics over a batch are
            weighted by them.
        step: Steps of the optimiser so far, a scalar int: where a schedule stands.
        seed: What an objective that draws may draw from, int32 ``[2]``.
        training: Whether a step of training follows: an objective with a state moves it then alone.
    """

    latents: tuple[Latent, ...]
    log_likelihood: tf.Tensor
    weights: tf.Tensor | None = None
    step: tf.Tensor | None = None
    seed: tf.Tensor | None = None
    training: bool = False

    @property
    def row_weights(self) -> tf.Tensor:
        """``weights``, or ones where there are none, ``[B]``."""
        return tf.ones(tf.shape(self.log_likelihood)[1:]) if self.weights is None else self.weights

    def batch_mean(self, values: tf.Tensor) -> tf.Tensor:
        """The weighted mean over the rows of ``[B, ...]``, ``[...]``; 0 where nothing counts."""
        return tf.math.divide_no_nan(tf.tensordot(self.row_weights, values, 1), tf.reduce_sum(self.row_weights))

    @property
    def z(self) -> Any:
        """The samples ``[K, B, D]``, a tuple of them where there are several latents."""
        return self.latents[0].z if len(self.latents) == 1 else tuple(latent.z for latent in self.latents)

    @property
    def log_prior(self) -> tf.Tensor:
        """log p(z), ``[K, B]``."""
        return _sum(latent.log_prior for latent in self.latents)

    @property
    def log_posterior(self) -> tf.Tensor:
        """log q(z|x), ``[K, B]``."""
        return _sum(latent.log_posterior for latent in self.latents)

    @property
    def log_posterior_held(self) -> tf.Tensor:
        """See ``Latent.log_posterior_held``."""
        return _sum(latent.log_posterior_held for latent in self.latents)

    @property
    def log_posterior_at_held_z(self) -> tf.Tensor:
        """See ``Latent.log_posterior_at_held_z``."""
        return _sum(latent.log_posterior_at_held_z for latent in self.latents)

    @property
    def kl(self) -> tf.Tensor:
        """KL(q(z|x)‖p(z)), ``[B]``; see ``Latent.kl``."""
        return _sum(latent.kl for latent in self.latents)

    @property
    def kl_is_exact(self) -> bool:
        """Whether the KL of every latent is exact."""
        return all(latent.kl_is_exact for latent in self.latents)

    @property
    def log_joint(self) -> tf.Tensor:
        """log p(x, z) = log p(x|z) + log p(z), ``[K, B]``."""
        return self.log_likelihood + self.log_prior

    @property
    def log_weight(self) -> tf.Tensor:
        """log w = log p(x|z) + log p(z) - log q(z|x), ``[K, B]``."""
        return self.log_likelihood + self.log_prior - self.log_posterior

    def kl_by_unit(self) -> tf.Tensor:
        """KL(q‖p) of each unit of every latent, ``[B, D₁ + D₂ + ...]``."""
        return tf.concat([latent.kl_by_unit() for latent in self.latents], axis=-1)


def _sum(parts: Any) -> tf.Tensor:
    first, *rest = parts
    return sum(rest, start=first)


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What an objective returns, in nats, to be maximised.

    Attributes:
        bound: A lower bound on log p(x), ``[B]``: what is reported.
        surrogate: What is differentiated, ``[B]``.
        path_weight: Times what the gradient that comes back through z counts, ``[K, B]`` or a scalar: 0 makes the score
            function of it, normalised weights make DReG. None leaves it as it is.
        objective: What is maximised, ``[B]``, where that is not the bound (a weighted KL, say); it is reported as the
            loss, with its sign changed.
    """

    bound: tf.Tensor
    surrogate: tf.Tensor
    path_weight: tf.Tensor | float | None = None
    objective: tf.Tensor | None = None
