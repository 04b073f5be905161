"""Statistics of the observations, gathered in the pass that writes them.

Each unit of work reduces its rows to a small ``Moments``; the driver adds those up in the order of the
shards, so that the result does not depend on who did which shard when. For bytes everything follows from
the histogram, in whole numbers and therefore exactly. For floats the blocks' means and squared deviations
are combined by Chan's formula in float64, which does not cancel where the mean is large.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

MAX_COLUMNS = 4096  # of float vectors that are described column by column
_SUMMARY = ("mean", "std", "min", "max")
_ARRAYS = ("mean", "deviations", "minimum", "maximum")


@dataclasses.dataclass(frozen=True)
class Moments:
    """Count, mean and sum of squared deviations of values, with their range; for bytes a histogram instead.

    Example:
        >>> Moments.of(np.uint8([[0, 255]])).summary()["mean"]
        127.5
    """

    values: int = 0
    mean: float = 0.0
    deviations: float = 0.0  # sum of (value - mean)^2
    minimum: float = math.inf
    maximum: float = -math.inf
    histogram: tuple[int, ...] | None = None  # of byte values, [256]

    @classmethod
    def of(cls, x: np.ndarray) -> "Moments":
        """Moments of a non-empty array, uint8 or float32, of any shape; NaN is missing and counts for nothing."""
        if x.dtype == np.uint8:
            return cls(histogram=tuple(_histogram(x.ravel()).tolist()))
        wide = x[~np.isnan(x)].astype(np.float64)
        if not wide.size:
            return cls()
        mean = float(wide.mean())
        return cls(wide.size, mean, float(((wide - mean) ** 2).sum()), float(wide.min()), float(wide.max()))

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Moments":
        """The inverse of ``to_json``."""
        histogram = value.get("histogram")
        return cls(**{**value, "histogram": None if histogram is None else tuple(histogram)})

    def to_json(self) -> dict[str, Any]:
        """Plain values, and of a histogram's moments nothing else."""
        return {"histogram": list(self.histogram)} if self.histogram else _finite(dataclasses.asdict(self))

    def __add__(self, other: "Moments") -> "Moments":
        if self.histogram and other.histogram:
            pairs = zip(self.histogram, other.histogram, strict=True)
            return Moments(histogram=tuple(a + b for a, b in pairs))
        if not (self.values or self.histogram):
            return other
        if not (other.values or other.histogram):
            return self
        mean, deviations = _chan(self.values, self.mean, self.deviations, other.values, other.mean, other.deviations)
        return Moments(
            self.values + other.values,
            float(mean),
            float(deviations),
            min(self.minimum, other.minimum),
            max(self.maximum, other.maximum),
        )

    def summary(self) -> dict[str, Any]:
        """Mean, standard deviation (of the population) and range, in the units of x; of bytes the histogram too."""
        if self.histogram:
            return _byte_summary(self.histogram)
        if not self.values:  # all are missing
            return dict.fromkeys(_SUMMARY)
        std = math.sqrt(self.deviations / self.values)
        return dict(zip(_SUMMARY, (self.mean, std, self.minimum, self.maximum), strict=True))


