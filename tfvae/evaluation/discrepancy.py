"""Whether two samples have one distribution: the maximum mean discrepancy of a kernel (Gretton et al., 2012).

MMD² = E k(a, a') + E k(b, b') - 2 E k(a, b) is 0 where the two are alike; its unbiased estimate leaves the pairs of a
row with itself out, and may be negative. Rows of both that change sides show what chance alone makes of it.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tfvae.arguments import check_at_least, check_kind, check_whole
from tfvae.evaluation.samples import squared_distances, two_samples

_FLOATS_AT_ONCE = 4_000_000  # of the kernel's matrix
_SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)  # of the inverse multiquadric, times the median distance
_OF_THE_MEDIAN = 1000  # rows whose distances tell the median

Kernel = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Discrepancy:
    """What tells two samples apart.

    Attributes:
        mmd_squared: The unbiased estimate of MMD².
        standard_error: What other samples would move it by: the larger of the first order of Hoeffding's decomposition
            and of what permutations show, which is all of it where the samples are alike.
        p_value: Share of permutations with an MMD² as large, this one among them: uniform where the samples are alike.
        num_rows: How many rows the two have.
    """

    mmd_squared: float
    standard_error: float
    p_value: float
    num_rows: tuple[int, int]


@dataclasses.dataclass(frozen=True)
class KernelDistance:
    """MMD² over subsets.

    Attributes:
        mean: The mean over the subsets, an unbiased estimate of MMD².
        standard_deviation: What another two samples of ``subset_size`` rows would move the value of one subset by.
            That of the subsets, which share rows, divided by √(1 - subset_size / N), N the rows of the smaller sample:
            right where they are few of many, up to 1.2 times too large where they are half of samples that are alike.
        num_subsets, subset_size: How many, of how many rows of each side.
    """

    mean: float
    standard_deviation: float
    num_subsets: int
    subset_size: int


def maximum_mean_discrepancy(
    a: Any, b: Any, kernel: str = "inverse_multiquadric", num_permutations: int = 200, seed: int = 0
) -> Discrepancy:
    """MMD² of two samples, and the p-value of a permutation test that they have one distribution.

    Time grows with the square of the rows, memory with the rows times ``num_permutations``.

    Args:
        a, b: Rows ``[M, *event]`` and ``[N, *event]``: x and samples of a model, or features of both.
        kernel: ``"inverse_multiquadric"``, Σ_s C_s / (C_s + |a - b|²) with C_s from 0.1 to 10 times the median squared
            distance, which tells any two distributions apart; or ``"cubic"``, (a·b / D + 1)³, which sees three moments
            and is that of the kernel Inception distance (arXiv 1801.01401).
        num_permutations: 199 or more tell p-values to a half per cent.
        seed: Fixes the permutations.

    Raises:
        ValueError: For rows that do not fit, or an unknown kernel.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> a, b, c = (rng.normal(mean, 1, [100, 3]) for mean in (0, 0, 1))
        >>> maximum_mean_discrepancy(a, b).p_value > 0.05, maximum_mean_discrepancy(a, c).p_value < 0.01
        (True, True)
    """
    a, b = two_samples("a", a, "b", b)
    check_at_least(1, num_permutations=num_permutations)
    check_whole(seed=seed)
    pooled, rng = np.concatenate([a, b]), np.random.default_rng(abs(seed))
    of_a = np.zeros([len(pooled), num_permutations + 1])
    of_a[: len(a)] = 1
    of_a[:, 1:] = rng.permuted(of_a[:, 1:], axis=0)
    function = _kernel(kernel, pooled, rng)
    within, rows_sum, diagonal = _kernel_sums(function, pooled, of_a)
    statistic = _mmd_squared(of_a, within, rows_sum, diagonal)
    null = statistic[1:]
    influence = _influence(len(a), within[:, 0], rows_sum, diagonal)
    first = influence[: len(a)].var() / len(a) + influence[len(a) :].var() / len(b)
    p_value = (1 + np.sum(null >= statistic[0])) / (num_permutations + 1)
    return Discrepancy(
        float(statistic[0]), float(np.sqrt(max(first, np.mean(null**2)))), float(p_value), (len(a), len(b))
    )


def kernel_distance(
    a: Any, b: Any, kernel: str = "cubic", num_subsets: int = 100, subset_size: int = 1000, seed: int = 0
) -> KernelDistance:
    """The mean MMD² of subsets of two samples: the kernel Inception distance (arXiv 1801.01401), of any features.

    It is not to be called KID unless ``a`` and ``b`` are Inception's features.

    Args:
        a, b: Features ``[M, D]`` and ``[N, D]``.
        kernel: See ``maximum_mean_discrepancy``.
        num_subsets: Subsets, each without replacement.
        subset_size: Rows of each side in a subset, at most half of the smaller sample: all rows make but one subset.
        seed: Fixes the subsets.

    Raises:
        ValueError: See ``maximum_mean_discrepancy``.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> found = kernel_distance(rng.normal(size=[500, 3]), rng.normal(size=[500, 3]), subset_size=100)
        >>> bool(abs(found.mean) < 0.1), found.num_subsets
        (True, 100)
    """
    a, b = two_samples("a", a, "b", b)
    check_at_least(2, num_subsets=num_subsets, subset_size=subset_size)
    check_whole(seed=seed)
    rng = np.random.default_rng(abs(seed))
    fewest = min(len(a), len(b))
    if fewest < 4:
        raise ValueError(
            f"a and b have {len(a)} and {len(b)} rows, expected 4 or more: subsets of half of them differ."
        )
    size = min(subset_size, fewest // 2)
    function = _kernel(kernel, np.concatenate([a, b]), rng)
    of_a = np.repeat([[1.0], [0.0]], size, axis=0)
    values = []
    for _ in range(num_subsets):
        pooled = np.concatenate([part[rng.choice(len(part), size, replace=False)] for part in (a, b)])
        values.append(_mmd_squared(of_a, *_kernel_sums(function, pooled, of_a))[0])
    deviation = np.std(values, ddof=1) / np.sqrt(1 - size / fewest)
    return KernelDistance(float(np.mean(values)), float(deviation), num_subsets, size)


def _kernel(name: str, pooled: np.ndarray, rng: np.random.Generator) -> Kernel:
    """The kernel of that name; what it takes from the rows is the same for every permutation of them."""
    check_kind("kernel", name, str, "'inverse_multiquadric' or 'cubic'")
    if name == "cubic":
        return lambda a, b: (a @ b.T / a.shape[1] + 1) ** 3
    if name != "inverse_multiquadric":
        raise ValueError(f"kernel is {name!r}, expected 'inverse_multiquadric' or 'cubic'.")
    some = pooled[rng.choice(len(pooled), min(len(pooled), _OF_THE_MEDIAN), replace=False)]
    distances = squared_distances(some, some)[np.triu_indices(len(some), 1)]
    scales = np.array(_SCALES) * (np.median(distances) or distances.mean() or 1.0)

    def inverse_multiquadric(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        distances = squared_distances(a, b)
        return sum(scale / (scale + distances) for scale in scales)

    return inverse_multiquadric


def _kernel_sums(kernel: Kernel, pooled: np.ndarray, of_a: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Σ_j k(i, j) over j of a in each permutation ``[N, P]``, over all j ``[N]``, and k(i, i) ``[N]``."""
    within, rows_sum, diagonal = np.empty_like(of_a), np.empty(len(pooled)), np.empty(len(pooled))
    for part in _parts(len(pooled)):
        matrix = kernel(pooled[part], pooled)
        within[part], rows_sum[part] = matrix @ of_a, matrix.sum(axis=1)
        diagonal[part] = matrix[np.arange(len(matrix)), np.arange(part.start, part.stop)]
    return within, rows_sum, diagonal


