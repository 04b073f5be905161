"""log p(x) by importance sampling from q(z|x)."""

import functools
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tfvae.arguments import check_at_least
from tfvae.engine import xla
from tfvae.evaluation.estimate import MarginalEstimate, over_rows
from tfvae.models.vae import VAE, check_vae

_FLOATS_AT_ONCE = 4_000_000  # pixels decoded in one step: tens of MB, and large enough for the matrix units


def log_marginal(
    vae: VAE,
    x: Any,
    num_samples: int = 5000,
    batch_size: int = 100,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> MarginalEstimate:
    """log p(x) ≈ log (1/K) Σ p(x|z) p(z) / q(z|x), z ~ q(z|x) (arXiv 1509.00519, section 5).

    Runs in chunks of rows and samples; memory depends on neither number.

    Args:
        vae: The model.
        x: Rows, as ``fit`` takes them in memory; of a model with ``noise``, one draw of each row is scored.
        num_samples: K, samples of z for each row.
        batch_size: Rows at once.
        seed: Fixes the samples, and the draws of x.
        progress: Called with the number of rows done after each batch.

    Warns:
        UserWarning: If the estimate rests on too few effective samples: see ``MarginalEstimate.is_trusted``.

    Raises:
        ValueError: For fewer than two samples or an empty x.

    Example:
        >>> from tfvae import networks, likelihoods, posteriors
        >>> vae = VAE(networks.mlp([4]), networks.mlp([4]), posteriors.diagonal_normal(2), likelihoods.bernoulli([8]))
        >>> log_marginal(vae, np.eye(8, dtype="float32"), num_samples=10).log_marginal.shape
        (8,)
    """
    check_vae(vae)
    check_at_least(2, num_samples=num_samples)
    check_at_least(1, batch_size=batch_size)
    program = _weight_sums(vae, num_samples, max(1, _FLOATS_AT_ONCE // (batch_size * math.prod(vae.event_shape))))
    peak, total, square = over_rows(program, vae, x, batch_size, seed, progress)
    estimate = MarginalEstimate.of_sums(peak, total, square, num_samples)
    if not estimate.is_trusted:
        effective = np.median(estimate.effective_sample_size)
        warnings.warn(
            f"log p(x) rests on {effective:.1f} effective samples of {num_samples}: it is a lower bound that more "
            "samples would raise, and its standard error is too small. Take more samples, or see where q(z|x) misses "
            "p(z|x): annealed_log_marginal does not need it.",
            stacklevel=2,
        )
    return estimate


def _weight_sums(vae: VAE, num_samples: int, chunk: int) -> Callable[..., tuple[tf.Tensor, ...]]:
    """(m, Σ w/eᵐ, Σ (w/eᵐ)²) over the samples of each row, m = max log w: one XLA loop over chunks of samples."""
    chunk = min(chunk, num_samples)

    @functools.partial(xla.compiled_where_it_pays, vae)
    def weight_sums(rows: Any, seed: tf.Tensor) -> tuple[tf.Tensor, ...]:
        batch = vae.batch(rows)
        posterior = vae.encode(batch)  # once for all the chunks

        def body(i, peak, total, square):
            log_weight = vae.log_weights(batch, chunk, tf.random.experimental.stateless_fold_in(seed, i), posterior)
            counts = i * chunk + tf.range(chunk) < num_samples  # the last chunk may overshoot
            log_weight = tf.where(counts[:, None], log_weight, -np.inf)
            higher = tf.maximum(peak, tf.reduce_max(log_weight, axis=0))
            weight, shrink = tf.exp(log_weight - higher), tf.exp(peak - higher)
            total = total * shrink + tf.reduce_sum(weight, axis=0)
            square = square * shrink**2 + tf.reduce_sum(weight**2, axis=0)
            return i + 1, higher, total, square

        zeros = tf.zeros(tf.shape(batch.x)[:1])
        start = (tf.constant(0), zeros + tf.float32.min, zeros, zeros)
        return tf.while_loop(lambda i, *_: i * chunk < num_samples, body, start)[1:]

    return weight_sums
