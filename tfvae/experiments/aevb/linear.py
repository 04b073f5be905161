"""A linear VAE on Frey Face beside probabilistic PCA, whose maximum of the likelihood is known in closed form.

    tfvae reproduce linear-frey --latent-dims 2 5 10 20

p(x|z) = N(W z + b, σ² I) with one σ for all pixels is probabilistic PCA (Tipping & Bishop, 1999). At its maximum of the
likelihood the columns of W can be chosen orthogonal, and then p(z|x) has a diagonal covariance that is the same for
every x: a posterior N(V x + c, diag(s²)) with s a constant touches log p(x). The ELBO's maximum is therefore the
closed form itself: 558.0, 669.9, 756.7 and 863.8 nats for 2, 5, 10 and 20 dimensions on all 1965 faces, scaled by 256.
"""

import pathlib
import time
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tfvae.distribution_layer import DistributionLayer
from tfvae.experiments.aevb import settings
from tfvae.experiments.paper_figure import write_csv
from tfvae.models.vae import VAE

EPOCHS = 1000  # half a minute each on two cores; three times as many halve what is missing
LEARNING_RATE = 0.01  # Adam's, falling to 0 along a cosine; 0.03 fails at 20 dimensions


def linear_frey(
    output: str = "runs/aevb", data_dir: str = "data", latent_dims: Sequence[int] = (2, 5, 10, 20), seed: int = 0
) -> list[dict[str, Any]]:
    """Train a linear VAE of each size on all faces, and write ``linear_frey.csv`` to ``output``.

    Args:
        output: The folder to write.
        data_dir: Holds ``freyface/frey_faces.npy``.
        latent_dims: Sizes of z.
        seed: Fixes weights, shuffles and noise.

    Returns:
        A row for each size: the closed form of probabilistic PCA, the bound that was reached, the difference, which
        is never positive, all in nats a face, and the seconds of training.
    """
    data = settings.load("frey", data_dir)
    faces = np.concatenate([data.train, data.test])
    rows = [_compare(faces, latent_dim, EPOCHS, seed) for latent_dim in latent_dims]
    folder = pathlib.Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(folder / "linear_frey.csv", list(rows[0]), [list(row.values()) for row in rows])
    return rows


def _compare(x: np.ndarray, latent_dim: int, epochs: int, seed: int) -> dict[str, Any]:
    closed_form = probabilistic_pca(x, latent_dim)
    began = time.perf_counter()
    elbo = exact_elbo(fit(x, latent_dim, epochs, seed), x)
    return {
        "latent_dim": latent_dim,
        "probabilistic_pca": closed_form,
        "elbo": elbo,
        "difference": elbo - closed_form,
        "seconds": round(time.perf_counter() - began, 1),
    }


def fit(x: np.ndarray, latent_dim: int, epochs: int, seed: int = 0) -> VAE:
    """A linear VAE trained on x ``[N, D]`` with Adam on minibatches of 100."""
    vae = linear_vae(x.shape[1], latent_dim, seed)
    steps = epochs * -(-len(x) // settings.BATCH_SIZE)
    vae.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(LEARNING_RATE, steps)))
    vae.fit(x, batch_size=settings.BATCH_SIZE, epochs=epochs, verbose=0)
    return vae


def probabilistic_pca(x: np.ndarray, latent_dim: int) -> float:
    """The largest mean log p(x) of probabilistic PCA over the rows of x ``[N, D]``, nats.

    With λ the eigenvalues of the covariance in falling order and σ² the mean of those beyond the first q, it is
    -½ (D log 2π + Σ_{j ≤ q} log λ_j + (D - q) log σ² + D) (Tipping & Bishop, 1999, equations 7 and 8).

    Raises:
        ValueError: Unless 1 <= latent_dim < D, and where x has no variance beyond its first directions.

    Example:
        >>> x = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])  # covariance ½ I
        >>> round(probabilistic_pca(x, 1), 4), round(-np.log(2 * np.pi / 2) - 1, 4)
        (-2.1447, np.float64(-2.1447))
    """
    x = np.asarray(x, np.float64)
    size = x.shape[1]
    if not 1 <= latent_dim < size:
        raise ValueError(
            f"latent_dim must lie between 1 and {size - 1}, one less than the columns of x, received {latent_dim}."
        )
    eigenvalues = np.linalg.eigvalsh(np.cov(x, rowvar=False, bias=True))[::-1]
    noise = eigenvalues[latent_dim:].mean()
    if noise <= 1e-12 * eigenvalues[0]:
        raise ValueError(f"x lies in {latent_dim} dimensions, so that its likelihood has no bound: take fewer.")
    log_determinant = np.sum(np.log(eigenvalues[:latent_dim])) + (size - latent_dim) * np.log(noise)
    return float(-0.5 * (size * np.log(2 * np.pi) + log_determinant + size))


def _layer(event_shape: list[int], scale_shape: Sequence[int], name: str) -> DistributionLayer:
    """N(W h + b, diag(s²)) whose scale s is learned and does not depend on the features h."""
    return DistributionLayer(
        "Normal", event_shape, shared={"scale": scale_shape}, constraints={"scale": "exp"}, name=name
    )


def linear_vae(size: int, latent_dim: int, seed: int = 0) -> VAE:
    """q(z|x) = N(V x + c, diag(s²)) and p(x|z) = N(W z + b, σ² I), for x ``[B, size]``."""
    return VAE(
        encoder=keras.layers.Identity(),
        decoder=keras.layers.Identity(),
        posterior=_layer([latent_dim], [latent_dim], "posterior"),
        likelihood=_layer([size], [], "likelihood"),
        seed=seed,
    )


def exact_elbo(vae: VAE, x: np.ndarray) -> float:
    """The mean ELBO of a linear VAE over the rows of x ``[N, D]``, nats: its expectation over z, without sampling.

    E_q[log p(x|z)] = -½ (D log 2πσ² + (|x - W m - b|² + Σ_j s_j² |w_j|²) / σ²) where q = N(m, diag(s²)), less KL(q‖p).
    """
    x = np.asarray(x, np.float64)
    (encoder, offset, s), (kernel, bias, sigma) = _numbers(vae.posterior), _numbers(vae.likelihood)
    mean = x @ encoder + offset
    square = np.sum((x - mean @ kernel - bias) ** 2, axis=1) + np.sum(s**2 * np.sum(kernel**2, axis=1))
    log_likelihood = -0.5 * (x.shape[1] * np.log(2 * np.pi * sigma**2) + square / sigma**2)
    kl = 0.5 * np.sum(mean**2 + s**2 - 1 - 2 * np.log(s), axis=1)
    return float(np.mean(log_likelihood - kl))


def _numbers(layer: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Matrix, offset and scale of a layer in float64."""
    kernel, bias = (weight.astype(np.float64) for weight in layer.projection.get_weights())
    return kernel, bias, np.exp(layer.shared_weights["scale"].numpy().astype(np.float64))
