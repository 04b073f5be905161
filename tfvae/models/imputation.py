"""What is missing of a row, given what is there: importance sampling, and draws by resampling."""

import dataclasses
import functools
import math
from typing import Any

import numpy as np
import tensorflow as tf

from tfvae import posteriors
from tfvae.engine import replicas
from tfvae.engine.map_rows import map_rows
from tfvae.families.table import centre

_NUMBERS = 1 << 23  # of p(x|z) at once: 32 MB of each parameter


@dataclasses.dataclass(frozen=True)
class Imputation:
    """Rows ``[N, *event]`` whose missing numbers are filled in; those that were there are as they came.

    Attributes:
        x: With the expected value of what is missing; of a class the likeliest. For predictions of a single number.
        draws: ``[M, N, *event]``, M rows drawn for each: what is computed of each of them varies as it should, for
            means, errors and tests (multiple imputation). None where none were asked for.
        effective_sample_size: (Σw)² / Σw² of each row, ``[N]``: how many samples of z its numbers rest on.
    """

    x: np.ndarray
    draws: np.ndarray | None
    effective_sample_size: np.ndarray


def impute(vae: Any, rows: dict[str, tf.Tensor], num_samples: int, seed: int, num_draws: int) -> Imputation:
    """See ``VAE.impute``; ``rows`` as ``VAE.checked`` gives them."""
    if not vae.likelihood.missing:
        raise ValueError(
            "impute fills in what is missing, and this model's likelihood leaves nothing out: make the model with "
            "likelihoods.missing(layer)."
        )
    done = 0

    def one_batch(some: dict[str, tf.Tensor]) -> tuple[tf.Tensor, ...]:
        nonlocal done
        done += 1
        return program(some, tf.constant([seed, done], tf.int32))

    if len(rows["x"]) == 0:
        empty = np.zeros([0, *vae.event_shape], np.float32)
        return Imputation(empty, np.zeros([num_draws, *empty.shape], np.float32) if num_draws else None, np.zeros([0]))
    one = functools.partial(_imputed, vae, num_samples=num_samples, num_draws=num_draws)
    program = tf.function(one, autograph=False)
    batch_size = max(1, _NUMBERS // (num_samples * math.prod(vae.event_shape)))
    x, draws, effective = map_rows(one_batch, rows, min(1024, batch_size))
    return Imputation(x, np.moveaxis(draws, 1, 0) if num_draws else None, effective)


def _imputed(
    vae: Any, rows: dict[str, tf.Tensor], seed: tf.Tensor, num_samples: int, num_draws: int
) -> tuple[tf.Tensor, ...]:
    """Of a batch: x filled in, draws ``[B, M, *event]``, and effective sample sizes."""
    batch, seeds = vae.batch(rows), tf.unstack(tf.random.experimental.stateless_split(seed, 3))
    z, log_posterior = posteriors.draw(vae.encode(batch), num_samples, seeds[0])
    p = vae.decode(z, batch.condition)
    log_weight = p.log_prob(batch.x) + vae.prior(batch.condition).log_prob(z) - log_posterior  # [K, B]
    weight = tf.nn.softmax(log_weight, axis=0)
    gone = vae.likelihood.holes(batch.x)
    filled = tf.where(gone, centre(p, weight), batch.x)
    chosen = tf.random.stateless_categorical(tf.transpose(log_weight), num_draws, seeds[1])  # [B, M]
    z = tf.gather(tf.transpose(z, [1, 0, 2]), chosen, batch_dims=1)
    drawn = replicas.sample(vae.decode(tf.transpose(z, [1, 0, 2]), batch.condition), seeds[2])  # [M, B, *event]
    drawn = tf.where(gone, tf.cast(drawn, batch.x.dtype), batch.x)
    rest = range(2, drawn.shape.rank)
    return filled, tf.transpose(drawn, [1, 0, *rest]), 1.0 / tf.reduce_sum(weight**2, axis=0)
