"""Methods that a subclass overrides and that nobody would call: refused, or named where somebody else calls them."""

import warnings
from collections.abc import Mapping

_OBJECTIVE = "pass a loss of yours as objective=, a function of the terms of a batch"

# Keras's own, that its fit, evaluate and predict go through, and the engine's do not.
NEVER_CALLED = {
    "train_step": _OBJECTIVE,
    "test_step": _OBJECTIVE,
    "compute_loss": _OBJECTIVE,
    "compute_metrics": "take the numbers of evaluate and a callback of yours for others",
}


def refuse(own: type, base: type, instead: Mapping[str, str]) -> None:
    """Raise ValueError where ``own`` overrides a method of ``base`` that nobody calls, by what to do instead.

    Example:
        >>> class Mine(dict):
        ...     def clear(self):
        ...         pass
        >>> refuse(Mine, dict, {"clear": "make a new one"})
        Traceback (most recent call last):
        ValueError: Mine.clear would never be called: a program of many steps has a step of its own. Leave it out, and make a new one.
    """  # noqa: E501
    for name in _overridden(own, base, instead):
        raise ValueError(
            f"{own.__name__}.{name} would never be called: a program of many steps has a step of its own. Leave it "
            f"out, and {instead[name]}."
        )


def warn(own: type, base: type, instead: Mapping[str, str]) -> None:
    """Warn where ``own`` overrides a method of ``base`` that others call and training does not.

    Example:
        >>> warn(dict, dict, {"clear": "It is called by hand."})
    """
    for name in _overridden(own, base, instead):
        warnings.warn(f"fit and evaluate never call {own.__name__}.{name}. {instead[name]}", stacklevel=4)


def _overridden(own: type, base: type, names: Mapping[str, str]) -> list[str]:
    return [name for name in names if getattr(own, name) is not getattr(base, name)]
