"""The course of a training: where it is, and everything that moves with it, taken at one point and put back there.

That is the model's variables (weights, optimisers, metrics, random streams), the position in the data, and what its
callbacks remember: with them the training goes on as if it had never stopped. Who keeps such a state, and where, is a
``Keeper``'s affair.
"""

import collections
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tfvae.engine import keras_private, plain, settings

_FILE, _SAME = "the file so far", "as it was given"


class State(NamedTuple):
    """A training at one point.

    Attributes:
        arrays: Numbers by name: NumPy's arrays, or tensors, which nobody changes any more.
        facts: What else there is, as JSON.
    """

    arrays: dict[str, Any]
    facts: dict[str, Any]


class Keeper(keras.callbacks.Callback):
    """A callback that keeps states of a training."""

    def first(self, model: Any, training: dict[str, Any]) -> State | None:
        """The state to go on from, None to begin; ``training`` says of what it must be, in words by name."""
        raise NotImplementedError

    def at(self, take: Callable[[], State], logs: Mapping[str, Any] | None) -> None:
        """Told after all other callbacks of each point: the end of a program, or of an epoch with its ``logs``."""
        raise NotImplementedError

    def leaves(self) -> None:
        """Told when ``fit`` is left, however that is."""
        raise NotImplementedError


def variables(model: Any) -> list[Any]:
    """Everything that a step changes: weights, the optimisers' numbers, metrics, random streams."""
    of_optimizers = [variable for optimizer, _ in model.updates for variable in optimizer.variables]
    found = [*model.variables, *of_optimizers, *model.metrics_variables, *keras_private.seed_states(model)]
    return list({id(variable): variable for variable in found}.values())


class Course:
    """The course of one ``fit``.

    Args:
        model: What is trained.
        callbacks: All of them, as they were given.
        used: Those that an earlier ``fit`` had: they are set to what is kept altogether. Of new ones what was a setting
            then, and has not been changed by the training, is as it is now.
        data: The batches that it is trained on, ``training``, and those that it is validated on.

    Attributes:
        first_epoch: The epoch to begin with; None where there is no state to go on from.
        resumed_steps: How many steps of the epoch that runs were done before this ``fit``.
    """

    def __init__(
        self, model: Any, callbacks: Iterable[keras.callbacks.Callback], used: Iterable[Any], data: Mapping[str, Any]
    ):
        self._model, self._used, self._data = model, list(used), data
        self.keeper, self._callbacks = _keeper(callbacks), _named(callbacks)
        self._state: State | None = None
        self._before_validation: State | None = None
        self._epoch, self.first_epoch, self.resumed_steps = 0, None, 0
        if self.keeper:
            self._given = {name: plain.attributes(one, plain.fingerprint) for name, one in self._callbacks.items()}
            self._training = _training(model, data)
            self._state = self.keeper.first(model, self._training)
        if self._state:
            facts = self._state.facts
            ended = facts["stop"] and not facts["within"]
            self.first_epoch, self.resumed_steps = np.inf if ended else facts["epoch"], facts["steps"]

    def opens(self) -> None:
        """Before the callbacks begin: the files that they go on with are as they were then."""
        kept = self._state.facts["callbacks"] if self._state else {}
        for name, callback in self._callbacks.items():
            if _FILE in kept.get(name, {}):
                with open(callback.filename, "w", encoding="utf-8", newline="") as file:
                    file.write(kept[name][_FILE])
                callback.append = True

    def begins(self) -> None:
        """Once the callbacks have begun: all is put back."""
        if self._state:
            for name, one in self._data.items():
                one.set_state(self._state.facts["data"][name])
            self._put_back(self._state)

    def begins_epoch(self, epoch: int) -> None:
        """Once the callbacks have begun an epoch: in one that was begun before, what this changes is put back too."""
        self._epoch = epoch
        if self._state and self._state.facts["within"]:
            self._put_back(self._state)
            self._model.stop_training = self._state.facts["stop"]
        else:
            self.resumed_steps = 0
        self._state = None

    def at(self, done: int | None = None) -> None:
        """At the end of a program of training, ``done`` steps into its group (None: the whole of it)."""
        if self.keeper:
            self.keeper.at(lambda: self._take(self._epoch, True, done), None)

    def ends_epoch(self, epoch: int, logs: Mapping[str, Any] | None) -> None:
        """Once the callbacks have ended an epoch."""
        if self.keeper:
            self.keeper.at(lambda: self._take(epoch + 1, False), logs or {})

    def validates(self) -> None:
        """Before a validation: no training can go on from within one."""
        self._before_validation = self._take(self._epoch, True) if self.keeper else None

    def at_validation(self) -> None:
        """At the end of a program of validation."""
        if self.keeper and (state := self._before_validation):
            self.keeper.at(lambda: state, None)

    def leaves(self) -> None:
        """When ``fit`` is left."""
        if self.keeper:
            self.keeper.leaves()

    def _take(self, epoch: int, within: bool, done: int | None = None) -> State:
        found = variables(self._model)
        arrays = {f"variable {i}": tf.convert_to_tensor(variable.value) for i, variable in enumerate(found)}

        def put(array: Any) -> str:
            name = f"array {len(arrays)}"
            arrays[name] = np.array(array)
            return name

        data = {
            name: one.get_state(done if name == "training" else None, within and name == "training")
            for name, one in self._data.items()
        }
        facts = {
            "epoch": epoch,
            "within": within,
            "steps": data["training"]["steps"] + data["training"]["done"],
            "stop": bool(self._model.stop_training),
            "training": self._training,
            "variables": _shapes(found),
            "data": data,
            "callbacks": {name: self._remembered(name, one, put) for name, one in self._callbacks.items()},
        }
        return State(arrays, facts)

    def _remembered(self, name: str, callback: Any, put: plain.Put) -> dict[str, Any]:
        """What a callback says of itself, or its attributes; which have not changed since it was given, too."""
        if hasattr(callback, "get_state"):
            return {"state": plain.encoded(callback.get_state(), put)}
        before, now = self._given[name], plain.attributes(callback, plain.fingerprint)
        same = [key for key, value in now.items() if key in before and before[key] == value]
        large = [key for key in same if "{'array'" in str(now[key])]  # and as it was: data of its own
        keys = now.keys() - {"params", *large}
        kept = {key: plain.encoded(vars(callback)[key], put) for key in sorted(keys)} | {_SAME: same}
        if isinstance(callback, keras.callbacks.CSVLogger):
            with open(callback.filename, encoding="utf-8", newline="") as file:
                kept[_FILE] = file.read()
        return kept

    def _put_back(self, state: State) -> None:
        found, facts = variables(self._model), state.facts
        if facts["variables"] != (mine := _shapes(found)):
            pairs = zip([*facts["variables"], "none"], [*mine, "none"], strict=False)
            was, is_now = next(pair for pair in pairs if pair[0] != pair[1])
            raise ValueError(
                f"The checkpoint is of another model (a weight is {was}, not {is_now}): choose another folder."
            )
        for i, variable in enumerate(found):
            variable.assign(as_kept(state.arrays[f"variable {i}"], variable))
        for name, kept in facts["callbacks"].items():
            if name in self._callbacks:
                self._recall(self._callbacks[name], kept, state.arrays)

    def _recall(self, callback: Any, kept: dict[str, Any], arrays: Mapping[str, Any]) -> None:
        """A callback remembers; what is no plain value now, such as an open file, stays as it is."""
        if hasattr(callback, "set_state"):
            callback.set_state(plain.decoded(kept["state"], arrays))
            return
        is_used = any(callback is one for one in self._used)
        settings = {_FILE, _SAME, *([] if is_used else kept[_SAME])}
        if getattr(callback, "monitor_op", True) is None:  # Keras gives min_delta its sign when it makes that
            settings.add("min_delta")
        now = plain.attributes(callback, id)
        for key, value in kept.items():
            if key not in settings and (key in now or not hasattr(callback, key)):
                setattr(callback, key, plain.decoded(value, arrays))


