"""What a person looks at: pictures of a trained VAE and of its training, as PNG files, one style for all.

Each function makes the folder of its file, writes the file whole or not at all, and returns its path.
"""

from tfvae.plots.animation import animation
from tfvae.plots.curves import kl_by_unit, learning_curve, residuals
from tfvae.plots.latent import attributes, interpolations, latent_space, manifold, manifold_grid, traversals
from tfvae.plots.pictures import reconstructions, samples, samples_by_class
from tfvae.plots.projector import projector

__all__ = [
    "animation",
    "attributes",
    "interpolations",
    "kl_by_unit",
    "latent_space",
    "learning_curve",
    "manifold",
    "manifold_grid",
    "projector",
    "reconstructions",
    "residuals",
    "samples",
    "samples_by_class",
    "traversals",
]
