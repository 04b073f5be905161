"""The engine: K optimiser steps as one XLA program, behind Keras's own ``fit``.

Keras compiles one step and pays for the way from Python through tf.data to XLA at each. Here ``steps_per_execution``
batches become one program that loops over them, with optimiser and metrics inside. ``UnsupervisedModel`` puts it
where ``keras.Model`` has its own: what a subclass adds is the loss of a batch.
"""

import abc
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.trainers.data_adapters.data_adapter import DataAdapter

from tfvae import batches, objectives, replicas, xla
from tfvae.objectives import Terms

DEFAULT_BATCH_SIZE = 100  # the paper's M

Step = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], None]


def _on_one_device(step: Step) -> Step:
    """``step(x, weights, rows)`` as the engine calls it, with all the data and which of their rows are the batch."""

    def on_rows(data: tf.Tensor, rows: tf.Tensor, count: tf.Tensor) -> None:
        step(tf.gather(data, rows), tf.sequence_mask(count, tf.shape(rows)[0], dtype=tf.float32), rows)

    return on_rows


def make_function(
    step: Step,
    metrics: Callable[[], list[keras.metrics.Metric]],
    jit_compile: bool,
    run_eagerly: bool,
    strategy: tf.distribute.Strategy,
) -> Callable[[Iterator[Any]], dict[str, tf.Tensor]]:
    """What Keras calls with an iterator of groups: runs ``step(data, rows, count)`` on each batch of the next group.

    Args:
        step: One step; data are ``[N, *event]``, rows ``[B]`` the numbers of the batch's, of which the first ``count``
            count and the others fill it.
        metrics: The metrics whose results are returned.
        jit_compile: Whether the loop is compiled by XLA.
        run_eagerly: Whether it runs as plain Python, for debugging.
        strategy: In whose scope it runs; its replicas divide B.
    """

    def program(data, rows, counts, num_steps):
        def body(k):
            step(data, rows[k], counts[k])
            return (k + 1,)

        tf.while_loop(lambda k: k < num_steps, body, (tf.constant(0),))
        return {metric.name: metric.result() for metric in metrics()}

    run = program if run_eagerly else xla.compiled(program) if jit_compile else tf.function(program, autograph=False)

    def function(iterator: Iterator[Any]) -> dict[str, tf.Tensor]:
        group = next(iterator)
        if not isinstance(group, batches.Group):
            group = batches.single(group)
        rows = replicas.divided(group.rows, strategy.num_replicas_in_sync)
        with strategy.scope():
            return run(group.data, tf.constant(rows), tf.constant(group.counts), tf.constant(group.num_steps))

    function.program = run  # type: ignore[attr-defined]  # for whoever measures it, or takes it elsewhere
    return function