def _parts(count: int) -> Iterator[slice]:
    size = max(1, _FLOATS_AT_ONCE // count)
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def _mmd_squared(of_a: np.ndarray, within: np.ndarray, rows_sum: np.ndarray, diagonal: np.ndarray) -> np.ndarray:
    """The unbiased estimate for each permutation, ``[P]``."""
    m, n = of_a[:, 0].sum(), (1 - of_a[:, 0]).sum()
    aa, of_a_rows = (of_a * within).sum(axis=0), rows_sum @ of_a
    ab = of_a_rows - aa
    bb = rows_sum.sum() - of_a_rows - ab
    own = diagonal @ of_a
    return (aa - own) / (m * (m - 1)) + (bb - (diagonal.sum() - own)) / (n * (n - 1)) - 2 * ab / (m * n)


def _influence(m: int, of_a: np.ndarray, rows_sum: np.ndarray, diagonal: np.ndarray) -> np.ndarray:
    """2 (mean k(i, own side) - mean k(i, other side)) of each row ``[M + N]``: what it adds to MMD², first order."""
    n = len(of_a) - m
    of_b, is_a = rows_sum - of_a, np.arange(len(of_a)) < m
    own = np.where(is_a, (of_a - diagonal) / (m - 1), (of_b - diagonal) / (n - 1))
    return 2 * (own - np.where(is_a, of_b / n, of_a / m))
