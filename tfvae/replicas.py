"""One batch on several devices: which rows are a replica's, and noise that is the same however many there are.

Under ``tf.distribute`` every worker sees the same batches in the same order, and each replica works on its own run of
their rows. The loss is a mean over the rows of the whole batch, so a replica's gradients count by its share of them;
their sum is what one device would have found. So is the noise: a replica draws as if for the whole batch and keeps its
part. What a layer draws (dropout) or averages (batch statistics), each replica has for itself, as always in Keras.
"""

import contextlib
import contextvars
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfvae import xla

Local = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], list[tf.Tensor | None]]


@dataclasses.dataclass(frozen=True)
class _Part:
    """The place of a replica among ``count``."""

    index: tf.Tensor
    count: int


_part: contextvars.ContextVar[_Part | None] = contextvars.ContextVar("this replica's part of the batch", default=None)


@contextlib.contextmanager
def _as_part(part: _Part) -> Iterator[None]:
    token = _part.set(part)
    try:
        yield
    finally:
        _part.reset(token)


def sample(
    distribution: tfd.Distribution, seed: tf.Tensor, before: Sequence[int] = (), after: Sequence[Any] = ()
) -> tf.Tensor:
    """Draws for this replica's rows, ``[*before, *after, *batch, *event]``; without replicas, ``distribution.sample``.

    TFP numbers its noise by where it falls in the shape of all draws. An axis of replicas just before that of the
    rows therefore gives each row the noise that it has in the whole batch, where replicas divide the batch.

    Args:
        distribution: Of this replica's rows, or of one row.
        seed: Fixes the draws, int32 ``[2]``.
        before: Shape of the draws of each row.
        after: ``[B]``, the number of this replica's rows, where the distribution is of one row.

    Example:
        >>> sample(tfd.Normal(tf.zeros([3]), 1.0), tf.constant([0, 1]), before=[2]).shape
        TensorShape([2, 3])
    """
    part = _part.get()
    if part is None:
        return distribution.sample([*before, *after], seed=seed)
    draws = distribution.sample([*before, part.count, *after], seed=seed)
    return tf.gather(draws, part.index, axis=len(before))


def sample_and_log_prob(
    distribution: tfd.Distribution, seed: tf.Tensor, before: Sequence[int] = ()
) -> tuple[tf.Tensor, tf.Tensor]:
    """Draws as ``sample`` has them and their log-density ``[*before, *batch]``, nats, found in the same pass.

    A flow knows the density of what it has just drawn; of a copy it would have to find the noise first.

    Example:
        >>> z, log_prob = sample_and_log_prob(tfd.Normal(tf.zeros([3]), 1.0), tf.constant([0, 1]), before=[2])
        >>> z.shape, bool(tf.reduce_all(log_prob == tfd.Normal(0.0, 1.0).log_prob(z)))
        (TensorShape([2, 3]), True)
    """
    part = _part.get()
    if part is None:
        return distribution.experimental_sample_and_log_prob([*before], seed=seed)
    draws, log_prob = distribution.experimental_sample_and_log_prob([*before, part.count], seed=seed)
    return tf.gather(draws, part.index, axis=len(before)), tf.gather(log_prob, part.index, axis=len(before))


def divided(rows: np.ndarray, count: int) -> np.ndarray:
    """Row numbers ``[K, B]`` of whole batches, filled with more of them until ``count`` replicas divide B.

    Example:
        >>> divided(np.array([[4, 5, 6]]), 2).tolist()
        [[4, 5, 6, 4]]
    """
    width = -(-rows.shape[1] // count) * count
    return np.take(rows, range(width), axis=1, mode="wrap")


def step(
    strategy: tf.distribute.Strategy,
    local: Local,
    optimizer: keras.optimizers.Optimizer,
    variables: Sequence[keras.Variable],
    jit_compile: bool,
) -> Callable[[tf.Tensor, tf.Tensor, tf.Tensor], None]:
    """One step over the replicas of ``strategy``: ``step(data, rows, count)``, for ``divided`` rows ``[B]``.

    Args:
        strategy: Whose replicas.
        local: ``local(x, weights, share)``, the work of a replica: from its rows ``[b, *event]``, their weights ``[b]``
            and its share of the batch's loss to the gradients of that share. It may update metrics.
        optimizer: Applies the sums of the gradients.
        variables: Those of the gradients; none to look only.
        jit_compile: Whether XLA compiles ``local``; nothing that goes from device to device can be in an XLA program.
    """
    num_replicas = strategy.num_replicas_in_sync

    def as_part(x: tf.Tensor, weights: tf.Tensor, share: tf.Tensor, index: tf.Tensor) -> list[tf.Tensor | None]:
        with _as_part(_Part(index, num_replicas)):
            return local(x, weights, share)

    work = xla.compiled(as_part) if jit_compile else as_part

    def replica(data: tf.Tensor, rows: tf.Tensor, count: tf.Tensor) -> None:
        context = tf.distribute.get_replica_context()
        index, size = tf.cast(context.replica_id_in_sync_group, tf.int32), rows.shape[0] // num_replicas
        with tf.device("CPU:0"):  # where an array of any size has room; a batch of it goes to the replica
            x = tf.gather(data, tf.slice(rows, [index * size], [size]))
        mine = tf.clip_by_value(count - index * size, 0, size)
        weights = tf.sequence_mask(mine, size, dtype=tf.float32)
        gradients = work(x, weights, tf.cast(mine / count, tf.float32), index)
        some = [gradient for gradient in gradients if gradient is not None]
        if some:
            summed = iter(context.all_reduce(tf.distribute.ReduceOp.SUM, some))
            optimizer.apply([None if gradient is None else next(summed) for gradient in gradients], variables)

    def over_replicas(data: tf.Tensor, rows: tf.Tensor, count: tf.Tensor) -> None:
        with _taking_sums(optimizer):
            strategy.run(replica, (data, rows, count))

    return over_replicas


@contextlib.contextmanager
def _taking_sums(optimizer: keras.optimizers.Optimizer) -> Iterator[None]:
    """Keras's optimiser takes its gradients as they are.

    It would sum them over the replicas itself, but only after clipping, and each replica would clip its own.
    """
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    inner._all_reduce_sum_gradients = lambda gradients_and_variables: gradients_and_variables
    try:
        yield
    finally:
        del inner._all_reduce_sum_gradients