class UnsupervisedModel(keras.Model, abc.ABC):
    """A ``keras.Model`` that is trained on observations alone, by the engine.

    A subclass says what an observation is (``observations``, ``check_observations``) and what the loss of a batch is
    (``batch_loss``), and passes its ``seed`` on.
    """

    train_function: Any
    test_function: Any
    predict_function: Any
    built: bool

    def __init__(self, seed: int | None, name: str):
        super().__init__(name=name, dtype="float32")  # always: only networks inside it compute in half
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        # Validation draws from a stream of its own: whether one looks must not change what is trained.
        self.evaluation_seed_generator = keras.random.SeedGenerator(None if seed is None else seed + 1)
        self._bound_metrics = [keras.metrics.Mean(name=n) for n in ("elbo", "log_likelihood", "kl")]
        self._auto_steps = False

    @abc.abstractmethod
    def observations(self, x: Any) -> tf.Tensor:
        """x as a tensor ``[N, *event]`` of the model's dtype and shape, or a ValueError that says what came."""

    @abc.abstractmethod
    def check_observations(self, x: tf.Tensor) -> None:
        """Raise ValueError if in-memory observations hold values that the model cannot score."""

    @abc.abstractmethod
    def drawn_observations(self, x: tf.Tensor, seeds: Callable[[], tf.Tensor]) -> tf.Tensor:
        """What a step takes for a batch x, from the next of ``seeds`` where that is random."""

    @abc.abstractmethod
    def batch_loss(self, x: tf.Tensor, weights: tf.Tensor, training: bool) -> tf.Tensor:
        """The scalar to be minimised for a batch; updates the metrics, each row by its weight."""

    def update_metrics(self, terms: Terms, loss: tf.Tensor, weights: tf.Tensor) -> None:
        """Record loss ``[B]``, ELBO, log p(x|z) and KL of a batch, each row by its weight."""
        values = (objectives.elbo(terms).bound, tf.reduce_mean(terms.log_likelihood, axis=0), terms.kl)
        for metric, value in zip([self._loss_tracker, *self._bound_metrics], [loss, *values], strict=True):
            metric.update_state(value, weights)

    def next_seed(self, training: bool) -> tf.Tensor:
        """The next seed of the training or the evaluation stream, int32 ``[2]``."""
        generator = self.seed_generator if training else self.evaluation_seed_generator
        return tf.cast(generator.next(), tf.int32)

    def compile(
        self,
        optimizer: Any = "adam",
        steps_per_execution: int | None = None,
        jit_compile: bool | None = None,
        run_eagerly: bool = False,
    ) -> None:
        """Choose the optimiser and the engine; the bound is the objective's, so there is no loss argument.

        Args:
            optimizer: A Keras optimiser or its name; where a layer computes in float16, with Keras's loss scaling.
            steps_per_execution: Batches run as one program; by default at most 128, of about 16,000 rows in
                memory or 8,000 of a stream.
            jit_compile: Whether XLA compiles the program; by default unless there are convolutions and no accelerator.
            run_eagerly: Run as plain Python, for debugging.
        """
        if steps_per_execution is not None and steps_per_execution < 1:
            raise ValueError(f"steps_per_execution must be at least 1, received {steps_per_execution}.")
        self._auto_steps = steps_per_execution is None
        super().compile(
            optimizer=self._with_loss_scale(optimizer),
            steps_per_execution=steps_per_execution or 1,
            jit_compile=(xla.suits(self) if jit_compile is None else jit_compile) and not run_eagerly,
            run_eagerly=run_eagerly,
        )
        self._choice = {
            "steps_per_execution": steps_per_execution,
            "jit_compile": jit_compile,
            "run_eagerly": run_eagerly,
        }

    def _with_loss_scale(self, optimizer: Any) -> Any:
        """The optimiser that float16 needs: what its layers hand back as gradients would vanish unscaled."""
        optimizer, scaled = keras.optimizers.get(optimizer), keras.optimizers.LossScaleOptimizer
        half = any(layer.compute_dtype == "float16" for layer in self._flatten_layers())
        return scaled(optimizer) if half and not isinstance(optimizer, scaled) else optimizer

    def get_compile_config(self) -> dict[str, Any]:
        if not self.compiled:
            return {}
        return {"optimizer": keras.optimizers.serialize(self.optimizer), **self._choice}

    def compile_from_config(self, config: dict[str, Any]) -> None:
        optimizer = keras.optimizers.deserialize(config["optimizer"])
        self.compile(**{**config, "optimizer": optimizer})
        optimizer.build(self.trainable_variables)

    def fit(
        self,
        x: Any = None,
        y: None = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: str | int = "auto",
        callbacks: Any = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool = True,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        **kwargs: Any,
    ) -> keras.callbacks.History:
        """Keras's ``fit`` without targets: x is an array ``[N, *event_shape]`` or a dataset of such batches.

        ``batch_size`` is 100 by default, the paper's; a dataset has batches of its own, and may say here how large they
        are where ``dataset.element_spec`` does not. Arrays are shuffled anew in each epoch.

        Raises:
            ValueError: For targets, a wrong shape, or observations outside the likelihood's support.
        """
        self._refuse_targets(y, kwargs)
        if validation_split and validation_data is None:
            x, validation_data = _split(x, validation_split)
        batch_size = self._choose_steps(batch_size, x)
        if validation_data is not None:
            validation_data = self._batches(validation_data, validation_batch_size or batch_size, validation_steps)
        return super().fit(
            self._batches(x, batch_size, steps_per_epoch, shuffle),
            batch_size=batch_size,
            epochs=epochs,
            verbose=verbose,
            callbacks=callbacks,
            validation_data=validation_data,
            shuffle=shuffle,
            steps_per_epoch=steps_per_epoch,
            validation_steps=validation_steps,
            validation_batch_size=validation_batch_size,
            **kwargs,
        )

    def evaluate(
        self,
        x: Any = None,
        y: None = None,
        batch_size: int | None = None,
        steps: int | None = None,
        **kwargs: Any,
    ) -> Any:
        """Keras's ``evaluate`` without targets: the means of loss, ELBO, log p(x|z) and KL over the rows, in nats."""
        self._refuse_targets(y, kwargs)
        if not isinstance(x, (batches.ArrayBatches, batches.StreamBatches)):
            batch_size = self._choose_steps(batch_size, x)
            x = self._batches(x, batch_size, steps)
        return super().evaluate(x, batch_size=batch_size, steps=steps, **kwargs)

    def _choose_steps(self, batch_size: int | None, x: Any) -> int:
        """The batch size, after settling how many batches a program runs: Keras reads it from the model."""
        if self._auto_steps:
            streamed = not batches.in_memory(x)
            size = batch_size or (batches.stream_batch_size(x) if streamed else DEFAULT_BATCH_SIZE)
            # No more than an epoch, or Keras's progress would show more steps than there are.
            most = batches.steps_in_an_epoch(x, size) or np.inf
            self.steps_per_execution = int(min(batches.default_steps_per_execution(size, streamed), most))
        return batch_size or DEFAULT_BATCH_SIZE

    def _refuse_targets(self, y: Any, kwargs: dict[str, Any]) -> None:
        given = [n for n in ("sample_weight", "class_weight") if kwargs.pop(n, None) is not None]
        if y is not None or given:
            raise ValueError(
                f"A VAE is trained on x alone, received {', '.join(['y'] * (y is not None) + given)}: call fit(x)."
            )

    def _batches(self, x: Any, batch_size: int, steps: int | None, shuffle: bool = False) -> Any:
        """x as the engine's batches."""
        if isinstance(x, tf.distribute.DistributedDataset) and not isinstance(x, DataAdapter):
            raise ValueError(
                "x is a DistributedDataset, but the engine gives each replica its rows itself: pass the dataset of "
                "whole batches, the same in every worker."
            )
        if isinstance(x, tuple):
            raise ValueError(f"A VAE is trained on x alone, received a tuple of {len(x)}: pass only its first part.")
        if not batches.in_memory(x):
            return batches.StreamBatches(x, self._stream_element, self.steps_per_execution, steps, shuffle)
        with contextlib.nullcontext() if self._distribute_strategy is None else tf.device("CPU:0"):
            data = self.observations(x)  # every replica takes its rows from the host's memory
        self.check_observations(data)
        seed = self._shuffle_seed if shuffle else None
        return batches.ArrayBatches(data, batch_size, self.steps_per_execution, steps, seed)

    def _shuffle_seed(self) -> list[int]:
        return [int(self.seed_generator.state.numpy()[0]), int(self.optimizer.iterations.numpy())]

    def _stream_element(self, element: Any) -> tf.Tensor:
        if isinstance(element, (tuple, list)) and len(element) == 1:
            element = element[0]
        if isinstance(element, (tuple, list, dict)):
            raise ValueError(
                f"A VAE is trained on x alone, but the dataset gives {type(element).__name__}s of {len(element)}: map "
                "it to its observations, for example dataset.map(lambda x, y: x)."
            )
        return self.observations(element)

    def make_train_function(self, force: bool = False) -> None:
        if self.train_function is None or force:
            if not self.optimizer.built:  # a LossScaleOptimizer that is built again forgets its scale
                with self.distribute_strategy.scope():
                    self.optimizer.build(self.trainable_variables)
            self.train_function = self._engine(self._train_on, self._gradients, self.trainable_variables)

    def make_test_function(self, force: bool = False) -> None:
        if self.test_function is None or force:
            self.test_function = self._engine(self._test_on, self._no_gradients, [])

    def _engine(self, step: Step, local: replicas.Local, variables: list[keras.Variable]) -> Callable:
        """``step`` on one device; over several, ``local`` in each replica and a step of the optimiser."""
        if self._distribute_strategy is None:
            engine_step, jit_compile = _on_one_device(step), self.jit_compile
        else:
            engine_step = replicas.step(self.distribute_strategy, local, self.optimizer, variables, self.jit_compile)
            jit_compile = False
        return make_function(engine_step, lambda: self.metrics, jit_compile, self.run_eagerly, self.distribute_strategy)

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        """Keras would take a first batch to build the model with; the constructor has built it."""

    def _train_on(self, x: tf.Tensor, weights: tf.Tensor, rows: tf.Tensor) -> None:
        self.optimizer.apply(self._gradients(x, weights), self.trainable_variables)

    def _gradients(self, x: tf.Tensor, weights: tf.Tensor, share: float | tf.Tensor = 1.0) -> list[tf.Tensor | None]:
        """The gradients of ``share`` times the loss of a batch."""
        with tf.GradientTape() as tape:
            loss = self.optimizer.scale_loss(share * self._loss_of_draw(x, weights, training=True))
        return tape.gradient(loss, self.trainable_variables)

    def _test_on(self, x: tf.Tensor, weights: tf.Tensor, rows: tf.Tensor) -> None:
        self._loss_of_draw(x, weights, training=False)

    def _no_gradients(self, x: tf.Tensor, weights: tf.Tensor, share: tf.Tensor) -> list[tf.Tensor | None]:
        self._loss_of_draw(x, weights, training=False)
        return []

    def _loss_of_draw(self, x: tf.Tensor, weights: tf.Tensor, training: bool) -> tf.Tensor:
        return self.batch_loss(self.drawn_observations(x, lambda: self.next_seed(training)), weights, training)

    def _seed_states(self) -> list[tf.Variable]:
        return [generator.state for layer in self._flatten_layers() for generator in layer._seed_generators]

    def save_own_variables(self, store: dict[str, Any]) -> None:
        """Keras leaves the state of random streams out of a saved model; with it, training resumes exactly."""
        for i, state in enumerate(self._seed_states()):
            store[f"seed_state_{i}"] = state.numpy()

    def load_own_variables(self, store: dict[str, Any]) -> None:
        for i, state in enumerate(self._seed_states()):
            state.assign(store[f"seed_state_{i}"])


def _split(x: Any, fraction: float) -> tuple[Any, Any]:
    """The first rows for training and the last ``fraction`` of them for validation, as Keras splits."""
    if not hasattr(x, "__array__"):
        raise ValueError("validation_split needs an array in memory: pass validation_data instead.")
    at = int(np.floor(len(x) * (1.0 - fraction)))
    if not 0 < at < len(x):
        raise ValueError(f"validation_split={fraction} of {len(x)} rows leaves one side empty.")
    return x[:at], x[at:]
