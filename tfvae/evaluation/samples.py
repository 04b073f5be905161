"""Two samples of rows, as the tests between them take them."""

from typing import Any

import numpy as np

from tfvae.arguments import found_by

_LARGEST = float(np.finfo(np.float32).max)  # the cube of their products is still a float64, and no infinity


def two_samples(first: str, a: Any, second: str, b: Any, least: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64, ``[M, D]`` and ``[N, D]``.

    Raises:
        ValueError: For what are no finite numbers of float32, rows of two lengths, or fewer than ``least`` rows.

    Example:
        >>> two_samples("a", np.zeros([3, 2, 2]), "b", np.zeros([2, 4]))[0].shape
        (3, 4)
    """
    a, b = sample(first, a, least), sample(second, b, least)
    if a.shape[1] != b.shape[1]:
        raise ValueError(
            f"{second} has rows of {b.shape[1]} numbers, expected {a.shape[1]}, as many as {first}: take the same kind "
            "of rows for both."
        )
    return a, b


def sample(name: str, given: Any, least: int = 2) -> np.ndarray:
    """Rows as float64 ``[N, D]``, whatever the shape of one; errors are those of ``two_samples``.

    Example:
        >>> sample("a", np.zeros([3, 2, 2])).shape
        (3, 4)
    """
    rows = numbers(name, given, f"numbers, one row or more of them, {least} rows or more")
    if rows.ndim == 0 or len(rows) < least or rows.size == 0:
        raise ValueError(f"{name} has shape {rows.shape}, expected [N, ...] with {least} rows or more.")
    if not np.isfinite(rows).all():
        raise ValueError(f"{name} holds numbers that are not finite: leave those rows out, or fill them.")
    if np.abs(rows).max() > _LARGEST:
        raise ValueError(f"{name} holds numbers beyond {_LARGEST:.2g}, those of float32: scale all rows by one factor.")
    return rows.reshape(len(rows), -1)


def numbers(name: str, given: Any, expected: str) -> np.ndarray:
    """What was given as float64, of any shape.

    Raises:
        ValueError: For what are no real numbers, or masked ones.

    Example:
        >>> numbers("nats", [1j], "numbers")
        Traceback (most recent call last):
        ValueError: nats is [1j], expected numbers.
    """
    return found_by(_real, name, given, expected)


def _real(given: Any) -> np.ndarray:
    found = np.asarray(given)
    if found.dtype.kind == "c":
        raise TypeError("NumPy would drop the imaginary part.")
    return found.astype(np.float64)


def labels(name: str, given: Any, count: int) -> np.ndarray:
    """A class for each of ``count`` rows, int64 ``[N]``.

    Raises:
        ValueError: For what are no whole numbers, or another count.

    Example:
        >>> labels("label", [0.0, 1.0], 2).tolist()
        [0, 1]
    """
    found = found_by(np.asarray, name, given, f"{count} whole numbers")
    fits = found.shape == (count,) and found.dtype.kind in "iufb"
    if not fits or not np.array_equal(found, np.round(found.astype(np.float64))):
        raise ValueError(f"{name} has shape {found.shape} and type {found.dtype}, expected {count} whole numbers.")
    return found.astype(np.int64)


def squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """|a_i - b_j|² ``[M, N]``.

    Example:
        >>> squared_distances(np.array([[0.0], [3.0]]), np.array([[1.0]])).tolist()
        [[1.0], [4.0]]
    """
    a, b = a - b.mean(axis=0), b - b.mean(axis=0)  # fewer digits are lost
    return np.maximum((a**2).sum(1)[:, np.newaxis] + (b**2).sum(1) - 2 * a @ b.T, 0)
