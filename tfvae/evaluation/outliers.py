"""Scores of how unlike the training rows a row is, all made of log p(x), and how well a score tells odd rows.

A score is larger for an odder row. log p(x) itself misleads: models of pictures score simple pictures of another kind
above their own (arXiv 1810.09136). Score x as the model was trained on it: greys under a Bernoulli mislead most of all.
"""

import dataclasses
import zlib
from typing import Any

import numpy as np

from tfvae.arguments import check_number, check_whole, found_by
from tfvae.evaluation.estimate import Mean
from tfvae.evaluation.samples import numbers, sample

_RESAMPLES = 100  # of both samples, for the standard errors
_TRUE_POSITIVES = 0.8


@dataclasses.dataclass(frozen=True)
class Detection:
    """How well a score tells odd rows from ordinary ones; errors are those of other rows, by resampling.

    Rows that are all told apart are no certainty: an error is that of ``Mean.of_shares``, over as many rows, at least.

    Attributes:
        auroc: Chance that an odd row scores above an ordinary one; 0.5 of a score that knows nothing.
        auprc: Average precision of the odd rows; of such a score the share of odd rows.
        false_positives: Share of ordinary rows that are called odd where at least 80 % of the odd ones are.
        auroc_standard_error, auprc_standard_error, false_positives_standard_error: The error of each.
    """

    auroc: float
    auprc: float
    false_positives: float
    auroc_standard_error: float
    auprc_standard_error: float
    false_positives_standard_error: float


def detection(ordinary: Any, odd: Any, seed: int = 0) -> Detection:
    """AUROC, AUPRC and the false positives at 80 % true ones, of scores that are larger for odd rows.

    Args:
        ordinary, odd: Scores of rows of either kind, ``[M]`` and ``[N]``.
        seed: Fixes the samples of the standard errors.

    Raises:
        ValueError: For what are no finite numbers, or fewer than two.

    Example:
        >>> found = detection([0.0, 1.0, 2.0], [1.5, 3.0])
        >>> round(found.auroc, 4), round(found.auprc, 4), round(found.false_positives, 4)
        (0.8333, 0.8333, 0.3333)
    """
    ordinary, odd = (_numbers(name, given) for name, given in (("ordinary", ordinary), ("odd", odd)))
    check_whole(seed=seed)
    rng = np.random.default_rng(abs(seed))
    again = [
        _told(*(part[rng.integers(len(part), size=len(part))] for part in (ordinary, odd))) for _ in range(_RESAMPLES)
    ]
    pairs = min(len(ordinary), len(odd))  # whose comparisons do not depend on each other
    least = [Mean.of_shares([True] * count).standard_error for count in (pairs, pairs, len(ordinary))]
    return Detection(*map(float, _told(ordinary, odd)), *map(float, np.maximum(np.std(again, axis=0, ddof=1), least)))


def likelihood_ratio(log_marginal: Any, background: Any) -> np.ndarray:
    """log p₀(x) - log p(x), nats ``[N]``, p₀ a model of what all pictures share (Ren et al., arXiv 1906.02845).

    Args:
        log_marginal: log p(x), or a bound on it, of the model, ``[N]``.
        background: The same of a model that was trained on ``perturbed`` rows.

    Raises:
        ValueError: For arrays that do not fit.

    Example:
        >>> likelihood_ratio([-10.0, -10.0], [-12.0, -9.0]).tolist()
        [-2.0, 1.0]
    """
    log_marginal, background = _numbers("log_marginal", log_marginal, 1), _numbers("background", background, 1)
    return _alike("background", background, log_marginal) - log_marginal


def watanabe_akaike(log_marginals: Any) -> np.ndarray:
    """Var_m log p_m(x) - mean_m log p_m(x), nats ``[N]``, over models of other seeds (Choi et al., arXiv 1810.01392).

    Args:
        log_marginals: log p(x) of M models, ``[M, N]``; five are usual, two the least.

    Raises:
        ValueError: For what is no such array.

    Example:
        >>> watanabe_akaike([[-10.0, -10.0], [-10.0, -14.0]]).tolist()
        [10.0, 16.0]
    """
    found = numbers("log_marginals", log_marginals, "numbers, [M, N]")
    if found.ndim != 2 or len(found) < 2 or not np.isfinite(found).all():
        raise ValueError(
            f"log_marginals has shape {found.shape}, expected finite numbers [M, N] of two models or more."
        )
    return found.var(axis=0) - found.mean(axis=0)


def typicality(log_marginal: Any, ordinary: Any) -> np.ndarray:
    """|log p(x) - H|, nats ``[N]``, H the mean of log p over ordinary rows (Nalisnick et al., arXiv 1906.02994).

    Args:
        log_marginal: log p(x) of the rows to score, ``[N]``.
        ordinary: log p(x) of rows that the model was not trained on, of the kind that it was.

    Raises:
        ValueError: For arrays that do not fit.

    Example:
        >>> typicality([-10.0, -2.0], [-9.0, -11.0]).tolist()
        [0.0, 8.0]
    """
    return np.abs(_numbers("log_marginal", log_marginal, 1) - _numbers("ordinary", ordinary).mean())


