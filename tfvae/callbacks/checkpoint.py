"""A training that was stopped, or killed, goes on exactly where it was."""

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfvae.arguments import check_at_least, check_kind, check_number, check_path
from tfvae.callbacks import kept
from tfvae.engine import course, keras_private
from tfvae.engine.course import Keeper, State, nameless
from tfvae.pipelines import stops, storage
from tfvae.pipelines.checksums import DamagedError

_logger = logging.getLogger(__name__)
_SECONDS = 60.0  # from one to the next, where nothing else is asked for


class Checkpoint(Keeper):
    """Keeps checkpoints of a training in a folder; the same ``fit`` with the same folder goes on from the last one.

    One holds all that moves: weights, optimisers, random streams, the position in the data, the metrics of the epoch,
    the history, and what the other callbacks remember. What comes of it is equal, bit for bit, to a training that was
    never stopped. See the page on training for streams of which that is not so.

    They are written in a thread while the training goes on, each whole or not at all. Of a damaged one the one before
    is taken, and one that cannot be written, on a full disk say, is told and the training goes on; both as warnings.
    SIGTERM and Ctrl-C let the program that runs end, write a last one and raise SystemExit(143) or KeyboardInterrupt;
    the second time they stop at once.

    Over several workers the first one writes, and all must see the folder; there it is written every ``steps``, or
    after each epoch.

    Args:
        folder: Where they go; of one training. It stays when the training ends, so that more epochs go on from there.
        steps: Optimiser steps from one to the next; it is written where a program ends, of whose steps there are many.
        minutes: The same in time; by default one minute, if ``steps`` are not named.
        keep: How many of the last are kept.
        monitor: The number in the history by which an epoch's weights are the best, which are kept too:
            ``restore_best``. Where the history has none, none are.
        mode: "max" where a larger number is better, or "min".

    Attributes:
        seconds: How long was trained, the parts before a stop with it.

    Raises:
        ValueError: At the start of ``fit``, if the folder holds checkpoints of another training, which it names, or is
            being written by one.

    Example:
        >>> from tfvae import VAE, likelihoods, networks, posteriors
        >>> vae = VAE(networks.mlp([4]), networks.mlp([4]), posteriors.diagonal_normal(2), likelihoods.normal([3]))
        >>> vae.compile()
        >>> x = np.zeros([10, 3], "float32")
        >>> history = vae.fit(x, epochs=2, verbose=0, callbacks=[Checkpoint("checkpoints")])
        >>> history = vae.fit(x, epochs=3, verbose=0, callbacks=[Checkpoint("checkpoints")])
        >>> history.epoch
        [0, 1, 2]
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        steps: int | None = None,
        minutes: float | None = None,
        keep: int = 2,
        monitor: str = "val_elbo",
        mode: str = "max",
    ):
        super().__init__()
        check_path(folder=folder)
        check_at_least(1, keep=keep, steps=1 if steps is None else steps)
        check_number(0, is_open=True, minutes=1.0 if minutes is None else minutes)
        check_kind("monitor", monitor, str, "the name of a number in the history, such as 'val_elbo'")
        if not (isinstance(mode, str) and mode in ("max", "min")):
            raise ValueError(f"mode is {mode!r}, expected 'max' where a larger {monitor} is better, or 'min'.")
        self.folder, self._keep, self._monitor = os.path.abspath(folder), keep, monitor
        self._sign = 1.0 if mode == "max" else -1.0
        self._every_steps = steps
        self._every_seconds = (np.inf if steps else _SECONDS) if minutes is None else 60 * minutes
        self._before, self._began, self._best = 0.0, time.perf_counter(), -np.inf
        self._better: dict[str, State] = {}  # the best weights that are not on the disk yet
        self._last = (0, 0.0)  # the step and the time of the last one
        self._epoch, self._signal = 0, 0
        self._writes, self._workers = True, False
        self._thread: threading.Thread | None = None
        self._failed: Exception | None = None
        self._held = contextlib.ExitStack()

    def first(self, model: Any, training: dict[str, Any]) -> State | None:
        """See ``Keeper``."""
        self._writes, self._workers = keras_private.is_first_worker(model), keras_private.has_workers(model)
        if self._writes:
            self._make_folder()
            if not self._held.enter_context(storage.locked(os.path.join(self.folder, "lock"))):
                self._held.close()
                raise ValueError(f"Another training keeps its checkpoints in {self.folder}: choose another folder.")
        try:
            return self._first(training)
        except BaseException:
            self._held.close()
            raise

    def _make_folder(self) -> None:
        try:
            storage.make_folder(self.folder)
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else str(error)
            raise type(error)(f"folder is {self.folder}, which is no folder and cannot be made one: {why}.") from error

    def _first(self, training: dict[str, Any]) -> State | None:
        damaged = False
        for name in reversed(kept.points(self.folder)):
            try:
                state = kept.read(self.folder, name)
            except DamagedError as error:
                _logger.warning("%s: the one before is taken.", error)
                damaged = True
                continue
            self._refuse_another(state.facts["training"], training)
            if self._writes:
                kept.remove_after(self.folder, name)
            self._tell(state, name)
            return state
        if damaged:
            _logger.warning("%s holds no checkpoint that is not damaged: the training begins anew.", self.folder)
        return None

    def _refuse_another(self, before: dict[str, Any], now: dict[str, Any]) -> None:
        before = nameless(before)  # releases up to 0.2.0 wrote the names of parts
        odd = [fact for fact in before if fact in now and before[fact] != now[fact]]
        if odd:
            was = " and ".join(f"{fact} is {before[fact]}, not {now[fact]}" for fact in odd[:3])
            raise ValueError(
                f"{self.folder} holds checkpoints of another training ({was}): choose another folder, or remove it."
            )

    def _tell(self, state: State, name: str) -> None:
        facts = state.facts
        if not facts["within"] and (facts["stop"] or facts["epoch"] >= self.params["epochs"]):
            _logger.warning(
                "The training in %s ended after epoch %d: nothing is left to do.", self.folder, facts["epoch"]
            )
        else:
            _logger.warning("The training goes on after %s, from %s.", _words(facts), os.path.join(self.folder, name))

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        self._began, self._last = time.perf_counter(), (self._step(), time.monotonic())
        if threading.current_thread() is threading.main_thread():
            for number in filter(stops.is_free, stops.EXIT_CODES):
                self._held.callback(signal.signal, number, signal.signal(number, self._notice))

    def _notice(self, number: int, frame: Any) -> None:
        """A signal: the first one waits for the end of the program, during which nothing can be kept."""
        if self._signal:
            raise stops.stopped(number)
        self._signal = number
        sys.stderr.write("\nStopping when this program has ended, with a checkpoint; once more stops at once.\n")

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._epoch = epoch

    def at(self, take: Callable[[], State], logs: Mapping[str, Any] | None) -> None:
        """See ``Keeper``."""
        if logs is not None:
            self._judge(logs.get(self._monitor))
        is_last = logs is not None and (self.model.stop_training or self._epoch + 1 >= self.params["epochs"])
        if self._signal:
            self._stop(take())
        elif is_last or (self._is_due(logs is not None) and not self._is_writing()):
            self._write_beside(take())

    def _judge(self, value: Any) -> None:
        """Take the weights if they are the best; they go to the disk with the next checkpoint."""
        if value is not None and self._sign * float(value) > self._best:
            self._best = self._sign * float(value)
            weights = {f"weight {i}": tf.convert_to_tensor(one.value) for i, one in enumerate(self.model.weights)}
            facts = {"epoch": self._epoch + 1, "monitor": self._monitor, "value": float(value)}
            self._better = {kept.best(self._epoch + 1): State(weights, facts)}

    def _is_due(self, ends_epoch: bool) -> bool:
        if self._workers and not self._every_steps:  # whose clocks differ
            return ends_epoch
        step, seconds = self._step() - self._last[0], time.monotonic() - self._last[1]
        due = bool(self._every_steps and step >= self._every_steps)
        return due if self._workers else due or seconds >= self._every_seconds

    def _is_writing(self) -> bool:
        """Whether the one before is still on its way; several workers, who take it together, wait for it."""
        return not self._workers and self._thread is not None and self._thread.is_alive()

    def _step(self) -> int:
        return int(keras_private.steps_taken(self.model).numpy())

    def _write_beside(self, state: State) -> None:
        self._last = (self._step(), time.monotonic())
        self._wait()
        better, self._better = self._better, {}
        if self._writes:
            self._thread = threading.Thread(target=self._write, args=(state, better))
            self._thread.start()

    def _write(self, state: State, better: dict[str, State]) -> None:
        """In a thread of its own."""
        try:
            for name, one in better.items():
                kept.write(self.folder, name, one)
            kept.write(self.folder, kept.point(state.facts["epoch"], state.facts["steps"]), state)
            kept.prune(self.folder, self._keep)
        except Exception as error:  # told by the thread that trains
            self._failed = error

    def _wait(self) -> None:
        """For the thread that writes; what it could not do is told."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        failed, self._failed = self._failed, None
        if isinstance(failed, OSError):
            _logger.warning("No checkpoint could be written to %s (%s): those before stay.", self.folder, failed)
        elif failed is not None:
            raise failed

    def _stop(self, state: State) -> None:
        self._write_beside(state)
        self._wait()
        if self._writes and (last := kept.points(self.folder)):
            _logger.warning("Stopped; the same training goes on from %s.", os.path.join(self.folder, last[-1]))
        raise stops.stopped(self._signal)

    def leaves(self) -> None:
        """See ``Keeper``."""
        self._before, self._signal = self.seconds, 0
        self._began = time.perf_counter()
        self._held.close()
        self._wait()

    def restore_best(self, model: keras.Model) -> float:
        """Give a model of the same parts the best weights that are kept; returns the number by which they are so.

        Raises:
            ValueError: There are none, or they are of another model.
        """
        if not (found := kept.bests(self.folder)):
            raise ValueError(f"{self.folder} holds no best weights: the history had no {self._monitor}.")
        state = kept.read(self.folder, found[-1])
        weights = [state.arrays[f"weight {i}"] for i in range(len(state.arrays))]
        if [array.shape for array in weights] != [tuple(weight.shape) for weight in model.weights]:
            raise ValueError(f"{self.folder} holds the weights of another model.")
        for weight, array in zip(model.weights, weights, strict=True):
            weight.assign(course.as_kept(array, weight))
        return state.facts["value"]

    @property
    def seconds(self) -> float:
        """See the class."""
        return self._before + time.perf_counter() - self._began

    def get_state(self) -> dict[str, Any]:
        """What it remembers itself."""
        return {"seconds": self.seconds, "best": self._best}

    def set_state(self, state: dict[str, Any]) -> None:
        """Remember that."""
        self._before, self._began = state["seconds"], time.perf_counter()
        self._best = state["best"]


def _words(facts: dict[str, Any]) -> str:
    return f"step {facts['steps']} of epoch {facts['epoch'] + 1}" if facts["within"] else f"epoch {facts['epoch']}"
