"""The engine: K optimiser steps as one XLA program, behind Keras's own ``fit``.

Keras compiles one step and pays for the way from Python through tf.data to XLA at each. Here ``steps_per_execution``
batches become one program that loops over them, with optimiser and metrics inside. ``UnsupervisedModel`` puts it
where ``keras.Model`` has its own: what a subclass adds is the loss of a batch. The engine knows no bound: it takes
weighted means of what the model gives it, and keeps them under the model's own names.
"""

import abc
import contextlib
import logging
import numbers
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tfvae.arguments import (
    check_at_least,
    check_name,
    check_number,
    check_truth,
    check_whole,
    found_by,
    no_array,
    refuse_masked,
    refuse_unknown,
)
from tfvae.engine import batches, course, hooks, keras_private, loop, overrides, replicas, settings, xla
from tfvae.engine.batches import Data
from tfvae.engine.doors import Doors
from tfvae.engine.loop import Step
from tfvae.engine.replicas import Rows

DEFAULT_BATCH_SIZE = 100  # the paper's M
_logger = logging.getLogger(__name__)


class Loss(NamedTuple):
    """What a model makes of a batch, in nats.

    Attributes:
        rows: To be minimised, ``[B]``; the engine takes the mean over the rows that count, by their sample weights.
        penalty: Added to that mean, a scalar.
        report: ``[B]`` or a scalar each; their weighted means are metrics of the model under these names.
    """

    rows: tf.Tensor
    penalty: tf.Tensor
    report: dict[str, tf.Tensor]


def with_gradient_of(value: tf.Tensor, surrogate: tf.Tensor) -> tf.Tensor:
    """``value`` whose gradient is that of ``surrogate``.

    Example:
        >>> x = tf.constant(3.0)
        >>> with tf.GradientTape() as tape:
        ...     tape.watch(x)
        ...     y = with_gradient_of(10.0 * x, x**2)
        >>> float(y), float(tape.gradient(y, x))
        (30.0, 6.0)
    """
    return value if surrogate is value else tf.stop_gradient(value) + (surrogate - tf.stop_gradient(surrogate))


def gradients_of(loss: tf.Tensor, variables: Sequence[keras.Variable], tape: tf.GradientTape) -> list[tf.Tensor | None]:
    """Gradients of the loss, none of which is there before the loss and all the others are.

    TensorFlow's graph optimiser drops the order «read, then assign» of a weight where another path implies it, and
    may then shorten that path: a weight that is read outside of its own gradient (by wake-sleep's encoder, awake)
    could be read after its update, in one step of some thousand. XLA keeps the order by itself.

    Example:
        >>> x, idle = tf.Variable(3.0), tf.Variable(1.0)
        >>> with tf.GradientTape() as tape:
        ...     loss = x**2
        >>> first, second = gradients_of(loss, [x, idle], tape)
        >>> float(first), second
        (6.0, None)
    """
    gradients = tape.gradient(loss, variables)
    some = [gradient for gradient in gradients if gradient is not None]
    waiting = iter(tf.tuple(some, control_inputs=[loss]) if some else [])
    return [None if gradient is None else next(waiting) for gradient in gradients]


