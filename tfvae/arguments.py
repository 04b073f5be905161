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
