"""Whether each unit of a code stands for one factor of the data: scores of a code beside known factors, 0 to 1.

All take a code ``[N, D]``, the means of q(z|x) as ``vae.embed`` gives them, and factors ``[N, K]``, whole numbers. A
code of factors scores 1, in any order and scale. Definitions are as disentanglement_lib has them (arXiv 1811.12359),
of whose faults these are not copied: there the length of a mask stands for the number of units that vary, the sum of
their values for their count, and a unit that does not vary lowers the modularity of the others.

A unit counts where its standard deviation is 1/20 of the largest. Scores by learned predictors are in ``predictors``.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tfvae.arguments import check_at_least, check_whole
from tfvae.evaluation.estimate import Mean
from tfvae.evaluation.samples import labels, sample

_ACTIVE = 0.05
_RESAMPLES = 20  # of the rows, for the standard errors
_QUANTILE = 99.0
_FLOATS_AT_ONCE = 4_000_000


@dataclasses.dataclass(frozen=True)
class Score:
    """A score, 0 to 1.

    Attributes:
        value: The mean of ``parts``, weighted where the definition says so.
        standard_error: What other rows would move it by: the deviation over samples of the rows with replacement.
        parts: Its value for each factor ``[K]``, or for each unit that counts.
    """

    value: float
    standard_error: float
    parts: np.ndarray


def mutual_information_gap(code: Any, factors: Any, num_bins: int = 20, seed: int = 0) -> Score:
    """MIG: the mean over factors of (I₁ - I₂) / H(v_k), the two units that tell most of a factor (arXiv 1802.04942).

    Units are cut into equal bins of their range. Of few rows I is too large, by about bins times values / (2 N): take
    10,000. The number of bins is part of the score; 20 is usual.

    Args:
        code: ``[N, D]``.
        factors: ``[N, K]``, whole numbers, each with two values or more.
        num_bins: Bins of a unit.
        seed: Fixes the samples of the standard error.

    Raises:
        ValueError: For arrays that do not fit, or a factor of one value.

    Example:
        >>> factors = np.stack(np.unravel_index(np.arange(60), [3, 4, 5]), axis=1)
        >>> round(mutual_information_gap(factors, factors).value, 6)
        1.0
    """
    code, factors = active(code, factors)
    check_at_least(2, num_bins=num_bins)

    def gaps(code: np.ndarray, factors: np.ndarray) -> tuple[np.ndarray, None]:
        information = _information(code, factors, num_bins)
        first = np.sort(np.concatenate([np.zeros([1, factors.shape[1]]), information]), axis=0)
        entropy = [_mutual_information(factor, factor) for factor in factors.T]
        return (first[-1] - first[-2]) / np.maximum(entropy, np.finfo(float).tiny), None

    return _score(gaps, code, factors, seed)


def modularity(code: Any, factors: Any, num_bins: int = 20, seed: int = 0) -> Score:
    """The mean over units of 1 - Σ_{k≠best} I_k² / (I_best² (K - 1)): whether a unit tells of one factor alone.

    Ridgeway and Mozer, arXiv 1802.05312. A unit that tells nothing counts as 0.

    Args:
        code, factors, num_bins, seed: See ``mutual_information_gap``; two factors at least.

    Raises:
        ValueError: See ``mutual_information_gap``.

    Example:
        >>> factors = np.stack(np.unravel_index(np.arange(60), [3, 4, 5]), axis=1)
        >>> round(modularity(factors, factors).value, 6)
        1.0
    """
    code, factors = active(code, factors, least_factors=2)
    check_at_least(2, num_bins=num_bins)

    def of_units(code: np.ndarray, factors: np.ndarray) -> tuple[np.ndarray, None]:
        square = _information(code, factors, num_bins) ** 2
        best = square.max(axis=1)
        told = best > 0
        others = (square.sum(axis=1) - best) / np.where(told, best, 1) / (factors.shape[1] - 1)
        return np.where(told, 1 - others, 0.0), None

    return _score(of_units, code, factors, seed)


def interventional_robustness(code: Any, factors: Any, seed: int = 0) -> Score:
    """IRS: how little a unit moves while its factor is held and all others change (arXiv 1811.00007).

    For each unit the best factor's 1 - (mean over its values of the 99 % quantile of |z - E[z|v]|) / max |z - E z|; the
    mean is weighted by max |z - E z|. A unit that hardly moves for any reason scores well.

    Args:
        code, factors, seed: See ``mutual_information_gap``.

    Raises:
        ValueError: See ``mutual_information_gap``.

    Example:
        >>> factors = np.stack(np.unravel_index(np.arange(60), [3, 4, 5]), axis=1)
        >>> interventional_robustness(factors, factors).value
        1.0
    """
    code, factors = repeated(*active(code, factors))

    def of_units(code: np.ndarray, factors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        furthest = np.abs(code - code.mean(axis=0)).max(axis=0)
        deviations = []
        for factor in factors.T:
            values, counts = np.unique(factor, return_counts=True)
            groups = [code[factor == value] for value in values[counts > 1]]  # one row does not move
            moved = [np.percentile(np.abs(group - group.mean(axis=0)), _QUANTILE, axis=0) for group in groups]
            deviations.append(np.mean(moved, axis=0))
        return 1 - np.min(deviations, axis=0) / np.maximum(furthest, np.finfo(float).tiny), furthest

    return _score(of_units, code, factors, seed)


def factor_vae_score(
    code: Any, factors: Any, num_train: int = 10_000, num_test: int = 5000, group_size: int = 64, seed: int = 0
) -> Mean:
    """FactorVAE's: how often the unit that varies least among rows of one factor's value names that factor.

    Kim and Mnih, arXiv 1802.05983, section 4: variances are relative to those of all rows, and each unit votes for the
    factor that it named most often in training. Groups are drawn with replacement from the rows of a value: 10,000
    rows or more, so that a value has many.

    Args:
        code, factors: See ``mutual_information_gap``.
        num_train, num_test: Votes that choose a unit's factor, and that are scored.
        group_size: Rows of a vote.
        seed: Fixes the groups.

    Returns:
        The accuracy, and its standard error over the votes.

    Raises:
        ValueError: See ``mutual_information_gap``.

    Example:
        >>> factors = np.stack(np.unravel_index(np.arange(60), [3, 4, 5]), axis=1)
        >>> factor_vae_score(factors, factors, num_train=100, num_test=50).mean
        1.0
    """
    code, factors = repeated(*active(code, factors))
    check_at_least(2, num_train=num_train, num_test=num_test, group_size=group_size)
    code = code / code.std(axis=0)
    votes = [
        (factor, np.argmin(code[rows].var(axis=1), axis=1))
        for factor, _, rows in paired_rows(
            factors, num_train + num_test, group_size, code.shape[1], seed, one_value=True
        )
    ]
    factor, unit = (np.concatenate(part) for part in zip(*votes, strict=True))
    counts = np.zeros([code.shape[1], factors.shape[1]])
    np.add.at(counts, (unit[:num_train], factor[:num_train]), 1)
    return Mean.of_shares(counts.argmax(axis=1)[unit[num_train:]] == factor[num_train:])


def active(code: Any, factors: Any, least_factors: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """The units that count, float64 ``[N, A]``, and the factors as int64 ``[N, K]``.

    Raises:
        ValueError: See ``mutual_information_gap``.

    Example:
        >>> code = [[0.0, 1.0], [0.0, 2.0], [0.001, 3.0]]
        >>> active(code, [[0], [1], [0]])[0].shape
        (3, 1)
    """
    code, factors = sample("code", code), sample("factors", factors)
    factors = labels("factors", factors.ravel(), factors.size).reshape(factors.shape)
    if len(code) != len(factors):
        raise ValueError(f"factors has {len(factors)} rows, expected {len(code)}, as many as the code.")
    if factors.shape[1] < least_factors:
        raise ValueError(f"factors has {factors.shape[1]} columns, expected {least_factors} or more.")
    single = [k for k, factor in enumerate(factors.T) if (factor == factor[0]).all()]
    if single:
        raise ValueError(f"factors has one value alone in column {single[0]}: leave the column out, or take more rows.")
    deviation = code.std(axis=0)
    if not deviation.max():
        raise ValueError("code is the same for every row, expected units that vary.")
    return code[:, deviation >= _ACTIVE * deviation.max()], factors


def repeated(code: np.ndarray, factors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The code and the factors, of which each has some value in two rows or more.

    Raises:
        ValueError: For a factor that has another value in each row, so that nothing can be seen while it is held.

    Example:
        >>> repeated(np.zeros([3, 1]), np.array([[0], [1], [2]]))
        Traceback (most recent call last):
        ValueError: factors has another value for each row in column 0: leave the column out, or take more rows of a value.
    """  # noqa: E501
    single = [k for k, factor in enumerate(factors.T) if len(np.unique(factor)) == len(factor)]
    if single:
        raise ValueError(
            f"factors has another value for each row in column {single[0]}: leave the column out, or take more rows of "
            "a value."
        )
    return code, factors


