"""What a served model says of itself, and of what came back: names, dtypes, shapes, whole numbers of rows."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from .retries import ServingError

Tensors = dict[str, np.ndarray]


class TensorInfo(NamedTuple):
    """An input or output: TensorFlow's name of its dtype (``DT_FLOAT``), and its shape.

    None is a free dimension, and as ``shape`` a free rank.
    """

    dtype: str
    shape: tuple[int | None, ...] | None


class Signature(NamedTuple):
    """A served function's inputs and outputs by name."""

    inputs: dict[str, TensorInfo]
    outputs: dict[str, TensorInfo]


def free(sizes: Iterable[Any]) -> tuple[int | None, ...]:
    """A declared shape, with None for -1.

    Example:
        >>> free(["-1", 28, 28])
        (None, 28, 28)
    """
    return tuple(None if int(size) < 0 else int(size) for size in sizes)


def bad_answer(message: str) -> ServingError:
    """An error that no repetition mends: whoever answered does not speak as TF Serving does."""
    return ServingError("BAD_ANSWER", f"{message} Is this TF Serving, and the model one that tfvae.export wrote?")


def check_rows(answer: Tensors, outputs: Iterable[str], rows: int) -> Tensors:
    """The named outputs of an answer, each with as many rows as were sent.

    Raises:
        ServingError: If one is missing, or has another number of rows.
    """
    for name in outputs:
        if name not in answer:
            raise bad_answer(f"The answer holds {sorted(answer)}, expected {name!r}.")
        if answer[name].ndim == 0 or len(answer[name]) != rows:
            raise bad_answer(f"{name} came with shape {list(answer[name].shape)}, expected {rows} rows.")
    return {name: answer[name] for name in outputs}
