"""log p(x) by importance sampling from q(z|x)."""

import collections
import functools
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tfvae.arguments import check_at_least
from tfvae.engine import batches, programs, xla
from tfvae.engine.map_rows import waited_for
from tfvae.engine.pace import Pace
from tfvae.evaluation.estimate import MarginalEstimate, over_rows
from tfvae.evaluation.pareto import shape_if_told
from tfvae.models.vae import VAE, check_vae

_WATCHED = 1000  # samples of each row whose weights are kept until their tail has been looked at
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

    Runs in chunks of rows and samples, as programs of about a second; memory depends on neither number.

    Args:
        vae: The model.
        x: Rows, as ``fit`` takes them in memory; of a model with ``noise``, one draw of each row is scored.
        num_samples: K, samples of z for each row.
        batch_size: Rows at once.
        seed: Fixes the samples, and the draws of x, for the same rows and ``batch_size``.
        progress: Called with the number of rows done after each batch.

    Warns:
        UserWarning: If too few effective samples or too heavy a tail make it up: see ``MarginalEstimate.is_trusted``.

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
    sums = weight_sums_of(vae, num_samples, batch_size)

    def program(rows: Any, key: tf.Tensor) -> tuple[Any, ...]:
        *parts, log_weights = sums(rows, key)
        return *parts, tf.constant(shape_if_told(log_weights.numpy()))

    # k̂ is NaN, not told, of few samples.
    found = over_rows(program, vae, x, batch_size, seed, progress, looked_at=lambda found: found[:-1])
    peak, total, square, shape = found
    estimate = MarginalEstimate.of_sums(peak, total, square, num_samples, pareto_shape=shape)
    effective = np.median(estimate.effective_sample_size)
    if not estimate.is_trusted and not np.isnan(effective):  # of which ``over_rows`` has told
        heavy = f", whose weights have Pareto's k̂ {median:.2f}" if (median := estimate.median_pareto_shape) else ""
        warnings.warn(
            f"log p(x) rests on {effective:.1f} effective samples of {num_samples}"
            f"{heavy}: it is a lower bound that more samples would raise, and its standard error is too small. Take "
            "more samples, or see where q(z|x) misses p(z|x): annealed_log_marginal does not need it.",
            stacklevel=2,
        )
    return estimate


@programs.kept
def weight_sums_of(vae: VAE, num_samples: int, batch_size: int) -> Callable[..., tuple[tf.Tensor, ...]]:
    """(m, Σ w/eᵐ, Σ (w/eᵐ)²) over the samples of each row, m = max log w, in programs of some chunks of samples.

    The last part are log w of some samples, ``[S, B]``.
    """
    chunk = min(max(1, _FLOATS_AT_ONCE // (batch_size * math.prod(vae.event_shape))), num_samples)
    num_chunks = -(-num_samples // chunk)
    paces: dict[int, Pace] = collections.defaultdict(Pace)
    kept = min(-(-_WATCHED // chunk), num_samples // chunk)  # whole chunks

    @functools.partial(xla.compiled_where_it_pays, vae)
    def some_chunks(rows: Any, seed: tf.Tensor, first: tf.Tensor, stop: tf.Tensor, *sums: tf.Tensor) -> Any:
        batch = vae.batch(rows)
        posterior = vae.encode(batch)  # once for all of these

        def body(i, peak, total, square, watched):
            log_weight = vae.log_weights(batch, chunk, tf.random.experimental.stateless_fold_in(seed, i), posterior)
            watched = tf.tensor_scatter_nd_update(watched, [[tf.minimum(i, kept)]], [log_weight])
            counts = i * chunk + tf.range(chunk) < num_samples  # the last chunk may overshoot
            log_weight = tf.where(counts[:, None], log_weight, -np.inf)
            higher = tf.maximum(peak, tf.reduce_max(log_weight, axis=0))
            weight, shrink = tf.exp(log_weight - higher), tf.exp(peak - higher)
            total = total * shrink + tf.reduce_sum(weight, axis=0)
            square = square * shrink**2 + tf.reduce_sum(weight**2, axis=0)
            return i + 1, higher, total, square, watched

        return tf.while_loop(lambda i, *_: i < stop, body, (first, *sums))[1:]

    def start(num_rows: int) -> tuple[tf.Tensor, ...]:
        zeros = tf.zeros([num_rows])
        watched = tf.zeros([kept + 1, chunk, num_rows])  # the last for all the chunks that are not kept
        return zeros + tf.float32.min, zeros, zeros, watched

    def weight_sums(rows: Any, seed: tf.Tensor) -> tuple[tf.Tensor, ...]:
        count = batches.num_rows(rows)
        *sums, watched = paces[count].through(
            num_chunks,
            start(count),
            lambda first, stop, sums: waited_for(some_chunks(rows, seed, tf.constant(first), tf.constant(stop), *sums)),
        )
        return *sums, tf.reshape(watched[:kept], [kept * chunk, -1])

    weight_sums.program = some_chunks  # type: ignore[attr-defined]  # for whoever takes it elsewhere
    weight_sums.start = start  # type: ignore[attr-defined]
    return weight_sums
