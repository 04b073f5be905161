"""Inference over many rows, a batch at a time."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tfvae.engine.batches import num_rows


def map_rows(function: Callable[[Any], Any], rows: Any, batch_size: int) -> Any:
    """``function`` over the rows of a nest of tensors, ``batch_size`` at a time, as NumPy arrays with all the rows.

    A short batch is filled up to a power of two and cut again, so that a compiled function sees few shapes.

    Example:
        >>> map_rows(lambda x: 2 * x, tf.constant([1, 2, 3]), batch_size=2).tolist()
        [2, 4, 6]
    """
    count = num_rows(rows)
    size = min(batch_size, 1 << (count - 1).bit_length())
    pieces = []
    for start in range(0, count, size):
        missing = max(0, start + size - count)
        filled = functools.partial(_filled, start=start, size=size, missing=missing)
        batch = tf.nest.map_structure(filled, rows)
        pieces.append(tf.nest.map_structure(lambda y, keep=size - missing: y.numpy()[:keep], function(batch)))
    return tf.nest.map_structure(lambda *parts: np.concatenate(parts), *pieces)


def waited_for(state: Any) -> Any:
    """The tensors, once they are there: a program on a graphics card gives them before that.

    Example:
        >>> [part.numpy() for part in waited_for((tf.constant(1.5),))]
        [np.float32(1.5)]
    """
    tf.nest.flatten(state)[0].numpy()
    return state


def _filled(rows: tf.Tensor, start: int, size: int, missing: int) -> tf.Tensor:
    batch = tf.slice(rows, [start, *[0] * (rows.shape.rank - 1)], [size - missing, *rows.shape[1:]])
    return tf.concat([batch, tf.repeat(batch[:1], missing, axis=0)], axis=0) if missing else batch
