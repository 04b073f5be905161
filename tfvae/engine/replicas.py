"""One batch on several devices: which rows are a replica's, and noise that is the same however many there are.

Under ``tf.distribute`` every worker sees the same batches in the same order, and each replica works on its own run of
their rows. The loss is a mean over the rows of the whole batch, so a replica's gradients count by its share of them;
their sum is what one device would have found. So is the noise: a replica draws as if for the whole batch and keeps its
part. What a layer draws (dropout) or averages (batch statistics), each replica has for itself, as always in Keras.
"""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfvae.engine import keras_private, scope, xla
from tfvae.engine.batches import Data


class Rows(NamedTuple):
    """Which rows a device has of a batch, and how much they count.

    Attributes:
        numbers: Their numbers in all the data, int32 ``[B]``.
        counts: 1 for a row of the batch, 0 for one that only fills it up, ``[B]``.
        weights: ``counts``, times the row's sample weight where there is one, ``[B]``.
        total: How many rows count in the whole batch, on all devices together.
        share: The part of them that is here, 1 on one device.
    """

    numbers: tf.Tensor
    counts: tf.Tensor
    weights: tf.Tensor
    total: tf.Tensor
    share: tf.Tensor

    @classmethod
    def of_one_device(cls, counts: tf.Tensor) -> "Rows":
        """A whole batch ``[B]`` on one device: 1 for each row that counts, 0 for one that does not."""
        total = tf.maximum(tf.reduce_sum(counts), 1.0)
        return cls(tf.range(tf.shape(counts)[0]), counts, counts, total, tf.constant(1.0))


def rows_of(batch: Data, numbers: tf.Tensor, mine: tf.Tensor, total: tf.Tensor, share: tf.Tensor) -> Rows:
    """The Rows of a gathered batch of which the first ``mine`` count here, and ``total`` on all devices."""
    counts = tf.sequence_mask(mine, tf.shape(numbers)[0], dtype=tf.float32)
    weights = counts * batch.sample_weight[0] if batch.sample_weight else counts
    return Rows(numbers, counts, weights, tf.cast(total, tf.float32), share)


def check_scope(model: keras.Model, method: str) -> None:
    """Raise ValueError where a method is called in the scope of a strategy that is not the model's, or in a program."""
    scope.refuse_programs(method)
    if tf.distribute.has_strategy() and tf.distribute.get_strategy() is not keras_private.strategy(model):
        own = "outside of any" if keras_private.strategy(model) is None else "in that of another"
        raise ValueError(
            f"{method} is called in the scope of a {type(tf.distribute.get_strategy()).__name__}, but the model was "
            f"made {own}: make and compile it within the same `with strategy.scope():`, or call {method} outside."
        )


