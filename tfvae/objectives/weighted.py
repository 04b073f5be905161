"""Objectives that weigh the KL: small classes with settings, which a schedule of Keras's may move from step to step."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tfvae.objectives.elbo import elbo
from tfvae.objectives.terms import Estimate, Terms

Schedule = Callable[[tf.Tensor], tf.Tensor] | float  # Keras's schedules are such functions


def at_step(setting: Schedule, step: tf.Tensor | None) -> tf.Tensor:
    """A setting's value at a step of the optimiser, inside the program: a number, or a schedule of Keras's.

    Example:
        >>> warm_up = keras.optimizers.schedules.PolynomialDecay(0.0, decay_steps=100, end_learning_rate=1.0)
        >>> float(at_step(0.5, tf.constant(50))), float(at_step(warm_up, tf.constant(50)))
        (0.5, 0.5)
    """
    value = setting(tf.constant(0) if step is None else step) if callable(setting) else setting
    return tf.cast(value, tf.float32)


class _Scheduled:
    """An objective whose settings are its constructor's arguments, kept as attributes of the same names."""

    _arguments: tuple[str, ...] = ()

    def get_config(self) -> dict[str, Any]:
        """The settings, schedules as Keras serialises them."""
        return {name: keras.saving.serialize_keras_object(getattr(self, name)) for name in self._arguments}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        return cls(**{name: keras.saving.deserialize_keras_object(value) for name, value in config.items()})


@keras.saving.register_keras_serializable("tfvae")
class Weighted(_Scheduled):
    """E log p(x|z) - β KL(q(z|x)‖p(z)): the β-VAE (Higgins et al., 2017, equation 4), or a warm-up of the KL.

    The ELBO is reported beside it; the loss is what is minimised. β = 1 is the ELBO itself.

    Args:
        beta: β, 0 or more: a number, or a schedule of Keras's over the optimiser's steps. For a warm-up over 10,000
            steps (Bowman et al., arXiv 1511.06349): ``PolynomialDecay(0.0, 10_000, 1.0)``.

    Raises:
        ValueError: For a negative β.

    Example:
        >>> estimate = Weighted(beta=4.0)(terms)
        >>> estimate.bound.numpy().tolist(), estimate.objective.numpy().tolist()
        ([2.0, 2.0], [-1.0, -1.0])
    """

    _arguments = ("beta",)

    def __init__(self, beta: Schedule):
        if not callable(beta) and not beta >= 0:
            raise ValueError(f"beta is {beta}, expected 0 or more, or a schedule of keras.optimizers.schedules.")
        self.beta = beta

    def __call__(self, terms: Terms) -> Estimate:
        """See ``Weighted``."""
        kl = terms.kl if terms.kl_is_exact else tf.reduce_mean(terms.log_posterior - terms.log_prior, axis=0)
        gain = tf.reduce_mean(terms.log_likelihood, axis=0) - at_step(self.beta, terms.step) * kl
        return Estimate(elbo(terms).bound, gain, objective=gain)


@keras.saving.register_keras_serializable("tfvae")
class FreeBits(_Scheduled):
    """The ELBO in which no unit is paid for less than a floor (Kingma et al., arXiv 1606.04934, equation 15).

    E log p(x|z) - Σ_d max(λ, KL_d), KL_d the mean over the batch of the KL of unit d: a unit below λ nats is under no
    pressure to say less, so that it does not collapse. Rows that fill a batch do not count in the mean. Under
    ``tf.distribute`` the mean is over a replica's own rows, as batch statistics always are in Keras.

    Args:
        nats: λ, for each unit: a number, or a schedule of Keras's over the optimiser's steps. 0 is the ELBO.

    Raises:
        ValueError: For a negative λ.

    Example:
        >>> FreeBits(0.25)(terms).objective.numpy().tolist()  # one unit, of KL 1 nat, here estimated as 0
        [2.75, 2.75]
    """

    _arguments = ("nats",)

    def __init__(self, nats: Schedule = 0.25):
        if not callable(nats) and not nats >= 0:
            raise ValueError(f"nats is {nats}, expected 0 or more, or a schedule of keras.optimizers.schedules.")
        self.nats = nats

    def __call__(self, terms: Terms) -> Estimate:
        """See ``FreeBits``."""
        kl = terms.kl_by_unit()
        weights = tf.ones_like(kl[:, 0]) if terms.weights is None else terms.weights
        mean = tf.math.divide_no_nan(tf.linalg.matvec(kl, weights, transpose_a=True), tf.reduce_sum(weights))
        paid = tf.reduce_sum(tf.maximum(at_step(self.nats, terms.step), mean))
        gain = tf.reduce_mean(terms.log_likelihood, axis=0) - paid
        return Estimate(elbo(terms).bound, gain, objective=gain)
