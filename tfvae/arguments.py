"""What users pass for a number: held to its kind and range before a program is made of it, which would say less."""

import numbers
from typing import Any


def check_at_least(least: int, **given: Any) -> None:
    """Raise ValueError unless each is a whole number of ``least`` or more.

    Example:
        >>> check_at_least(1, num_samples=5)
        >>> check_at_least(1, num_samples=0)
        Traceback (most recent call last):
        ValueError: num_samples must be at least 1, received 0.
    """
    for name, value in given.items():
        if not isinstance(value, numbers.Integral) or isinstance(value, bool):
            raise ValueError(f"{name} must be a whole number of {least} or more, received {value!r}.")
        if value < least:
            raise ValueError(f"{name} must be at least {least}, received {value}.")


def checked_shape(name: str, given: Any) -> tuple[int, ...]:
    """A shape as a tuple of sizes, or a ValueError that says what came.

    Example:
        >>> checked_shape("event_shape", [28, 28, 1])
        (28, 28, 1)
        >>> checked_shape("event_shape", 2)
        Traceback (most recent call last):
        ValueError: event_shape is 2, expected a list of sizes, whole numbers of 1 or more, such as [2].
    """
    sizes = list(given) if hasattr(given, "__iter__") and not isinstance(given, (str, bytes)) else None
    if sizes is None or not all(isinstance(size, numbers.Integral) and not isinstance(size, bool) for size in sizes):
        one = given if isinstance(given, numbers.Integral) else 2
        raise ValueError(f"{name} is {given!r}, expected a list of sizes, whole numbers of 1 or more, such as [{one}].")
    if any(size < 1 for size in sizes):
        raise ValueError(f"{name} must hold positive sizes, received {tuple(sizes)}.")
    return tuple(int(size) for size in sizes)