def paired_rows(
    factors: np.ndarray, count: int, num_pairs: int, width: int, seed: int, one_value: bool = False
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Chunks of ``count`` factors ``[V]``, with rows and their partners ``[V, num_pairs]``, which share its value.

    With ``one_value`` all the pairs of a factor share the same one.

    Example:
        >>> [(factor, rows, partners)] = paired_rows(np.array([[0], [0], [1]]), 2, 4, 1, seed=0)
        >>> rows.shape, bool(np.all((rows < 2) == (partners < 2)))
        ((2, 4), True)
    """
    check_whole(seed=seed)
    rng = np.random.default_rng(abs(seed))
    grouped = [_Partners(factor) for factor in factors.T]
    size = max(1, _FLOATS_AT_ONCE // (num_pairs * width))
    for start in range(0, count, size):
        number = min(size, count - start)
        factor = rng.integers(factors.shape[1], size=number)
        rows = np.tile(
            rng.integers(len(factors), size=[number, 1 if one_value else num_pairs]), num_pairs if one_value else 1
        )
        partners = np.empty_like(rows)
        for k, one in enumerate(grouped):
            partners[factor == k] = one.drawn(rows[factor == k], rng)
        yield factor, rows, partners


class _Partners:
    """Rows by their value of one factor."""

    def __init__(self, factor: np.ndarray):
        self.order = np.argsort(factor, kind="stable")
        _, self.value, counts = np.unique(factor, return_inverse=True, return_counts=True)
        self.counts, self.starts = counts, np.cumsum(counts) - counts

    def drawn(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A row with the same value for each row."""
        value = self.value[rows]
        return self.order[self.starts[value] + (rng.random(rows.shape) * self.counts[value]).astype(int)]


def _score(
    of: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, Any]], code: np.ndarray, factors: np.ndarray, seed: int
) -> Score:
    check_whole(seed=seed)
    rng = np.random.default_rng(abs(seed))
    parts, weights = of(code, factors)
    again = []
    for _ in range(_RESAMPLES):
        rows = rng.integers(len(code), size=len(code))
        resampled, weight = of(code[rows], factors[rows])
        again.append(np.average(resampled, weights=weight))
    return Score(float(np.average(parts, weights=weights)), float(np.std(again, ddof=1)), parts)


def _information(code: np.ndarray, factors: np.ndarray, num_bins: int) -> np.ndarray:
    """I(unit; factor), nats, ``[D, K]``, of units in equal bins."""
    low, high = code.min(axis=0), code.max(axis=0)
    width = np.where(high > low, high - low, 1)
    bins = np.minimum((code - low) / width * num_bins, num_bins - 1).astype(int)
    return np.array([[_mutual_information(unit, factor) for factor in factors.T] for unit in bins.T])


def _mutual_information(a: np.ndarray, b: np.ndarray) -> float:
    """Of two columns of whole numbers, nats."""
    (_, a), (_, b) = (np.unique(column, return_inverse=True) for column in (a, b))
    joint = np.bincount(a * (b.max() + 1) + b, minlength=(a.max() + 1) * (b.max() + 1)).reshape(a.max() + 1, -1) / len(
        a
    )
    apart = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0)
    seen = joint > 0
    return float(np.sum(joint[seen] * np.log(joint[seen] / apart[seen])))
