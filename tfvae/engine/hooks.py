"""Callbacks and programs of many steps: which callbacks want every batch, and how the others hear of each program."""

import math
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import keras

from tfvae.engine.course import Course


class Looking(keras.callbacks.Callback):
    """A callback that only looks: of a program of many steps it may be told once, with the step that was its last."""


_TRAIN = ("on_train_batch_begin", "on_train_batch_end", "on_batch_begin", "on_batch_end")
_TEST = ("on_test_batch_begin", "on_test_batch_end")
# Of Keras's own with such hooks, those that lose nothing when a program calls them once: they count, show or look.
_CONTENT = (keras.callbacks.ProgbarLogger, keras.callbacks.TerminateOnNaN, Looking)


def acting_on_batches(callbacks: Any, testing: bool = False) -> list[str]:
    """Names of the callbacks that do something at each batch, as Keras calls them.

    Example:
        >>> acting_on_batches([keras.callbacks.TerminateOnNaN(), keras.callbacks.ModelCheckpoint("m.keras")])
        []
        >>> acting_on_batches(keras.callbacks.ModelCheckpoint("m.keras", save_freq=10))
        ['ModelCheckpoint']
    """
    given = callbacks if isinstance(callbacks, Iterable) else [] if callbacks is None else [callbacks]
    given = getattr(callbacks, "callbacks", given)
    for one in given:
        if isinstance(one, type) or not hasattr(one, "set_model"):
            raise ValueError(
                f"callbacks holds {one!r:.60}, expected callbacks, such as keras.callbacks.EarlyStopping()."
            )
    return [type(one).__name__ for one in given if _acts(one, _TEST if testing else _TRAIN)]


def _acts(callback: Any, hooks: Iterable[str]) -> bool:
    if isinstance(callback, _CONTENT):
        return False
    if isinstance(callback, keras.callbacks.TensorBoard):
        return callback.update_freq != "epoch" or callback.write_steps_per_second
    if isinstance(callback, (keras.callbacks.ModelCheckpoint, keras.callbacks.BackupAndRestore)):
        return callback.save_freq != "epoch"
    base = keras.callbacks.Callback
    return any(hook in vars(callback) or getattr(type(callback), hook) is not getattr(base, hook) for hook in hooks)


# Of Keras's own, those that compare a number with their best one.
_JUDGING = (keras.callbacks.EarlyStopping, keras.callbacks.ReduceLROnPlateau, keras.callbacks.ModelCheckpoint)


def _check_mode(callback: Any) -> None:
    """Raises ValueError for one of which Keras would find out after an epoch that it cannot tell better from worse."""
    watched = getattr(callback, "monitor", "loss")
    knows = getattr(callback, "mode", None) != "auto" or watched in ("loss", "val_loss")
    if knows or not isinstance(callback, _JUDGING):
        return
    best = "mode='max'" if watched.endswith("elbo") else "mode='max' where more is better, else mode='min'"
    raise ValueError(
        f"{type(callback).__name__} watches {watched!r} without a mode, and Keras knows of the loss alone which way is "
        f"better: pass {best}."
    )


