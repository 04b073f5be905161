"""Which latent units a model uses."""

from typing import Any

import numpy as np

from tfvae.models.vae import VAE


def active_units(vae: VAE, x: Any, threshold: float = 0.01) -> int:
    """Latent units with Var_x E_q[z] above the threshold: those the model uses (arXiv 1509.00519, section 5).

    Example:
        >>> from tfvae import networks, likelihoods, posteriors
        >>> vae = VAE(networks.mlp([4]), networks.mlp([4]), posteriors.diagonal_normal(2), likelihoods.bernoulli([8]))
        >>> active_units(vae, np.zeros([8, 8], "float32"))
        0
    """
    return int(np.sum(np.var(vae.embed(x), axis=0) > threshold))