class UnsupervisedModel(Doors, abc.ABC):
    """A ``keras.Model`` that is trained without targets, by the engine.

    A subclass says what a row is (``prepare``, ``check``), what the loss of a batch is (``batch_loss``) and which
    numbers it reports, and passes its ``seed`` on. One that makes more of a batch than one step of its optimiser
    overrides ``step``.

    Attributes:
        reported: The names in ``Loss.report``.
    """

    reported: tuple[str, ...] = ()
    train_function: Any
    test_function: Any
    predict_function: Any
    built: bool
    steps_per_execution: int

    def __init__(self, seed: int | None, name: str):
        check_name(name)
        super().__init__(name=name, dtype="float32")  # always: only networks inside it compute in half
        self.__dict__.pop("quantize")  # Keras's wrapper around the method, which has words of its own
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        # Validation draws from a stream of its own: whether one looks must not change what is trained.
        self.evaluation_seed_generator = keras.random.SeedGenerator(None if seed is None else seed + 1)
        self._report_metrics = [keras.metrics.Mean(name=name, dtype="float32") for name in self.reported]
        self._auto_steps = False
        self._trained: dict[int, str] = {}  # the paths of the weights that are, as when ``train_function`` was made
        self._watch: hooks.Watch | None = None  # of the fit or evaluate that runs now

    @abc.abstractmethod
    def prepare(self, inputs: Any) -> dict[str, tf.Tensor]:
        """Rows as the user gives them, or as it gave them, as tensors ``[N, ...]`` of the model's dtypes and shapes.

        Raises:
            ValueError: That says what came and what was expected.
        """

    def set_parts(self) -> Mapping[str, Any]:
        """Parts, by their names, whose settings a program holds as constants; none by default."""
        return {}

    @abc.abstractmethod
    def check(self, inputs: dict[str, tf.Tensor]) -> None:
        """Raise ValueError if prepared rows in memory hold values that the model cannot score."""

    @abc.abstractmethod
    def measure(self, inputs: dict[str, tf.Tensor]) -> tf.Tensor:
        """Numbers ``[M]`` that say what values a batch of a stream holds; of several batches the largest count."""

    @abc.abstractmethod
    def judge(self, measured: np.ndarray) -> None:
        """Raise ValueError if what was measured says that the model cannot score the rows."""

    @abc.abstractmethod
    def batch_loss(self, inputs: dict[str, tf.Tensor], weights: tf.Tensor, training: bool) -> Loss:
        """The loss of prepared rows; ``weights`` ``[B]`` are 0 for rows that only fill the batch."""

    def why_no_number(self, validation: bool = False) -> str:
        """What to look at where the loss is none, or that of validation alone: for a warning of ``fit``."""
        if validation:
            return "The loss is a number: evaluate(rows) of parts of validation_data says which rows make it so."
        return "callbacks.StopAtNaN() ends a training there, and names the first step and the layer that made it so."

    def step(self, inputs: dict[str, tf.Tensor], rows: Rows) -> None:
        """One step of training on a batch."""
        self.apply_gradients(self._gradients(inputs, rows))

    @property
    def updates(self) -> list[tuple[keras.optimizers.Optimizer, list[keras.Variable]]]:
        """Each optimiser, and the trainable weights that it moves: one moves them all, unless a subclass has more."""
        return [(self.optimizer, self.trainable_variables)]

    def apply_gradients(self, gradients: Sequence[tf.Tensor | None]) -> None:
        """A step of each optimiser, by the gradients of the trainable weights."""
        found = {id(weight): gradient for weight, gradient in zip(self.trainable_variables, gradients, strict=True)}
        for optimizer, weights in self.updates:
            optimizer.apply([found[id(weight)] for weight in weights], weights)

    def total_loss(self, inputs: dict[str, tf.Tensor], rows: Rows, training: bool) -> tf.Tensor:
        """The scalar to be minimised for a batch; updates the metrics."""
        keras_private.clear_losses(self)
        return self.record(self.batch_loss(inputs, rows.weights, training), rows)

    def record(self, loss: Loss, rows: Rows) -> tf.Tensor:
        """Update the metrics from the loss of a batch; gives its scalar, as Keras weighs it.

        The loss is the mean over rows of each row's, times its sample weight; what is reported are weighted means.
        """
        per_row = loss.rows if rows.weights is rows.counts else rows.weights * loss.rows
        keras_private.loss_tracker(self).update_state(loss.penalty + per_row, rows.counts)
        for metric in self._report_metrics:
            value = loss.report[metric.name]
            metric.update_state(tf.broadcast_to(value, tf.shape(loss.rows)), rows.weights)
        with tf.control_dependencies(list(loss.report.values())):  # what waits for the loss waits for these too
            return rows.share * loss.penalty + tf.reduce_sum(rows.counts * per_row) / rows.total

    def next_seed(self, training: bool) -> tf.Tensor:
        """The next seed of the training or the evaluation stream, int32 ``[2]``."""
        generator = self.seed_generator if training else self.evaluation_seed_generator
        return tf.cast(generator.next(), tf.int32)

    def seed_or_next(self, seed: Any, training: bool = False) -> tf.Tensor:
        """A seed, int32 ``[2]``: of a whole number n it is ``[0, n]``, and the next of the stream for None."""
        if seed is None:
            return self.next_seed(training)
        if isinstance(seed, numbers.Integral):
            check_whole(seed=seed)
            return tf.constant([0, seed], tf.int32)
        expected = "a whole number, or two of them: int32 [2]"
        key = found_by(lambda given: tf.convert_to_tensor(given, tf.int32), "seed", seed, expected)
        if not key.shape.is_compatible_with([2]):
            raise ValueError(f"seed has shape {tuple(key.shape)}, expected {expected}.")
        return key

    def compile(
        self,
        optimizer: Any = "adam",
        steps_per_execution: int | None = None,
        jit_compile: bool | None = None,
        run_eagerly: bool = False,
        **unknown: Any,
    ) -> None:
        """Choose the optimiser and the engine; the bound is the objective's, so there is no loss argument.

        Args:
            optimizer: A Keras optimiser or its name; where a layer computes in float16, with Keras's loss scaling.
            steps_per_execution: Batches run as one program, whatever time that takes. By default about a second's
                worth, found by the clock as it runs: at most 128, of about 16,000 rows in memory or 8,000 of a stream;
                and one where a callback of ``fit`` acts on every batch. What is computed does not depend on it. Over
                several workers, whose clocks differ, the number is that of rows alone.
            jit_compile: Whether XLA compiles the program; by default unless there are convolutions and no accelerator.
            run_eagerly: Run as plain Python, for debugging.
        """
        refuse_unknown(self.compile, unknown, "The model's objective is the loss, and its parts are the metrics.")
        replicas.check_scope(self, "compile")
        self.check_overrides()
        if steps_per_execution is not None and not isinstance(steps_per_execution, int):
            raise ValueError(
                f"compile takes an optimiser and steps_per_execution, a number, received {steps_per_execution!r}. "
                "There is no loss to choose: the model's objective is the loss."
            )
        check_at_least(1, steps_per_execution=1 if steps_per_execution is None else steps_per_execution)
        jit_compile = None if isinstance(jit_compile, str) and jit_compile == "auto" else jit_compile  # Keras's word
        run_eagerly = False if run_eagerly is None else run_eagerly
        check_truth(run_eagerly=run_eagerly, jit_compile=False if jit_compile is None else jit_compile)
        self._auto_steps = steps_per_execution is None
        with self.distribute_strategy.scope():
            optimizer = self._with_loss_scale(optimizer)
            _check_rate(optimizer)
            replicas.check_made_together(self, optimizer)
            replicas.check_steps(optimizer)
            super().compile(
                optimizer=optimizer,
                steps_per_execution=steps_per_execution or 1,
                jit_compile=(xla.pays_off(self) if jit_compile is None else jit_compile) and not run_eagerly,
                run_eagerly=run_eagerly,
            )
            keras_private.report_in_float32(self)
        self.forget_programs()
        self._choice = {
            "steps_per_execution": steps_per_execution,
            "jit_compile": jit_compile,
            "run_eagerly": run_eagerly,
        }

    def check_overrides(self) -> None:
        """Raise ValueError where a subclass has a method that nobody would call."""
        overrides.refuse(type(self), UnsupervisedModel, overrides.NEVER_CALLED)

    def forget_programs(self) -> None:
        """Forget programs that are kept beside Keras's: ``compile`` begins anew, as a layer that has changed needs."""

    def _with_loss_scale(self, optimizer: Any) -> Any:
        """The optimiser that float16 needs: what its layers hand back as gradients would vanish unscaled."""
        expected = "one of keras.optimizers, or the name of one, such as 'adam'"
        optimizer = found_by(keras.optimizers.get, "optimizer", optimizer, expected)
        scaled = keras.optimizers.LossScaleOptimizer
        half = any(layer.compute_dtype == "float16" for layer in keras_private.layers(self))
        return scaled(optimizer) if half and not isinstance(optimizer, scaled) else optimizer

    def get_compile_config(self) -> dict[str, Any]:
        if not self.compiled:
            return {}
        return {"optimizer": keras.optimizers.serialize(self.optimizer), **self._choice}

    def compile_from_config(self, config: dict[str, Any]) -> None:
        optimizer = keras.saving.deserialize_keras_object(config["optimizer"])
        self.compile(**{**config, "optimizer": optimizer})
        optimizer.build(self.updates[0][1])

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
        sample_weight: Any = None,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        initial_epoch: int = 0,
        validation_freq: int | Sequence[int] = 1,
        class_weight: None = None,
        **unknown: Any,
    ) -> keras.callbacks.History:
        """Keras's ``fit`` without targets.

        x is an array ``[N, *event_shape]``, a mapping of arrays with the names of a row (``x``, ``condition``,
        ``label``), or a dataset that gives batches of either, alone or as Keras's ``(x, None, sample_weight)``.

        ``batch_size`` is 100 by default, the paper's; a dataset has batches of its own, and may say here how large they
        are where ``dataset.element_spec`` does not. Arrays are shuffled anew in each epoch. With ``steps_per_epoch``
        every epoch has so many batches: data that end within one begin anew, where Keras breaks the epoch off.

        ``sample_weight`` ``[N]`` is as in Keras: a row's loss counts that many times in the mean over rows; what is
        reported beside the loss are weighted means.

        Raises:
            ValueError: For targets, a wrong shape, or observations outside the likelihood's support.
            TypeError: For an argument that it does not have.
        """
        refuse_unknown(self.fit, unknown)
        replicas.check_scope(self, "fit")
        _refuse_targets(y, class_weight)
        self._check_compiled("fit")
        check_truth(shuffle=shuffle)
        _check_verbose(verbose)
        sizes = {"batch_size": batch_size, "validation_batch_size": validation_batch_size}
        _check_counts(**sizes, steps_per_epoch=steps_per_epoch, validation_steps=validation_steps)
        check_at_least(0, most=2**53, epochs=epochs, initial_epoch=initial_epoch)
        check_number(0, validation_split=validation_split)
        validation_freq = _validated_epochs(validation_freq)
        if validation_split and validation_data is None:
            if self.is_stream(x):
                raise ValueError("validation_split needs an array in memory: pass validation_data instead.")
            data = self._data(x, sample_weight)
            (x, sample_weight), validation_data = _split(data, validation_split)
        batch_size = self._choose_steps(batch_size, x, hooks.acting_on_batches(callbacks))
        if validation_data is not None:
            held_out, weight = _validation(validation_data)
            size = validation_batch_size or batch_size
            validation_data = self._batches(held_out, size, validation_steps, sample_weight=weight)
        data = self._batches(x, batch_size, steps_per_epoch, shuffle, sample_weight)
        if isinstance(data, batches.ArrayBatches):
            self.check_num_rows(data.num_rows)
        told = {"epochs": epochs, "steps": steps_per_epoch or data.num_batches}
        fed = {"training": data} | ({} if validation_data is None else {"validation": validation_data})
        with self._watched(callbacks, verbose, fits=True, data=fed, **told) as watch:
            if isinstance(watch, hooks.Watch) and (first := watch.course.first_epoch) is not None:
                initial_epoch = int(min(first, epochs))
            return super().fit(
                data,
                batch_size=batch_size,
                epochs=epochs,
                verbose=0,  # the bar is the watch's
                callbacks=watch,
                validation_data=validation_data,
                shuffle=shuffle,
                steps_per_epoch=steps_per_epoch,
                validation_steps=validation_steps,
                validation_batch_size=validation_batch_size,
                initial_epoch=initial_epoch,
                validation_freq=validation_freq,
            )

    @contextlib.contextmanager
    def _watched(self, callbacks: Any, verbose: Any, **told: Any) -> Iterator[keras.callbacks.CallbackList]:
        """Within it the programs are told of to the callbacks; a list that Keras has made already is as it is."""
        if isinstance(callbacks, keras.callbacks.CallbackList):
            if told["fits"] and any(isinstance(one, course.Keeper) for one in callbacks.callbacks):
                raise ValueError("A Checkpoint belongs to fit's own list: pass callbacks=[...], not a CallbackList.")
            yield callbacks
            return
        paced = self._auto_steps and not keras_private.has_workers(self)
        outer, self._watch = self._watch, hooks.Watch(callbacks, paced, verbose=verbose, model=self, **told)
        try:
            yield self._watch
        finally:
            watch, self._watch = self._watch, outer  # that of the fit in whose callback this is an evaluate
            watch.course.leaves()

    def evaluate(
        self,
        x: Any = None,
        y: None = None,
        batch_size: int | None = None,
        verbose: str | int = "auto",
        sample_weight: Any = None,
        steps: int | None = None,
        callbacks: Any = None,
        return_dict: bool = False,
        **unknown: Any,
    ) -> Any:
        """Keras's ``evaluate`` without targets: the means of the loss and what else is reported, in nats.

        x and ``sample_weight`` are as in ``fit``.
        """
        of_fit = {name: unknown.pop(name) for name in keras_private.EVALUATED_BY_FIT & unknown.keys()}
        refuse_unknown(self.evaluate, unknown)
        replicas.check_scope(self, "evaluate")
        _refuse_targets(y, None)
        self._check_compiled("evaluate")
        check_truth(return_dict=return_dict)
        _check_verbose(verbose)
        _check_counts(batch_size=batch_size, steps=steps)
        if not isinstance(x, (batches.ArrayBatches, batches.StreamBatches)):
            acting = hooks.acting_on_batches(callbacks, testing=True)
            batch_size = self._choose_steps(batch_size, x, acting)
            x = self._batches(x, batch_size, steps, sample_weight=sample_weight)
        told = {"epochs": 1, "steps": steps or x.num_batches}
        with self._watched(callbacks, verbose, fits=False, data={}, **told) as watch:
            more = {"callbacks": watch, "return_dict": return_dict, **of_fit}
            return super().evaluate(x, batch_size=batch_size, verbose=verbose, steps=steps, **more)

    def predict(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: str | int = "auto",
        steps: int | None = None,
        callbacks: Any = None,
        **unknown: Any,
    ) -> Any:
        """Keras's ``predict``, of what ``fit`` takes."""
        refuse_unknown(self.predict, unknown)
        replicas.check_scope(self, "predict")
        _check_counts(batch_size=batch_size, steps=steps)
        _check_verbose(verbose)
        hooks.acting_on_batches(callbacks)  # which says what is none
        x = x if self.is_stream(x) else self.prepare(x)
        before = self.steps_per_execution
        if self._auto_steps:
            self.steps_per_execution = 1  # what suits ``fit`` would make of a step several
        try:
            found = super().predict(x, batch_size=batch_size, verbose=verbose, steps=steps, callbacks=callbacks)
            return self.of_numbers(found)
        finally:
            self.steps_per_execution = before

    def train_on_batch(
        self,
        x: Any,
        y: None = None,
        sample_weight: Any = None,
        class_weight: None = None,
        return_dict: bool = False,
        **unknown: Any,
    ) -> Any:
        """Keras's ``train_on_batch`` without targets."""
        refuse_unknown(self.train_on_batch, unknown)
        replicas.check_scope(self, "train_on_batch")
        _refuse_targets(y, class_weight)
        self._check_compiled("train_on_batch")
        check_truth(return_dict=return_dict)
        return super().train_on_batch(x, sample_weight=sample_weight, return_dict=return_dict)

    def test_on_batch(
        self, x: Any, y: None = None, sample_weight: Any = None, return_dict: bool = False, **unknown: Any
    ) -> Any:
        """Keras's ``test_on_batch`` without targets."""
        refuse_unknown(self.test_on_batch, unknown)
        replicas.check_scope(self, "test_on_batch")
        _refuse_targets(y, None)
        self._check_compiled("test_on_batch")
        check_truth(return_dict=return_dict)
        return super().test_on_batch(x, sample_weight=sample_weight, return_dict=return_dict)

    def predict_on_batch(self, x: Any, **unknown: Any) -> Any:
        """Keras's ``predict_on_batch``, of rows as ``fit`` takes them in memory."""
        refuse_unknown(self.predict_on_batch, unknown)
        replicas.check_scope(self, "predict_on_batch")
        return super().predict_on_batch(self.prepare(x))

    def check_num_rows(self, count: int) -> None:
        """What ``fit`` calls with the number of rows in memory, for a part that was told another one."""

    def _check_compiled(self, method: str) -> None:
        if not self.compiled:
            raise ValueError(f"{method} needs an optimiser: call compile() first, or compile(optimizer).")

    def _choose_steps(self, batch_size: int | None, x: Any, acting: list[str]) -> int:
        """The batch size, after settling how many batches a program runs: Keras reads it from the model.

        Callbacks that act on every batch have programs of one, unless the user named another number.
        """
        if self._auto_steps and acting:
            _logger.info("One batch at a time, for %s act on each; steps_per_execution decides.", " and ".join(acting))
            self.steps_per_execution = 1
        elif self._auto_steps:
            streamed = not batches.in_memory(x)
            size = batch_size or (batches.stream_batch_size(x) if streamed else DEFAULT_BATCH_SIZE)
            # No more than an epoch, or Keras's progress would show more steps than there are.
            most = batches.steps_in_an_epoch(x, size) or np.inf
            self.steps_per_execution = int(min(batches.default_steps_per_execution(size, streamed), most))
        return batch_size or DEFAULT_BATCH_SIZE

    def _batches(
        self, x: Any, batch_size: int, steps: int | None, shuffle: bool = False, sample_weight: Any = None
    ) -> Any:
        """x as the engine's batches."""
        if self.is_stream(x):
            if sample_weight is not None:
                raise ValueError(
                    "sample_weight belongs to arrays: let the dataset give (x, None, sample_weight) instead."
                )
            parts = (self._element, self._measure, self._judge)
            return batches.StreamBatches(x, *parts, self.steps_per_execution, steps, shuffle)
        data = self._data(x, sample_weight)
        self._check(data)
        if data.sample_weight and not tf.reduce_any(data.sample_weight[0] > 0) and batches.num_rows(data):
            raise ValueError(batches.NONE_COUNTS)
        seed = self._shuffle_seed if shuffle else None
        return batches.ArrayBatches(data, batch_size, self.steps_per_execution, steps, seed)

    def _data(self, x: Any, sample_weight: Any) -> Data:
        """Rows in memory, as the engine moves them."""
        on_host = tf.device("CPU:0")  # every replica takes its rows from the host's memory
        with contextlib.nullcontext() if keras_private.strategy(self) is None else on_host:
            return Data(self.prepare(x), _sample_weights(sample_weight))

    def is_stream(self, x: Any) -> bool:
        """Whether x gives batches, and is no rows in memory; a ValueError where it is neither."""
        batches.check_kind(x)
        if isinstance(x, tf.distribute.DistributedDataset) and not isinstance(x, keras_private.DataAdapter):
            raise ValueError(
                "x is a DistributedDataset, but the engine gives each replica its rows itself: pass the dataset of "
                "whole batches, the same in every worker."
            )
        if isinstance(x, tuple):
            raise ValueError(f"{_NO_TARGETS}, received a tuple of {len(x)}: pass only its first part. {_LABELS}")
        return not batches.in_memory(x)

    def _shuffle_seed(self) -> list[int]:
        return [int(self.seed_generator.state.numpy()[0]), int(keras_private.steps_taken(self).numpy())]

    def _element(self, element: Any) -> Data:
        """What a dataset gives, ``x`` or Keras's ``(x, None, sample_weight)``, as rows of the engine."""
        parts = element if isinstance(element, (tuple, list)) else (element,)
        parts = [None if isinstance(part, tf.experimental.Optional) else part for part in parts]  # Keras's None
        if not 1 <= len(parts) <= 3 or (len(parts) > 1 and parts[1] is not None):
            raise ValueError(
                f"{_NO_TARGETS}, but the dataset gives {type(element).__name__}s of {len(parts)}: map it to its "
                f"observations, for example dataset.map(lambda x, y: x). {_LABELS}"
            )
        return Data(self.prepare(parts[0]), _sample_weights(parts[2] if len(parts) == 3 else None))

    def checked_element(self, element: Any) -> Data:
        """A batch by itself, as ``train_on_batch`` and ``predict`` take it, once its values are those of the model."""
        data = self._element(element)
        self._check(data)
        return data

    def _check(self, data: Data) -> None:
        _judge_weights(_broken_weights(data))
        self.check(data.inputs)

    def _measure(self, data: Data) -> tf.Tensor:
        greatest = tf.reduce_max(data.sample_weight[0], keepdims=True) if data.sample_weight else tf.ones([1])
        return tf.concat([[_broken_weights(data)], greatest, self.measure(data.inputs)], axis=0)

    def _judge(self, measured: np.ndarray) -> bool:
        """Whether one of the rows counts, once they have been judged."""
        broken, greatest = measured[:2]
        _judge_weights(broken)
        self.judge(measured[2:])
        return greatest > 0

    def make_train_function(self, force: bool = False) -> None:
        if self.train_function is not None and not force and not self.run_eagerly:
            self._warn_of_frozen()
            return
        for optimizer, weights in self.updates:
            if not optimizer.built:  # a LossScaleOptimizer that is built again forgets its scale
                with self.distribute_strategy.scope():
                    optimizer.build(weights)
            if unknown := keras_private.unknown(optimizer, weights):
                raise ValueError(
                    f"The optimiser does not know {unknown[0].path}: it was built for another model, or while that was "
                    "frozen. Give compile a new one, or the name of one."
                )
        if self.train_function is None or force:
            self._trained = self._trained_now()
            self.train_function = self._engine(self.step, self._gradients, self.apply_gradients)

    def _warn_of_frozen(self) -> None:
        """As in Keras, what is trained is settled by ``compile``: a program that is there goes on as it was."""
        before, now = self._trained, self._trained_now()
        if changed := sorted(before.keys() ^ now.keys()):
            name = (before | now)[changed[0]]
            how = "frozen" if changed[0] in before else "not frozen any more"
            warnings.warn(
                f"{len(changed)} weights, {name} for one, are {how}, which changes nothing until compile is called "
                "again.",
                stacklevel=2,
            )

    def _trained_now(self) -> dict[int, str]:
        return {id(weight): weight.path for weight in self.trainable_variables}

    def make_test_function(self, force: bool = False) -> None:
        if self.test_function is None or force:
            self.test_function = self._engine(self._test_on, self._no_gradients, None)

    def _engine(self, step: Step, local: replicas.Local, apply: replicas.Apply | None) -> Callable:
        """``step`` on one device; over several, ``local`` in each replica and then what it is all for."""
        strategy, jit_compile = keras_private.strategy(self), self.jit_compile
        if strategy is None:
            engine_step = loop.on_one_device(step)
        else:
            engine_step = replicas.step(
                strategy, local, apply, [optimizer for optimizer, _ in self.updates], jit_compile
            )
            jit_compile = False
        parts = (engine_step, self.checked_element, lambda: self.metrics, jit_compile)
        run = loop.make_function(*parts, self.run_eagerly, self.distribute_strategy, lambda: self._watch)
        return run if self.run_eagerly else settings.holding(run, self.set_parts)

    def _gradients(self, inputs: dict[str, tf.Tensor], rows: Rows) -> list[tf.Tensor | None]:
        """The gradients of this device's part of the loss of a batch."""
        with tf.GradientTape() as tape:
            loss = self.optimizer.scale_loss(self.total_loss(inputs, rows, training=True))
        return gradients_of(loss, self.trainable_variables, tape)

    def _test_on(self, inputs: dict[str, tf.Tensor], rows: Rows) -> None:
        self.total_loss(inputs, rows, training=False)

    def _no_gradients(self, inputs: dict[str, tf.Tensor], rows: Rows) -> list[tf.Tensor | None]:
        self.total_loss(inputs, rows, training=False)
        return []

    def export(self, filepath: Any = "folder", *args: Any, **kwargs: Any) -> None:
        """Keras's ``export`` would write one signature of reconstructions; the package's writes them all.

        Raises:
            ValueError: That says so.
        """
        raise ValueError(
            f"Keras's export is not the model's: write tfvae.export(vae, {str(filepath)!r}), which gives every "
            "signature, checked inputs, a warm-up file and a card."
        )

    def save_own_variables(self, store: dict[str, Any]) -> None:
        """Keras leaves the state of random streams out of a saved model; with it, training resumes exactly."""
        for i, state in enumerate(keras_private.seed_states(self)):
            store[f"seed_state_{i}"] = state.numpy()

    def load_own_variables(self, store: dict[str, Any]) -> None:
        for i, state in enumerate(keras_private.seed_states(self)):
            state.assign(store[f"seed_state_{i}"])


