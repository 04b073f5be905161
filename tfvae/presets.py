"""What ``tfvae train`` offers: the networks of Auto-Encoding Variational Bayes, and a convolutional one beside them.

    tfvae prepare --source idx --input data/mnist --output prepared/mnist
    tfvae train --data prepared/mnist --output runs/mnist --model mlp

``mlp`` is section 5's model for MNIST: 784-500-20, tanh, Bernoulli. Trained for 20 epochs on greyscale images with
Adam at 1e-3 (not the paper's Adagrad), its test ELBO is -104.5 nats, within 0.7.
"""

import dataclasses
from collections.abc import Callable, Sequence

from tfvae import likelihoods, networks, posteriors
from tfvae.distribution_layer import DistributionLayer
from tfvae.models.vae import VAE


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A model with the settings it is trained with by default.

    Attributes:
        about: What it is, in a line.
        build: (event_shape, latent_dim, seed, missing=False) -> VAE, of which x may have missing numbers.
        latent_dim, epochs, batch_size, learning_rate: The defaults; the optimiser is Adam.
    """

    about: str
    build: Callable[..., VAE]
    latent_dim: int = 20
    epochs: int = 20
    batch_size: int = 100
    learning_rate: float = 1e-3


def _of(likelihood: DistributionLayer, missing: bool) -> DistributionLayer:
    return likelihoods.missing(likelihood) if missing else likelihood


def _mlp(event_shape: Sequence[int], latent_dim: int, seed: int, missing: bool = False) -> VAE:
    return VAE(
        encoder=networks.mlp([500], "tanh", name="encoder"),
        decoder=networks.mlp([500], "tanh", name="decoder"),
        posterior=posteriors.diagonal_normal(latent_dim),
        likelihood=_of(likelihoods.bernoulli(event_shape), missing),
        seed=seed,
    )


def _gaussian_mlp(event_shape: Sequence[int], latent_dim: int, seed: int, missing: bool = False) -> VAE:
    return VAE(
        encoder=networks.mlp([200], "tanh", name="encoder"),
        decoder=networks.mlp([200], "tanh", name="decoder"),
        posterior=posteriors.diagonal_normal(latent_dim),
        likelihood=_of(likelihoods.normal(event_shape), missing),
        seed=seed,
    )


def _conv(event_shape: Sequence[int], latent_dim: int, seed: int, missing: bool = False) -> VAE:
    return VAE(
        encoder=networks.conv_encoder([32, 64]),
        decoder=networks.conv_decoder(event_shape, [64, 32]),
        posterior=posteriors.diagonal_normal(latent_dim),
        likelihood=_of(likelihoods.bernoulli(event_shape), missing),
        seed=seed,
    )


EXPERIMENTS: dict[str, Experiment] = {
    "mlp": Experiment("the paper's network: one hidden layer of 500 tanh units, Bernoulli pixels", _mlp),
    "gaussian-mlp": Experiment("one hidden layer of 200 tanh units, normal observations", _gaussian_mlp),
    "conv": Experiment("strided 32-64 convolutions and their mirror, Bernoulli pixels", _conv),
}
