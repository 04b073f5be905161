"""Who traces: what a layer or a distribution computes depends on it in two places, both here.

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
