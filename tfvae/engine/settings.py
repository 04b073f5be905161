"""Settings that a program holds as constants: once they change they are refused, and not ignored."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

_READ = (bool, int, float, str, tuple, np.generic, type(None))


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
    """Numbers, words and tuples as they read; of what else is no layer's, such as a schedule, which one it is."""
    if not isinstance(part, keras.layers.Layer):
        kept = getattr(part, "__dict__", {})
        return {name: repr(value) if isinstance(value, _READ) else (id(value), value) for name, value in kept.items()}
    try:
        kept = part.get_config()  # a layer keeps notes of its own beside its settings
    except NotImplementedError:  # one with arguments that Keras cannot write
        return {}
    return {name: repr(value) for name, value in kept.items() if isinstance(value, (*_READ, dict, list))}