def as_kept(array: Any, variable: Any) -> tf.Tensor:
    """An array from a file as a variable takes it; NumPy knows no bfloat16 and has given back bytes."""
    dtype = tf.as_dtype(variable.dtype)
    array = np.asarray(array)
    return tf.constant(array.view(dtype.as_numpy_dtype) if array.dtype.kind == "V" else array, dtype)


def _keeper(callbacks: Iterable[Any]) -> Keeper | None:
    keepers = [one for one in callbacks if isinstance(one, Keeper)]
    if len(keepers) > 1:
        raise ValueError(f"callbacks holds {len(keepers)} that keep checkpoints, expected one.")
    return keepers[0] if keepers else None


def _named(callbacks: Iterable[Any]) -> dict[str, Any]:
    """Callbacks by their classes, counted where there are several: by that they are found again."""
    counts: collections.Counter[str] = collections.Counter()
    named = {}
    for one in callbacks:
        kind = type(one).__name__
        counts[kind] += 1
        named[f"{kind} {counts[kind]}"] = one
    return named


def _training(model: Any, data: Mapping[str, Any]) -> dict[str, Any]:
    """Of what a training is, in words: states of another one are not its own."""
    optimizers = [keras.saving.serialize_keras_object(optimizer) for optimizer, _ in model.updates]
    known = {"model": type(model).__name__, "seed": model.seed}
    known |= settings.in_words(model)
    known["optimizer"] = ", ".join(one["class_name"] for one in optimizers)
    if int(keras_private.steps_taken(model).numpy()) == 0:  # later its settings may have been changed by a callback
        for one in optimizers:
            known |= {f"{one['class_name']}'s {name}": value for name, value in nameless(one["config"]).items()}
    known["validation_data"] = "given" if "validation" in data else "none"
    known |= {f"{name} data's {fact}": value for name, one in data.items() for fact, value in one.facts().items()}
    return json.loads(json.dumps(known, default=lambda value: type(value).__name__))


def nameless(config: Any) -> Any:
    """A config without names, its parts' too: Keras counts them, so that the same optimiser made again has another.

    Example:
        >>> nameless({"name": "adam_1", "parts": [{"name": "adam", "epsilon": 0.1}]})
        {'parts': [{'epsilon': 0.1}]}
    """
    if isinstance(config, dict):
        return {name: nameless(value) for name, value in config.items() if name != "name"}
    return [nameless(part) for part in config] if isinstance(config, (list, tuple)) else config


def _shapes(found: list[Any]) -> list[str]:
    return [f"{variable.dtype} {list(variable.shape)}" for variable in found]