@dataclasses.dataclass(frozen=True)
class ColumnMoments:
    """Moments of each column of float vectors: rows, and by column ``[D]`` mean, squared deviations and range.

    They are of the values that are not NaN; ``missing`` says how many are.

    Example:
        >>> x = np.float32([[0, 5], [2, 5]])
        >>> (ColumnMoments.of(x[:1]) + ColumnMoments.of(x[1:])).summary()
        {'mean': [1.0, 5.0], 'std': [1.0, 0.0], 'min': [0.0, 5.0], 'max': [2.0, 5.0]}
    """

    rows: int
    mean: np.ndarray
    deviations: np.ndarray
    minimum: np.ndarray
    maximum: np.ndarray
    missing: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray) -> "ColumnMoments":
        """Moments of the columns of ``[N, D]``, N at least 1; NaN stands for the range of a column of nothing else."""
        wide, gone = x.astype(np.float64), np.isnan(x)
        missing = gone.sum(axis=0)
        if missing.any():
            wide = np.where(gone, 0.0, wide)
        mean = wide.sum(axis=0) / np.maximum(len(wide) - missing, 1)
        deviations = np.where(gone, 0.0, (wide - mean) ** 2).sum(axis=0)
        return cls(len(wide), mean, deviations, np.fmin.reduce(x), np.fmax.reduce(x), missing)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "ColumnMoments":
        """The inverse of ``to_json``."""
        arrays = {name: np.array(value[name], np.float64) for name in _ARRAYS}
        none = np.zeros(len(arrays["mean"]), np.int64)
        return cls(value["rows"], **arrays, missing=np.array(value.get("missing", none)))

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        found = {"rows": self.rows} | {name: _known(getattr(self, name)) for name in _ARRAYS}
        return found | ({"missing": self.missing.tolist()} if self.missing.any() else {})

    def __add__(self, other: "ColumnMoments") -> "ColumnMoments":
        counts = self.rows - self.missing, other.rows - other.missing
        mean, deviations = _chan(counts[0], self.mean, self.deviations, counts[1], other.mean, other.deviations)
        return ColumnMoments(
            self.rows + other.rows,
            mean,
            deviations,
            np.fmin(self.minimum, other.minimum),
            np.fmax(self.maximum, other.maximum),
            self.missing + other.missing,
        )

    @property
    def std(self) -> np.ndarray:
        """The standard deviation of each column, of the population, ``[D]``."""
        return np.sqrt(self.deviations / np.maximum(self.rows - self.missing, 1))

    @property
    def largest(self) -> np.ndarray:
        """The largest size of each column's numbers, ``[D]``; 0 where all are missing."""
        return np.nan_to_num(np.fmax(np.abs(self.minimum), np.abs(self.maximum)).astype(np.float64))

    def summary(self) -> dict[str, list[Any]]:
        """Mean, standard deviation (of the population) and range of each column, ``[D]``, in the units of x.

        And, where values are missing, how many.
        """
        found = dict(zip(_SUMMARY, map(_known, (self.mean, self.std, self.minimum, self.maximum)), strict=True))
        return found | ({"missing": self.missing.tolist()} if self.missing.any() else {})


def has_columns(shape: Sequence[int], dtype: str) -> bool:
    """Whether rows of this shape and dtype have moments by column: float vectors that are not too long to show."""
    return dtype == "float32" and len(shape) == 1 and shape[0] <= MAX_COLUMNS


def _chan(n: Any, mean: Any, deviations: Any, other_n: Any, other_mean: Any, other_deviations: Any) -> tuple[Any, Any]:
    """Mean and sum of squared deviations of two samples together, elementwise, by Chan's formula."""
    total, delta = np.maximum(n + other_n, 1), other_mean - mean
    return mean + delta * other_n / total, deviations + other_deviations + delta**2 * n * other_n / total


def _known(values: np.ndarray) -> list[float | None]:
    """Plain numbers, and None for NaN."""
    return [None if math.isnan(value) else value for value in values.tolist()]


def _histogram(x: np.ndarray) -> np.ndarray:
    """How often each byte value occurs, ``[256]``. Counting bytes in pairs is twice as fast."""
    even = len(x) - len(x) % 2
    pairs = np.bincount(np.ascontiguousarray(x[:even]).view(np.uint16), minlength=1 << 16).reshape(256, 256)
    return pairs.sum(axis=0) + pairs.sum(axis=1) + np.bincount(x[even:], minlength=256)


def _finite(value: dict[str, Any]) -> dict[str, Any]:
    """Without the infinities of an empty range, which JSON does not have."""
    return {name: entry for name, entry in value.items() if entry not in (math.inf, -math.inf, None)}


def _byte_summary(histogram: Sequence[int]) -> dict[str, Any]:
    n = sum(histogram)
    total = sum(value * count for value, count in enumerate(histogram))
    squares = sum(value * value * count for value, count in enumerate(histogram))
    seen = [value for value, count in enumerate(histogram) if count]
    # n² var = n Σx² - (Σx)², in whole numbers
    std = math.sqrt(n * squares - total * total) / n
    return {"mean": total / n, "std": std, "min": seen[0], "max": seen[-1], "histogram": list(histogram)}


def combine(parts: Iterable[Moments]) -> Moments:
    """The moments of all parts together, added in their order."""
    total = Moments()
    for part in parts:
        total = total + part
    return total
