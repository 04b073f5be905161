"""Settings of a model's parts: what a program holds as constants is refused once it changes, and not ignored."""

import functools
import hashlib
import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np

from tfvae.engine import saving

_ANEW = {
    *("name", "seed", "module", "registered_name", "shared_object_id", "build_config", "compile_config"),
    *("inbound_nodes", "input_layers", "output_layers"),  # of a functional model, by the names of its layers
}
_PLAIN = (bool, int, float, str, bytes, np.generic)
_LONGEST = 80  # letters of a setting that are told


def holding(run: Callable, parts: Callable[[], Mapping[str, Any]]) -> Callable:
    """``run``, once a program, which raises ValueError where a setting of the parts changes after its first call.

    Example:
        >>> class Objective:
        ...     def __init__(self):
        ...         self.beta = 2.0
        >>> objective = Objective()
        >>> program = holding(lambda x: objective.beta * x, lambda: {"objective": objective})
        >>> program(3)
        6.0
        >>> objective.beta = 4.0
        >>> program(3)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: beta of the objective changed after the program was made, which has its first value: make it a ...
    """
    traced: dict[str, Any] = {}  # as they are once it has been traced, which may set what was left open

    def held(*given: Any) -> Any:
        now = _settings(parts())
        if changed := [name for name, value in traced.items() if now.get(name, value) != value]:
            raise ValueError(
                f"{', '.join(changed)} changed after the program was made, which has its first value: make it a "
                "schedule of keras.optimizers.schedules, as objectives.Weighted takes, or a keras.Variable; or compile "
                "again."
            )
        found = run(*given)
        traced.update(traced or _settings(parts()))
        return found

    return functools.update_wrapper(held, run)


def _settings(parts: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{name} of the {of}": value for of, part in parts.items() for name, value in _settings_of(part).items()}


def _settings_of(part: Any) -> dict[str, Any]:
    if isinstance(part, functools.partial):
        return {**_settings_of(part.func), **{name: _reading(value) for name, value in part.keywords.items()}}
    if not isinstance(part, keras.layers.Layer):
        named = _arguments(type(part).__init__)  # other attributes may be notes of each trace
        kept = getattr(part, "__dict__", {}).items()
        return {name: _reading(value) for name, value in kept if name in named or isinstance(value, _PLAIN)}
    try:
        kept = part.get_config()  # a layer keeps notes of its own beside its settings
    except NotImplementedError:  # one with arguments that Keras cannot write
        return {}
    return {name: reading for name, value in kept.items() if isinstance(reading := _reading(value), str)}


@functools.cache  # train_on_batch asks at every step
def _arguments(make: Callable) -> frozenset[str]:
    return frozenset(inspect.signature(make).parameters)


def _reading(value: Any) -> Any:
    """Numbers, words and what is made of them as they read; of anything else, such as a variable, which one it is."""
    if value is None or isinstance(value, _PLAIN):
        return repr(value)
    if isinstance(value, np.ndarray):
        return repr((value.dtype, value.shape, hashlib.sha256(value.tobytes()).digest()))
    if isinstance(value, keras.optimizers.schedules.LearningRateSchedule):
        return _reading(value.get_config())
    if isinstance(value, dict):
        value = [*value.items()]
    if isinstance(value, (list, tuple)):
        found = [_reading(one) for one in value]
        return repr(found) if all(isinstance(one, str) for one in found) else tuple(found)
    return id(value), value


def in_words(model: keras.Model) -> dict[str, str]:
    """What a model's parts are set to, by names such as ``objective's beta``; nothing, where Keras cannot write it.

    Names and seeds, which differ where the same model is made again, are left out, and so is code.

    Example:
        >>> in_words(keras.Sequential([keras.layers.Dropout(0.5, name="a")]))["layer 1's rate"]
        '0.5'
    """
    try:
        config = json.loads(json.dumps(saving.config_of(model)["config"]))
    except (KeyError, NotImplementedError, TypeError, ValueError):
        return {}
    return dict(_told(config, ""))


def _told(config: Any, of: str) -> Iterator[tuple[str, str]]:
    for name, value in config.items():
        if name in _ANEW:
            continue
        where = f"{of}'s {name}" if of else name
        if isinstance(value, dict):
            if value.get("class_name") != "__lambda__":
                yield from _told(value, of if name == "config" else where)
        elif isinstance(value, list) and any(isinstance(one, dict) for one in value):
            for i, one in enumerate(value, 1):
                yield from _told(one if isinstance(one, dict) else {"value": one}, f"{where.removesuffix('s')} {i}")
        else:
            text = json.dumps(value)
            yield where, text if len(text) <= _LONGEST else hashlib.sha256(text.encode()).hexdigest()
