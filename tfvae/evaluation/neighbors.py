"""Fidelity and diversity of samples apart, by balls around rows that reach to their k-th neighbour.

Precision and recall are Kynkäänniemi et al.'s (arXiv 1904.06991), density and coverage Naeem et al.'s (arXiv
2002.09797).
"""

import dataclasses
from typing import Any

import numpy as np

from tfvae.arguments import check_at_least
from tfvae.evaluation.estimate import Mean
from tfvae.evaluation.samples import squared_distances, two_samples

_FLOATS_AT_ONCE = 4_000_000  # distances


@dataclasses.dataclass(frozen=True)
class PrecisionRecall:
    """Shares and their errors, which hold for the balls as they are: those of other rows would be others.

    Attributes:
        precision: Generated rows in a ball of a real one. One outlier among the real rows makes it large.
        recall: Real rows in a ball of a generated one. What lies on its edge is in a ball.
        density: Balls of real rows that a generated row lies in, over k: about 1 of like samples, unbounded.
        coverage: Real rows whose ball holds a generated row.
        k: The neighbour that a ball reaches to.
    """

    precision: Mean
    recall: Mean
    density: Mean
    coverage: Mean
    k: int


def precision_recall(real: Any, generated: Any, k: int = 5) -> PrecisionRecall:
    """Precision, recall, density and coverage of generated rows among real ones, all of distances between rows.

    Take features of pictures rather than pixels, and as many rows of each: the numbers depend on how many there are.
    Time grows with the square of the rows, memory does not.

    Args:
        real, generated: ``[M, D]`` and ``[N, D]``, about 10,000 rows.
        k: The neighbour that a ball reaches to, the row itself not counted. 3 is usual for precision and recall, 5 for
            density and coverage.

    Raises:
        ValueError: For rows that do not fit, or no more than k of one side.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> found = precision_recall(rng.normal(size=[500, 2]), 0.3 * rng.normal(size=[500, 2]))
        >>> found.precision.mean > 0.95, found.recall.mean < 0.8
        (True, True)
    """
    check_at_least(1, k=k)
    real, generated = two_samples("real", real, "generated", generated, least=k + 1)
    # Of equal rows the distance is 0, and so is a ball's radius where a row comes more than k times; but for rounding.
    centre = real.mean(axis=0)
    rounding = 1e-12 * max(np.square(rows - centre).sum(axis=1).max() for rows in (real, generated))
    of_real, of_generated = (_radii(rows, k) + rounding for rows in (real, generated))
    balls, recalled, nearest = [], [], np.full(len(real), np.inf)
    for part in _parts(generated, len(real)):
        distances = squared_distances(part, real)
        balls.append((distances <= of_real).sum(axis=1))
        nearest = np.minimum(nearest, distances.min(axis=0))
    for part in _parts(real, len(generated)):
        recalled.append((squared_distances(part, generated) <= of_generated).any(axis=1))
    inside = np.concatenate(balls)
    precision, recall = Mean.of_shares(inside > 0), Mean.of_shares(np.concatenate(recalled))
    return PrecisionRecall(precision, recall, Mean.of(inside / k), Mean.of_shares(nearest <= of_real), k)


def _radii(rows: np.ndarray, k: int) -> np.ndarray:
    """|row - its k-th neighbour|² ``[N]``; a row's distance to itself is the smallest."""
    parts = _parts(rows, len(rows))
    return np.concatenate([np.partition(squared_distances(part, rows), k, axis=1)[:, k] for part in parts])


def _parts(rows: np.ndarray, other: int) -> list[np.ndarray]:
    size = max(1, _FLOATS_AT_ONCE // other)
    return [rows[i : i + size] for i in range(0, len(rows), size)]