def complexity_corrected(log_marginal: Any, x: Any) -> np.ndarray:
    """-log p(x) less what a lossless compressor takes, nats ``[N]`` (Serrà et al., arXiv 1909.11480).

    Args:
        log_marginal: log p(x), a probability of the bytes of x, ``[N]``.
        x: The rows as uint8, ``[N, *event]``.

    Raises:
        ValueError: For arrays that do not fit, or another dtype.

    Example:
        >>> x = np.random.default_rng(0).integers(0, 256, [2, 16, 16, 1], dtype=np.uint8)
        >>> x[1] = 7
        >>> noise, flat = complexity_corrected([-1400.0, -1400.0], x)
        >>> bool(noise < flat)
        True
    """
    log_marginal = _numbers("log_marginal", log_marginal, 1)
    return -log_marginal - _alike("x", compressed_bits(x), log_marginal) * np.log(2)


def compressed_bits(x: Any) -> np.ndarray:
    """Bits of each row as PNG packs it, without PNG's header: the shortest of three of its filters, by zlib, ``[N]``.

    Args:
        x: uint8, ``[N, *event]``; a picture is ``[N, height, width, channels]``.

    Raises:
        ValueError: For another dtype, or no rows.

    Example:
        >>> compressed_bits(np.zeros([1, 28, 28, 1], np.uint8)) < 200
        array([ True])
    """
    x = found_by(np.asarray, "x", x, "rows of uint8")
    if x.dtype != np.uint8 or x.ndim < 2 or not x.size:
        raise ValueError(
            f"x is {x.dtype} of shape {x.shape}, expected rows of uint8, [N, ...]: the bytes are what is packed."
        )
    along = [axis for axis in (1, 2) if axis < x.ndim]  # uint8 differences wrap around, so that none is lost
    filtered = [x, *(np.diff(x, axis=axis, prepend=np.zeros_like(x.take([0], axis))) for axis in along)]
    return np.array([min(8 * len(zlib.compress(one[i].tobytes(), 9)) for one in filtered) for i in range(len(x))])


def perturbed(x: Any, rate: float = 0.2, seed: int = 0) -> np.ndarray:
    """Rows to train a background model on: each number is drawn anew with chance ``rate``, which leaves no meaning.

    Where x holds two values it is flipped; else drawn evenly between the least and the largest of x, in its dtype.

    Args:
        x: ``[N, *event]``.
        rate: 0.1 to 0.3 are usual.
        seed: Fixes the draws.

    Raises:
        ValueError: For a rate above 1, or what are no finite numbers.

    Example:
        >>> x = np.zeros([100, 10]); x[:, 5:] = 1
        >>> float(np.mean(perturbed(x, 0.2) != x).round(1))
        0.2
    """
    check_number(0, rate=rate)
    if rate > 1:
        raise ValueError(f"rate is {rate!r}, expected a share between 0 and 1, such as 0.2.")
    check_whole(seed=seed)
    sample("x", x, least=1)
    x, rng = np.asarray(x), np.random.default_rng(abs(seed))
    low, high = x.min(), x.max()
    if np.isin(x, (low, high)).all():
        other = np.where(x == low, high, low)
    elif x.dtype.kind in "iu":
        other = rng.integers(low, high, x.shape, endpoint=True, dtype=x.dtype)
    else:
        other = rng.uniform(low, high, x.shape)
    return np.where(rng.random(x.shape) < rate, other, x).astype(x.dtype)


def _told(ordinary: np.ndarray, odd: np.ndarray) -> tuple[float, float, float]:
    """AUROC, average precision, false positives at 80 % true ones; rows of one score are called together."""
    scores, places = np.unique(np.concatenate([ordinary, odd]), return_inverse=True)
    counts = [np.bincount(part, minlength=len(scores)) for part in np.split(places, [len(ordinary)])]
    false, true = (np.cumsum(part[::-1]) for part in counts)  # called odd, at each threshold from the top
    rise = np.diff(true, prepend=0) / len(odd)
    auprc = np.sum(rise * true / (true + false))
    auroc = np.sum(rise * (1 - (false + np.append(0, false[:-1])) / (2 * len(ordinary))))
    return auroc, auprc, false[np.argmax(true >= _TRUE_POSITIVES * len(odd))] / len(ordinary)


def _numbers(name: str, given: Any, least: int = 2) -> np.ndarray:
    found = sample(name, given, least)
    if np.ndim(given) != 1:
        raise ValueError(f"{name} has shape {np.shape(given)}, expected [N]: one number a row.")
    return found[:, 0]


def _alike(name: str, found: np.ndarray, other: np.ndarray) -> np.ndarray:
    if len(found) != len(other):
        raise ValueError(f"{name} has {len(found)} rows, expected {len(other)}, as many as log_marginal.")
    return found
