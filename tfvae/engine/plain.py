"""Values as JSON and arrays: what a checkpoint holds of a callback, without pickles.

None, truth values, numbers, text, arrays, and lists, tuples, sets and mappings of these; whatever else there is has no
place on a disk.
"""

import math
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

Put = Callable[[Any], Any]  # takes an array and gives the name under which it is found again

_CONTAINERS: dict[str, Callable[[Any], Any]] = {"list": list, "tuple": tuple, "set": set}


class NotPlainError(TypeError):
    """A value that is none of these."""


def encoded(value: Any, put: Put) -> Any:
    """A value as JSON; its arrays are given to ``put``.

    Raises:
        NotPlainError: It is no such value.

    Example:
        >>> encoded({"best": (1.5, float("inf"))}, put=id)
        {'mapping': [['best', {'tuple': [1.5, {'float': 'inf'}]}]]}
    """
    kind = type(value).__name__
    if value is None or isinstance(value, (bool, str)) or type(value) is int:
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"float": repr(value)}
    if isinstance(value, (np.ndarray, np.generic, tf.Tensor)) and not getattr(value.dtype, "hasobject", False):
        return {"array": put(value)}
    if type(value) is dict:
        return {"mapping": [[encoded(name, put), encoded(one, put)] for name, one in value.items()]}
    if type(value) in _CONTAINERS.values():
        return {kind: [encoded(one, put) for one in value]}
    raise NotPlainError(f"a {kind} has no place in a checkpoint")


def decoded(value: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """The value that was ``encoded``; arrays without a dimension come back as NumPy's numbers.

    Example:
        >>> arrays = {}
        >>> kept = encoded([np.float32(1.5)], lambda array: arrays.setdefault("0", array) and "0")
        >>> decoded(kept, arrays)
        [np.float32(1.5)]
    """
    if not isinstance(value, dict):
        return value
    ((kind, held),) = value.items()
    if kind == "float":
        return float(held)
    if kind == "array":
        return np.asarray(arrays[held])[()]
    if kind == "mapping":
        return {decoded(name, arrays): decoded(one, arrays) for name, one in held}
    return _CONTAINERS[kind](decoded(one, arrays) for one in held)


def attributes(owner: Any, put: Put) -> dict[str, Any]:
    """The attributes of an object that are plain, encoded, by their names."""
    found = {}
    for name, value in vars(owner).items():
        try:
            found[name] = encoded(value, put)
        except NotPlainError:
            continue
    return found


def fingerprint(array: Any) -> int:
    """A number that tells an array from what is put in its place, or into it."""
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