def _check_verbose(verbose: Any) -> None:
    if not (isinstance(verbose, (str, numbers.Integral)) and verbose in ("auto", 0, 1, 2)):
        raise ValueError(f"verbose is {verbose!r:.80}, expected 'auto', 0, 1 for a bar, or 2 for a line an epoch.")


def _validated_epochs(given: Any) -> int | list[int]:
    """Keras's ``validation_freq``: how often, or after which epochs."""
    if isinstance(given, (str, Mapping)) or not isinstance(given, Iterable):
        check_at_least(1, validation_freq=given)
        return int(given)  # type: ignore[arg-type]
    epochs = list(given)
    check_at_least(1, **{f"validation_freq[{i}]": epoch for i, epoch in enumerate(epochs)})
    return [int(epoch) for epoch in epochs]


def _check_rate(optimizer: keras.optimizers.Optimizer) -> None:
    rate = optimizer.learning_rate
    if isinstance(rate, keras.Variable):  # and not a schedule's number of now
        check_number(0, learning_rate=float(rate.numpy()))


def _check_counts(**given: Any) -> None:
    check_at_least(1, **{name: value for name, value in given.items() if value is not None})


_NO_TARGETS = "A VAE is trained without targets"
_LABELS = 'Labels and conditions are parts of a row: {"x": x, "label": label}.'


