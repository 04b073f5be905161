"""Columns of numbers in units of their own spread: (x - mean) / deviation, as a dataset's training rows have them."""

import dataclasses
from typing import Any

import numpy as np

REASON = "x has values that are not finite after --standardize"


@dataclasses.dataclass(frozen=True)
class Standardization:
    """What is taken from each column and what it is divided by, ``[D]`` each.

    Example:
        >>> Standardization((1.0, 0.0), (2.0, 1.0))(np.float32([[5, 7]])).tolist()
        [[2.0, 7.0]]
    """

    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    @classmethod
    def of(cls, mean: np.ndarray, deviation: np.ndarray, numbers: np.ndarray) -> "Standardization":
        """From moments ``[D]``; a column that is constant is only centred, one that is no number, ``[D]``, is left."""
        scale = np.where(numbers & (deviation > 0), deviation, 1.0)
        return cls(tuple(np.where(numbers, mean, 0.0).tolist()), tuple(scale.tolist()))

    @classmethod
    def from_json(cls, value: Any) -> "Standardization":
        """The inverse of ``dataclasses.asdict``."""
        return cls(tuple(map(float, value["mean"])), tuple(map(float, value["deviation"])))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Rows ``[N, D]``, float32, computed in float64."""
        with np.errstate(over="ignore"):  # a number beyond float32 becomes inf, which is rejected
            return ((x - np.array(self.mean)) / np.array(self.deviation)).astype(np.float32)
