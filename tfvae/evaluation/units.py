"""Which latent units a model uses, and what each of them costs."""

from typing import Any

import numpy as np
import tensorflow as tf

from tfvae.arguments import check_number, some
from tfvae.divergences import kl_by_unit as kl_of_units
from tfvae.evaluation.estimate import over_rows
from tfvae.models.vae import VAE, check_vae
from tfvae.posteriors import draw


def active_units(vae: VAE, x: Any, threshold: float = 0.01) -> int:
    """Latent units with Var_x E_q[z] above the threshold: those the model uses (arXiv 1509.00519, section 5).

    Raises:
        ValueError: If x has fewer than two rows, among which a mean would vary.

    Example:
        >>> from tfvae import networks, likelihoods, posteriors
        >>> vae = VAE(networks.mlp([4]), networks.mlp([4]), posteriors.diagonal_normal(2), likelihoods.bernoulli([8]))
        >>> active_units(vae, np.zeros([8, 8], "float32"))
        0
    """
    check_vae(vae)
    check_number(0, threshold=threshold)
    means = some(vae.embed(x), "estimate")
    if len(means) == 1:
        raise ValueError("x has one row, expected two or more: a unit is active where its mean varies among them.")
    return int(np.sum(np.var(means, axis=0) > threshold))


def kl_by_unit(vae: VAE, x: Any, seed: int = 0, batch_size: int = 1024) -> np.ndarray:
    """KL(q(z_d|x)‖p(z_d)) of each latent unit d, the mean over rows, NumPy ``[D]``, nats.

    They sum to the KL of the bound. Where the marginals have no closed form it is an estimate from one draw a row,
    which ``seed`` fixes. Where posterior or prior tie the units together, no unit has one: all are one, ``[1]``.

    Raises:
        ValueError: If x has no rows.

    Example:
        >>> from tfvae import networks, likelihoods, posteriors
        >>> vae = VAE(networks.mlp([4]), networks.mlp([4]), posteriors.diagonal_normal(2), likelihoods.bernoulli([8]))
        >>> kl_by_unit(vae, np.eye(8, dtype="float32")).shape
        (2,)
    """
    check_vae(vae)

    def of_rows(rows: Any, seed: tf.Tensor) -> tf.Tensor:  # eager: a program would be compiled for a few batches
        batch = vae.batch(rows)
        q = vae.encode(batch)
        return kl_of_units(q, vae.prior(batch.condition), draw(q, 1, seed)[0])

    return over_rows(of_rows, vae, x, batch_size, seed, None).mean(axis=0)