def _refuse_targets(y: Any, class_weight: Any) -> None:
    given = ["y"] * (y is not None) + ["class_weight"] * (class_weight is not None)
    if given:
        raise ValueError(f"{_NO_TARGETS}, received {' and '.join(given)}: call fit(x). {_LABELS}")


def _sample_weights(given: Any) -> tuple[tf.Tensor, ...]:
    """Keras's sample weights ``[N]`` as the engine's data have them."""
    if given is None:
        return ()
    refuse_masked("sample_weight", given)
    try:
        weights = tf.convert_to_tensor(given)
    except (TypeError, ValueError) as error:
        raise no_array("sample_weight", given) from error
    if not (weights.dtype.is_floating or weights.dtype.is_integer or weights.dtype.is_bool):
        raise ValueError(f"sample_weight has dtype {weights.dtype.name}, expected numbers.")
    weights = tf.cast(weights, tf.float32)
    if weights.shape.rank not in (None, 1):
        raise ValueError(f"sample_weight has shape {tuple(weights.shape)}, expected one number for each row, (N,).")
    return (weights,)


def _broken_weights(data: Data) -> tf.Tensor:
    """3 where float32 does not hold their sum, 2 where one is no finite number, 1 where one is negative, else 0."""
    if not data.sample_weight:
        return tf.constant(0.0)
    weights = data.sample_weight[0]
    negative = tf.where(tf.reduce_any(weights < 0), 1.0, 0.0)
    overflown = tf.where(tf.math.is_finite(tf.reduce_sum(tf.abs(weights))), negative, 3.0)
    return tf.where(tf.reduce_all(tf.math.is_finite(weights)), overflown, 2.0)


