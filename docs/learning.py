"""Makes docs/learning.gif: the manifold of a two-dimensional latent space while it learns digits.

TFVAE_DATA=data python docs/learning.py docs/learning.gif

It learns MNIST where the folder TFVAE_DATA has ``mnist/``, else scikit-learn's digits.
"""

import os

import click
import keras
import numpy as np
from sklearn.datasets import load_digits

from tfvae import VAE, likelihoods, networks, plots, posteriors
from tfvae.experiments.aevb import settings

_STEPS_AT_ONCE = 10  # so that every stretch runs in one program


def digits() -> np.ndarray:
    """Pictures of digits in [0, 1], ``[N, H, W, 1]``."""
    folder = os.environ.get("TFVAE_DATA", "")
    if not os.path.isdir(os.path.join(folder, "mnist")):
        return load_digits().images[..., None].astype(np.float32) / 16
    return np.reshape(settings.load("mnist", folder).train, [-1, 28, 28, 1])


@click.command()
@click.argument("path")
@click.option("--steps", default=12_000, show_default=True, help="Steps of training, 100 rows each.")
@click.option("--frames", default=48, show_default=True, help="Pictures, the first ones close to each other.")
def main(path: str, steps: int, frames: int) -> None:
    """Train and write the GIF to PATH."""
    keras.utils.set_random_seed(1)
    x = digits()
    parts = posteriors.diagonal_normal(2), likelihoods.bernoulli(x.shape[1:])
    vae = VAE(networks.mlp([500]), networks.mlp([500]), *parts, seed=1)
    vae.compile(keras.optimizers.Adam(1e-3), steps_per_execution=_STEPS_AT_ONCE)
    ends = np.unique(np.geomspace(1, steps / _STEPS_AT_ONCE, frames).astype(int)) * _STEPS_AT_ONCE
    pictures = []
    for stretch in np.diff(ends, prepend=0):
        vae.fit(x, steps_per_epoch=int(stretch), verbose=0)
        pictures.append(plots.manifold_grid(vae, 12, 12))
    plots.animation(pictures, path, seconds=0.12)


if __name__ == "__main__":
    main()