class Watch(keras.callbacks.CallbackList):
    """Keras's list of callbacks, which also hears of the programs within a group: Keras tells it of groups alone.

    Args:
        callbacks: As ``fit`` and ``evaluate`` take them.
        paced: Whether a group runs as several programs; else as one.
        fits: Whether it is for ``fit``, and not for ``evaluate`` alone.
        verbose: Keras's.
        steps: Steps in an epoch, where that is known.
        model: What is trained.
        data: The batches of ``fit``, as its ``Course`` takes them.
        params: What else Keras tells its callbacks.

    Raises:
        ValueError: One watches a number of which Keras cannot know which way is better.
    """

    def __init__(
        self,
        callbacks: Any,
        paced: bool,
        fits: bool,
        verbose: Any,
        steps: int | None,
        model: Any,
        data: Mapping[str, Any],
        **params: Any,
    ):
        used = [one for one in keras.tree.flatten(callbacks) if getattr(one, "model", None) is not None]
        super().__init__(callbacks, fits, verbose != 0, model, verbose=verbose, steps=steps, **params)
        for one in self.callbacks if fits else ():
            _check_mode(one)
        self.paced, self._fits, self._verbose, self._steps = paced, fits, verbose, steps
        self._tests, self._first, self._begun, self._ended = False, 0, True, False
        self._warned: set[str] = set()
        self.course = Course(model, self.callbacks if fits else [], used, data)

    def __iter__(self) -> Iterator[keras.callbacks.Callback]:
        """Itself: who wraps Keras's ``fit``, as MLflow does, copies the callbacks to a list and adds some."""
        yield self

    def set_params(self, params: dict[str, Any]) -> None:
        """The first ones stay: those of a list around this one know nothing of the bar that this one has."""
        if getattr(self, "params", None) is None:
            super().set_params(params)

    def compiles(self) -> None:
        """Say that a program is about to be compiled: no bar moves while it is."""
        shown = self._verbose != 0 and not (self._fits and self._tests)  # as Keras: no word of validation
        if shown and keras.config.is_interactive_logging_enabled():
            sys.stdout.write("Compiling ...\n")
            sys.stdout.flush()

    def between(self, stop: int, logs: Mapping[str, Any]) -> bool:
        """Tell of the steps before ``stop`` in this group; whether it goes on, or a callback has stopped it."""
        begin, end = super().on_train_batch_begin, super().on_train_batch_end
        if self._tests:
            begin, end = super().on_test_batch_begin, super().on_test_batch_end
        end(self._first + stop - 1, logs)
        self._tell_course(stop)
        self._ended = self.model.stop_evaluating if self._tests else self.model.stop_training
        if not self._ended:
            begin(self._first + stop)
        return not self._ended

    def goes_on(self, done: int) -> None:
        """Say that a group begins after those of its steps that were done before a stop."""
        self._begun = True
        super().on_train_batch_begin(self._first + done)

    def _tell_course(self, done: int | None = None) -> None:
        if self._tests:
            self.course.at_validation()
        else:
            self.course.at(done)

    def on_train_begin(self, logs: Any = None) -> None:
        self.course.opens()
        super().on_train_begin(logs)
        self.course.begins()

    def on_train_end(self, logs: Any = None) -> None:
        super().on_train_end(logs)
        if not self._warned and (path := self.model.weight_without_numbers()):
            why = self.model.why_no_number()
            warnings.warn(f"The last step left NaN or infinity in the weight {path}. {why}", stacklevel=2)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        super().on_epoch_begin(epoch, logs)
        self.course.begins_epoch(epoch)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        super().on_epoch_end(epoch, logs)
        self.course.ends_epoch(epoch, logs)
        losses = {name: float((logs or {}).get(name, 0.0)) for name in ("loss", "val_loss")}
        name = next((name for name, loss in losses.items() if not math.isfinite(loss)), None)
        if name and name not in self._warned:
            self._warned.add(name)
            why = self.model.why_no_number(validation=name == "val_loss")
            warnings.warn(f"The {name} of epoch {epoch + 1} is {losses[name]:g}. {why}", stacklevel=2)

    def on_test_begin(self, logs: Any = None) -> None:
        self._tests = True
        self.course.validates()
        super().on_test_begin(logs)

    def on_test_end(self, logs: Any = None) -> None:
        super().on_test_end(logs)
        self._tests = False
        loss = float((logs or {}).get("loss", 0.0))
        if not self._fits and not math.isfinite(loss):
            warnings.warn(f"The loss is {loss:g}. {self.model.why_no_number()}", stacklevel=2)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._first, self._ended = batch, False
        self._begun = batch >= self.course.resumed_steps
        if self._begun:
            super().on_train_batch_begin(batch, logs)

    def on_test_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._first, self._ended = batch, False
        super().on_test_batch_begin(batch, logs)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self._begun and not self._ended:  # else it was done before a stop, or has been told where it ended
            super().on_train_batch_end(self._within(batch), logs)
            self._tell_course()

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        if not self._ended:
            super().on_test_batch_end(batch if self._fits else self._within(batch), logs)
            self._tell_course()

    def _within(self, batch: int) -> int:
        """The last step of a group, of which Keras assumes that it is full."""
        return min(batch, self._steps - 1) if self._steps else batch
