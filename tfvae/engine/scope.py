"""Who traces: what a layer or a distribution computes depends on it in two places, both here.

What runs programs of its own is no part of another's.
Inside an XLA program arithmetic is cheap and passes over memory are fused, so that another form of a function is best.
In a replica, which has only a part of the batch, noise is drawn as if for the whole.
"""

import contextlib
import contextvars
import dataclasses
from collections.abc import Iterator

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Part:
    """The place of a replica among ``count``."""

    index: tf.Tensor
    count: int


_in_xla = contextvars.ContextVar("inside an XLA program", default=False)
_part: contextvars.ContextVar[Part | None] = contextvars.ContextVar("this replica's part of the batch", default=None)


def in_xla() -> bool:
    """Whether what is traced now becomes an XLA program."""
    return _in_xla.get()


def part() -> Part | None:
    """The replica that traces now; None where there are no replicas."""
    return _part.get()


def refuse_programs(what: str) -> None:
    """Raise ValueError where ``what`` is called while TensorFlow makes a program, in which there are no arrays yet.

    Example:
        >>> refuse_programs("embed")
        >>> tf.function(refuse_programs)("embed")  # doctest: +IGNORE_EXCEPTION_DETAIL
        Traceback (most recent call last):
        ValueError: embed is called inside a tf.function or Dataset.map, where x is a symbolic tensor, ...
    """
    if not tf.executing_eagerly():
        raise ValueError(
            f"{what} is called inside a tf.function or Dataset.map, where x is a symbolic tensor, expected arrays: it "
            "runs programs of its own, so call it outside. Inside, encode(x), decode(z) and elbo(x) give tensors."
        )


@contextlib.contextmanager
def as_xla() -> Iterator[None]:
    """Trace for XLA."""
    token = _in_xla.set(True)
    try:
        yield
    finally:
        _in_xla.reset(token)


@contextlib.contextmanager
def as_part(part: Part) -> Iterator[None]:
    """Trace as one of the replicas."""
    token = _part.set(part)
    try:
        yield
    finally:
        _part.reset(token)