def _judge_weights(broken: Any) -> None:
    if broken > 2:
        raise ValueError("sample_weight holds numbers whose sum float32 does not hold: divide them by the largest.")
    if broken:
        held = "NaN or infinite values" if broken > 1 else "negative numbers, by which a bound would be made lower"
        raise ValueError(f"sample_weight holds {held}: a row that is not to count has the weight 0.")


def _validation(given: Any) -> tuple[Any, Any]:
    """x and sample weights of Keras's ``validation_data``: x, ``(x,)``, ``(x, None)`` or ``(x, None, weights)``.

    A list with None in it holds no rows: Keras takes it for a tuple.
    """
    if isinstance(given, list) and len(given) <= 3 and any(part is None for part in given):
        given = tuple(given)
    if not isinstance(given, tuple):
        return given, None
    if len(given) > 3 or (len(given) > 1 and given[1] is not None):
        raise ValueError(f"{_NO_TARGETS}, received validation_data of {len(given)} parts: pass x alone. {_LABELS}")
    return given[0], given[2] if len(given) == 3 else None


def _split(data: Data, fraction: float) -> tuple[tuple[Any, Any], tuple[Any, None, Any]]:
    """The first rows for training and the last ``fraction`` of them for validation, as Keras splits."""
    count = batches.num_rows(data)
    at = int(np.floor(count * (1.0 - fraction)))
    if not 0 < at < count:
        raise ValueError(f"validation_split={fraction} of {count} rows leaves one side empty.")
    first, last = (
        tf.nest.map_structure(lambda leaf, part=part: leaf[part], data) for part in (slice(at), slice(at, None))
    )
    weights = [part.sample_weight[0] if part.sample_weight else None for part in (first, last)]
    return (first.inputs, weights[0]), (last.inputs, None, weights[1])
