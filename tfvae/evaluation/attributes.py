"""What an attribute that some rows have, and the model was not told, is in its latent space."""

from typing import Any

import numpy as np

from tfvae.arguments import refuse_masked
from tfvae.models.vae import VAE, check_vae


def attribute_vector(vae: VAE, x: Any, attribute: Any) -> np.ndarray:
    """The mean of E[z|x] over rows with an attribute less that over rows without, NumPy ``[D]``: what to add to z.

    Args:
        vae: The model.
        x: Rows as ``fit`` takes them.
        attribute: Whether each row has it, ``[N]`` of True and False, or of 1 and 0.

    Raises:
        ValueError: If all rows have it, or none.

    Example:
        >>> from tfvae import networks, likelihoods, posteriors
        >>> vae = VAE(networks.mlp([4]), networks.mlp([4]), posteriors.diagonal_normal(2), likelihoods.bernoulli([8]))
        >>> attribute_vector(vae, np.eye(8, dtype="float32"), np.arange(8) < 4).shape
        (2,)
    """
    check_vae(vae)
    means = vae.embed(x)
    has = checked_attribute(attribute, len(means))
    return means[has].mean(axis=0) - means[~has].mean(axis=0)


def checked_attribute(attribute: Any, count: int) -> np.ndarray:
    """The attribute as booleans ``[N]``, of which some are True and some False, or a ValueError that says what came."""
    refuse_masked("attribute", attribute)
    given = np.asarray(attribute)
    if given.shape != (count,) or given.dtype.kind not in "biuf" or not np.isin(given, [0, 1]).all():
        raise ValueError(
            f"attribute has shape {given.shape} and dtype {given.dtype}, expected True or False for each of {count} "
            "rows: of a class k that is labels == k."
        )
    has = given.astype(bool)
    if has.all() or not has.any():
        raise ValueError(f"attribute is {'True' if has.any() else 'False'} for every row, expected rows of both kinds.")
    return has
