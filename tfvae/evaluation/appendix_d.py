"""log p(x) by HMC and a density of its draws: the estimator of arXiv 1312.6114, appendix D, for few dimensions."""

import functools
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tfvae.engine import programs, xla
from tfvae.evaluation import hmc
from tfvae.evaluation.estimate import MarginalEstimate, over_rows
from tfvae.models.vae import VAE, check_vae

_MOST_DIMENSIONS = 5
_BANDWIDTHS = {"kde": tuple(np.geomspace(0.1, 1.0, 10)), "normal": (1.0,)}  # in standard deviations of the draws


def hmc_log_marginal(
    vae: VAE,
    x: Any,
    num_samples: int = 200,
    num_leapfrog_steps: int = 4,
    num_burnin_steps: int = 300,
    density: str = "kde",
    batch_size: int = 100,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> MarginalEstimate:
    """log p(x) ≈ -log (1/L) Σ q(z) / (p(z) p(x|z)), z ~ p(z|x) by HMC (arXiv 1312.6114, appendix D).

    The first half of each row's draws fits the density q, the second half is averaged over. Unlike ``log_marginal`` it
    does not rest on the encoder: a chain starts at the likeliest of some draws of q(z|x) and many of p(z). But only in
    few dimensions can so few draws tell a density. It is NaN for a row whose chain never moved: see
    ``acceptance_rate``.

    Args:
        vae: The model.
        x: Rows, as ``fit`` takes them in memory; of a model with ``noise``, one draw of each row is scored.
        num_samples: Draws of z for each row, both halves together; the paper takes 50. Memory grows with it.
        num_leapfrog_steps: Leapfrog steps between two draws.
        num_burnin_steps: Transitions before the first draw, which adapt the step size to an acceptance of 90 %.
        density: "normal", with a full covariance matrix, or "kde", a kernel density whose bandwidth is chosen for each
            row from ten on held-out draws; the widest of them is the normal.
        batch_size: Rows at once.
        seed: Fixes the draws, those of x too.
        progress: Called with the number of rows done after each batch.

    Raises:
        ValueError: For fewer than 16 draws or 8 a dimension, another density, or see ``hmc``.

    Warns:
        UserWarning: If z has more than 5 dimensions.

    Example:
        >>> from tfvae import networks, likelihoods, posteriors
        >>> vae = VAE(networks.mlp([4]), networks.mlp([4]), posteriors.diagonal_normal(2), likelihoods.bernoulli([8]))
        >>> hmc_log_marginal(vae, np.eye(8, dtype="float32"), num_samples=20).log_marginal.shape
        (8,)
    """
    check_vae(vae)
    hmc.check_settings(num_samples, num_leapfrog_steps, num_burnin_steps)
    _check_density(vae.latent_dim, num_samples, density)
    program = _reciprocal_mean(vae, num_samples, num_leapfrog_steps, num_burnin_steps, _BANDWIDTHS[density])
    return MarginalEstimate(*over_rows(program, vae, x, batch_size, seed, progress))


def _check_density(latent_dim: int, num_samples: int, density: str) -> None:
    if density not in _BANDWIDTHS:
        raise ValueError(f"density must be one of {', '.join(_BANDWIDTHS)}, received {density!r}.")
    least = max(16, 8 * latent_dim)
    if num_samples < least:
        raise ValueError(
            f"A density in {latent_dim} dimensions needs {least} draws at least, received num_samples={num_samples}: "
            "take more, or evaluation.log_marginal."
        )
    if latent_dim > _MOST_DIMENSIONS:
        warnings.warn(
            f"z has {latent_dim} dimensions, too many to trust this estimator: the paper uses it for fewer than "
            f"{_MOST_DIMENSIONS}. Use evaluation.log_marginal.",
            stacklevel=3,
        )


@programs.kept
def _reciprocal_mean(
    vae: VAE, num_samples: int, num_leapfrog_steps: int, num_burnin_steps: int, bandwidths: tuple[float, ...]
) -> Callable[..., tuple[tf.Tensor, ...]]:
    """The fields of MarginalEstimate for a batch of rows."""
    half, chains = num_samples // 2, hmc.chains(vae, num_samples, num_leapfrog_steps, num_burnin_steps)

    @functools.partial(xla.compiled_where_it_pays, vae)
    def reciprocal_mean(chain: hmc.Chain) -> tuple[tf.Tensor, ...]:
        fitted, points = chain.u[:half], chain.u[half:]
        # log w = log q(z) - log p(z) - log p(x|z)
        log_weight = _log_density(points, fitted, _bandwidth(fitted, bandwidths)) - chain.log_joint[half:]
        log_mean = tf.reduce_logsumexp(log_weight, axis=0) - math.log(num_samples - half)
        weight = tf.exp(log_weight - log_mean)  # of mean 1
        standard_error = _standard_error(weight)
        effective = (num_samples - half) / tf.reduce_mean(weight**2, axis=0)
        return -log_mean, standard_error, effective, chain.acceptance_rate

    return lambda x, seed: reciprocal_mean(chains(x, seed))


def _standard_error(chain: tf.Tensor) -> tf.Tensor:
    """Of the mean of ``[L, B]`` over L, from the means of five stretches, long since a chain's draws hang together.

    A chain that mixes slowly still hides a part: at 3 dimensions and 400 draws it is about 1.5 times too small.
    """
    num_stretches = 5
    length = chain.shape[0] // num_stretches
    means = tf.reduce_mean(tf.reshape(chain[: num_stretches * length], [num_stretches, length, -1]), axis=1)
    return tf.math.reduce_std(means, axis=0) / math.sqrt(num_stretches - 1)


def _bandwidth(draws: tf.Tensor, bandwidths: tuple[float, ...]) -> tf.Tensor:
    """The bandwidth ``[B]`` under which the first 3/4 of each chain ``[S, B, E]`` best foretell the rest."""
    cut = 3 * draws.shape[0] // 4
    values = tf.constant(bandwidths, tf.float32)
    if len(bandwidths) == 1:
        return tf.repeat(values, tf.shape(draws)[1])

    def score(bandwidth: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(_log_density(draws[cut:], draws[:cut], bandwidth), axis=0)

    return tf.gather(values, tf.argmax(tf.map_fn(score, values), axis=0))


def _log_density(points: tf.Tensor, draws: tf.Tensor, bandwidth: tf.Tensor) -> tf.Tensor:
    """log q ``[L, B]`` at points ``[L, B, E]``: a kernel density on draws ``[S, B, E]`` that keeps their covariance.

    q = (1/S) Σ N(a v + (1 - a) mean, h² cov), a = √(1 - h²), for each draw v and the bandwidth h, ``[B]`` or a number
    (West, "Approximating posterior distributions by mixtures", 1993); h = 1 is the normal of the draws.
    """
    num_draws, _, size = draws.shape
    mean = tf.reduce_mean(draws, axis=0)
    centred = tf.transpose(draws - mean, [1, 2, 0])  # [B, E, S]
    covariance = tf.matmul(centred, centred, transpose_b=True) / (num_draws - 1)
    cholesky = tf.linalg.cholesky(covariance + 1e-6 * tf.linalg.diag(tf.linalg.diag_part(covariance)))
    whiten = functools.partial(tf.linalg.triangular_solve, cholesky)
    centres = tf.sqrt(1 - bandwidth**2)[..., None, None] * whiten(centred)
    volume = size * tf.math.log(bandwidth) + tf.reduce_sum(tf.math.log(tf.linalg.diag_part(cholesky)), axis=-1)
    constant = math.log(num_draws) + size / 2 * math.log(2 * math.pi) + volume

    def at(point: tf.Tensor) -> tf.Tensor:  # [B, E]; one at a time, so that memory does not grow with L S
        square = tf.reduce_sum((whiten((point - mean)[..., None]) - centres) ** 2, axis=-2)  # [B, S]
        return tf.reduce_logsumexp(-square / (2 * bandwidth[..., None] ** 2), axis=-1) - constant

    return tf.map_fn(at, points)
