"""The loop: K steps on the batches of a group, as one program that Keras calls where it has a step of its own."""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfvae.engine import batches, replicas, xla
from tfvae.engine.batches import Data
from tfvae.engine.hooks import Watch
from tfvae.engine.pace import Pace
from tfvae.engine.replicas import Rows

Step = Callable[[Any, Rows], None]  # of one batch: its rows' tensors, and which and how much they count
GroupStep = Callable[[Data, tf.Tensor, tf.Tensor], None]  # of one batch of a group: all rows, [B] numbers, how many


def on_one_device(step: Step) -> GroupStep:
    """``step`` as the engine calls it: with all the rows, and the numbers of those that are the batch."""

    def on_rows(data: Data, numbers: tf.Tensor, count: tf.Tensor) -> None:
        batch = tf.nest.map_structure(lambda leaf: tf.gather(leaf, numbers), data)
        step(batch.inputs, replicas.rows_of(batch, numbers, count, count, tf.constant(1.0)))

    return on_rows


def make_function(
    step: GroupStep,
    prepare: Callable[[Any], Data],
    metrics: Callable[[], list[keras.metrics.Metric]],
    jit_compile: bool,
    run_eagerly: bool,
    strategy: tf.distribute.Strategy,
    watch: Callable[[], Watch | None],
) -> Callable[[Iterator[Any]], dict[str, tf.Tensor]]:
    """What Keras calls with an iterator of groups: runs ``step(data, rows, count)`` on each batch of the next group.

    Args:
        step: One step, from all the rows, the numbers ``[B]`` of the batch's and how many of those count: the first
            ``count`` do, the others fill the batch.
        prepare: Checks and converts the one batch of ``train_on_batch``.
        metrics: The metrics whose results are returned.
        jit_compile: Whether the loop is compiled by XLA.
        run_eagerly: Whether it runs as plain Python, for debugging.
        strategy: In whose scope it runs; its replicas divide B.
        watch: Whoever hears of each program within a group; None where nobody does, and the group is one program.
    """

    def program(data, rows, counts, num_steps):
        def body(k):
            step(data, rows[k], counts[k])
            return (k + 1,)

        tf.while_loop(lambda k: k < num_steps, body, (tf.constant(0),))
        return {metric.name: metric.result() for metric in metrics()}

    run = program if run_eagerly else xla.compiled(program) if jit_compile else xla.as_graph(program)

    paces: dict[Any, Pace] = {}  # of each program; there is one for each shape of a group

    def function(iterator: Iterator[Any]) -> dict[str, Any]:
        group = next(iterator)
        if not isinstance(group, batches.Group):
            group = batches.single(prepare(group))
        if group.done >= group.num_steps:  # before a stop
            return {metric.name: metric.result() for metric in metrics()}
        rows = replicas.divided(group.rows, strategy.num_replicas_in_sync)

        def steps(start: int, stop: int) -> dict[str, tf.Tensor]:
            """Those of a group from ``start`` to ``stop``, put first: the program sees tensors of one shape."""
            results = None
            for first, last in _with_rows(group.counts, start, stop):
                numbers, counts = (tf.constant(np.roll(each, -first, axis=0)) for each in (rows, group.counts))
                with strategy.scope():
                    results = run(group.data, numbers, counts, tf.constant(last - first))
            return results or {metric.name: metric.result() for metric in metrics()}

        observer, shapes = watch(), (rows.shape, *(leaf.shape for leaf in tf.nest.flatten(group.data)))
        if shapes not in paces:
            paces[shapes] = Pace()
            if observer is not None and not run_eagerly:
                observer.compiles()
        if observer is not None and group.done:
            observer.goes_on(group.done)
        if observer is None or not observer.paced:
            return steps(group.done, group.num_steps)
        run_part = lambda *part: _waited_for(steps(*part))  # noqa: E731
        return paces[shapes].parts(group.num_steps, run_part, observer.between, group.done)

    function.program = run  # type: ignore[attr-defined]  # for whoever measures it, or takes it elsewhere
    return function


def _with_rows(counts: np.ndarray, start: int, stop: int) -> list[tuple[int, int]]:
    """The stretches of these steps whose batches hold rows: of a batch without any there is no mean, and no step."""
    steps = start + np.flatnonzero(counts[start:stop])
    stretches = np.split(steps, 1 + np.flatnonzero(np.diff(steps) > 1))
    return [(int(stretch[0]), int(stretch[-1]) + 1) for stretch in stretches if len(stretch)]


def _waited_for(results: dict[str, tf.Tensor]) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in results.items()}