def check_made_together(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> None:
    """Raise ValueError where a weight or the optimiser was made in another scope than the model; call it in its own."""
    extended = tf.distribute.get_strategy().extended
    parts = [("The optimiser", variable) for variable in optimizer.variables]
    parts += [(weight.path, weight) for weight in model.variables]
    for name, variable in parts:
        if not extended.variable_created_in_scope(variable.value):
            here, there = ("in", "outside of") if keras_private.strategy(model) is None else ("outside of", "in")
            raise ValueError(
                f"{name} was made {here} the scope of a strategy, and the model {there} it: make the networks, the "
                "model and the optimiser within the same `with strategy.scope():`."
            )


def check_steps(optimizer: keras.optimizers.Optimizer) -> None:
    """Raise ValueError where an optimiser does not do the same in each step, and several replicas train."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    count = tf.distribute.get_strategy().num_replicas_in_sync
    named = {
        "gradient_accumulation_steps": optimizer.gradient_accumulation_steps,
        "ema_overwrite_frequency": optimizer.use_ema and optimizer.ema_overwrite_frequency,
    }
    if count > 1 and (of_some := [name for name, every in named.items() if every]):
        raise ValueError(
            f"The optimiser has {of_some[0]}={named[of_some[0]]}, which Keras does on one device alone, and {count} "
            "replicas train: leave it out (a larger batch does what gradients of several do), or train on one device."
        )


Local = Callable[[Any, Rows], list[tf.Tensor | None]]
Apply = Callable[[list[tf.Tensor | None]], None]


def sample(
    distribution: tfd.Distribution, seed: tf.Tensor, sample_shape: Sequence[int] = (), row_shape: Sequence[Any] = ()
) -> tf.Tensor:
    """Draws for this replica's rows, ``[*sample_shape, *row_shape, *batch, *event]``; as TFP's where there are none.

    TFP numbers its noise by where it falls in the shape of all draws. An axis of replicas just before that of the
    rows therefore gives each row the noise that it has in the whole batch, where replicas divide the batch.

    Args:
        distribution: That of this replica's rows, or of one row.
        seed: Fixes the draws, int32 ``[2]``.
        sample_shape: Shape of the draws of each row.
        row_shape: ``[B]``, the number of this replica's rows, where the distribution is of one row.

    Example:
        >>> sample(tfd.Normal(tf.zeros([3]), 1.0), tf.constant([0, 1]), sample_shape=[2]).shape
        TensorShape([2, 3])
    """
    part = scope.part()
    if part is None:
        return distribution.sample([*sample_shape, *row_shape], seed=seed)
    draws = distribution.sample([*sample_shape, part.count, *row_shape], seed=seed)
    return tf.gather(draws, part.index, axis=len(sample_shape))


def sample_and_log_prob(
    distribution: tfd.Distribution, seed: tf.Tensor, sample_shape: Sequence[int] = ()
) -> tuple[tf.Tensor, tf.Tensor]:
    """Draws as ``sample`` has them and their log-density ``[*sample_shape, *batch]``, nats, found in the same pass.

    A flow knows the density of what it has just drawn; of a copy it would have to find the noise first.

    Example:
        >>> z, log_prob = sample_and_log_prob(tfd.Normal(tf.zeros([3]), 1.0), tf.constant([0, 1]), sample_shape=[2])
        >>> z.shape, bool(tf.reduce_all(log_prob == tfd.Normal(0.0, 1.0).log_prob(z)))
        (TensorShape([2, 3]), True)
    """
    part = scope.part()
    if part is None:
        return distribution.experimental_sample_and_log_prob([*sample_shape], seed=seed)
    draws, log_prob = distribution.experimental_sample_and_log_prob([*sample_shape, part.count], seed=seed)
    return tf.gather(draws, part.index, axis=len(sample_shape)), tf.gather(log_prob, part.index, axis=len(sample_shape))


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
    apply: Apply | None,
    optimizers: Sequence[keras.optimizers.Optimizer],
    jit_compile: bool,
) -> Callable[[Data, tf.Tensor, tf.Tensor], None]:
    """One step over the replicas of ``strategy``: ``step(data, numbers, count)``, for ``divided`` numbers ``[B]``.

    Args:
        strategy: Whose replicas.
        local: ``local(inputs, rows)``, the work of a replica: from its rows to the gradients of its part of the
            batch's loss. It may update metrics.
        apply: Takes the sums of the gradients; None to look only.
        optimizers: By which ``apply`` does.
        jit_compile: Whether XLA compiles ``local``; nothing that goes from device to device can be in an XLA program.
    """
    num_replicas = strategy.num_replicas_in_sync

    def as_part(
        batch: Data, numbers: tf.Tensor, mine: tf.Tensor, total: tf.Tensor, index: tf.Tensor
    ) -> list[tf.Tensor | None]:
        with scope.as_part(scope.Part(index, num_replicas)):
            return local(batch.inputs, rows_of(batch, numbers, mine, total, tf.cast(mine / total, tf.float32)))

    work = xla.compiled(as_part) if jit_compile else as_part

    def replica(data: Data, numbers: tf.Tensor, count: tf.Tensor) -> None:
        context = tf.distribute.get_replica_context()
        index, size = tf.cast(context.replica_id_in_sync_group, tf.int32), numbers.shape[0] // num_replicas
        with tf.device("CPU:0"):  # where an array of any size has room; a batch of it goes to the replica
            own = tf.slice(numbers, [index * size], [size])
            batch = tf.nest.map_structure(lambda leaf: tf.gather(leaf, own), data)
        gradients = work(batch, own, tf.clip_by_value(count - index * size, 0, size), count, index)
        some = [gradient for gradient in gradients if gradient is not None]
        if some and apply is not None:
            summed = iter(context.all_reduce(tf.distribute.ReduceOp.SUM, some))
            apply([None if gradient is None else next(summed) for gradient in gradients])

    def over_replicas(data: Data, numbers: tf.Tensor, count: tf.Tensor) -> None:
        with contextlib.ExitStack() as stack:
            for optimizer in optimizers:
                stack.enter_context(keras_private.summed_gradients(optimizer))
            strategy.run(replica, (data, numbers, count))

    return over_replicas
