"""Objectives that weigh the KL: small classes with settings, which a schedule of Keras's may move from step to step."""

import keras
import tensorflow as tf

from tfvae.arguments import check_at_least
from tfvae.objectives.configured import Configured, Schedule, at_step, check_schedule
from tfvae.objectives.elbo import elbo
from tfvae.objectives.terms import Estimate, Latent, Terms


@keras.saving.register_keras_serializable("tfvae")
class Weighted(Configured):
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
        check_schedule("beta", beta)
        self.beta = beta

    def __call__(self, terms: Terms) -> Estimate:
        """See ``Weighted``."""
        kl = terms.kl if terms.kl_is_exact else tf.reduce_mean(terms.log_posterior - terms.log_prior, axis=0)
        gain = tf.reduce_mean(terms.log_likelihood, axis=0) - at_step(self.beta, terms.step) * kl
        return Estimate(elbo(terms).bound, gain, objective=gain)


@keras.saving.register_keras_serializable("tfvae")
class Capacity(Configured):
    """E log p(x|z) - γ |KL - C|: a KL held at C nats, which grow (Burgess et al., arXiv 1804.03599, equation 8).

    KL is the mean over the batch, in which rows that fill it do not count. Under ``tf.distribute`` the mean is over a
    replica's own rows.

    Args:
        capacity: C in nats, 0 or more: a number, or a schedule over the optimiser's steps; the paper's by default,
            from 0 to 25 nats over 100,000 steps.
        gamma: γ, 0 or more.

    Raises:
        ValueError: For a negative number.

    Example:
        >>> Capacity(3.0, gamma=2.0)(terms).objective.numpy().tolist()  # log p(x|z) is 3, KL is 1
        [-1.0, -1.0]
    """

    _arguments = ("capacity", "gamma")

    def __init__(self, capacity: Schedule | None = None, gamma: float = 1000.0):
        self.capacity = keras.optimizers.schedules.PolynomialDecay(0.0, 100_000, 25.0) if capacity is None else capacity
        self.gamma = gamma
        check_schedule("capacity", self.capacity)
        check_schedule("gamma", gamma)

    def __call__(self, terms: Terms) -> Estimate:
        """See ``Capacity``."""
        off = tf.abs(terms.batch_mean(terms.kl) - at_step(self.capacity, terms.step))
        gain = tf.reduce_mean(terms.log_likelihood, axis=0) - self.gamma * off
        return Estimate(elbo(terms).bound, gain, objective=gain)


@keras.saving.register_keras_serializable("tfvae")
class FreeBits(Configured):
    """The ELBO in which no unit is paid for less than a floor (Kingma et al., arXiv 1606.04934, equation 15).

    E log p(x|z) - Σ_d max(λ, KL_d), KL_d the mean over the batch of the KL of unit d: a unit below λ nats is under no
    pressure to say less, so that it does not collapse. Rows that fill a batch do not count in the mean. Under
    ``tf.distribute`` the mean is over a replica's own rows, as batch statistics always are in Keras.

    Args:
        nats: λ, for each group of units: a number, or a schedule of Keras's over the optimiser's steps. 0 is the ELBO.
        group_size: Units in a group, neighbours in z; a floor of each unit by default. Where the posterior or the prior
            ties units together (a flow, a mixture, full covariance) their KL is one number: give all of them.
        each_row: Whether the floor holds for each row by itself, and not for the mean over the batch.

    Raises:
        ValueError: For a negative λ, groups that do not divide the units, or that divide those that are tied together.

    Example:
        >>> FreeBits(0.25)(terms).objective.numpy().tolist()  # one unit, of KL 1 nat, here estimated as 0
        [2.75, 2.75]
    """

    _arguments = ("nats", "group_size", "each_row")

    def __init__(self, nats: Schedule = 0.25, group_size: int = 1, each_row: bool = False):
        check_schedule("nats", nats)
        check_at_least(1, group_size=group_size)
        self.nats, self.group_size, self.each_row = nats, int(group_size), bool(each_row)

    def __call__(self, terms: Terms) -> Estimate:
        """See ``FreeBits``."""
        kl = tf.concat([self._by_group(latent) for latent in terms.latents], axis=-1)
        floor = at_step(self.nats, terms.step)
        paid = tf.reduce_sum(tf.maximum(floor, kl if self.each_row else terms.batch_mean(kl)), axis=-1)
        gain = tf.reduce_mean(terms.log_likelihood, axis=0) - paid
        return Estimate(elbo(terms).bound, gain, objective=gain)

    def _by_group(self, latent: Latent) -> tf.Tensor:
        units, kl = latent.z.shape[-1], latent.kl_by_unit()
        if units % self.group_size:
            raise ValueError(f"{units} units of z cannot be divided into groups of {self.group_size}: take a divisor.")
        if kl.shape[-1] == units:
            return tf.reduce_sum(tf.reshape(kl, [-1, units // self.group_size, self.group_size]), axis=-1)
        if self.group_size != units:
            raise ValueError(
                f"FreeBits has a floor for each group of {self.group_size} of {units} units, but this posterior or "
                f"prior ties them together, and their KL is one number: give group_size={units}, and nats for all."
            )
        return kl
