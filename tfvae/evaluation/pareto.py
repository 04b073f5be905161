"""How heavy the tail of importance weights is: Pareto's k̂ (Vehtari et al., arXiv 1507.02646)."""

import math

import numpy as np

from tfvae.evaluation.samples import numbers

_FEWEST = 25  # weights, of which five make the tail
_PRIOR = 10  # draws that the prior on k, of mean 1/2, is worth (appendix C)


def pareto_shape(log_weights: np.ndarray) -> np.ndarray:
    """k̂ of each column of log w ``[K, N]``, NumPy ``[N]``: the shape of a generalised Pareto fitted to the largest.

    Weights have a finite variance where k < 1/2. Above 0.7 an estimate by importance sampling, and its standard error,
    cannot be trusted for any K that is practical. The min(K / 5, 3 √K) largest weights are the tail.

    Args:
        log_weights: log p(x, z) - log q(z|x), up to a constant for each row; K independent draws of z, 25 at least.

    Raises:
        ValueError: For too few weights.

    Example:
        >>> log_weights = -0.9 * np.log(np.random.default_rng(0).random([100_000, 1]))  # Pareto's, of shape 0.9
        >>> pareto_shape(log_weights).round(1).tolist()
        [0.9]
    """
    log_weights = numbers("log_weights", log_weights, "numbers, [K, N] with K of 25 or more")
    if log_weights.ndim != 2 or len(log_weights) < _FEWEST:
        raise ValueError(f"log_weights has shape {log_weights.shape}, expected [K, N] with K of {_FEWEST} or more.")
    tail = math.ceil(min(0.2 * len(log_weights), 3 * math.sqrt(len(log_weights))))
    largest = np.sort(np.partition(log_weights, -tail - 1, axis=0)[-tail - 1 :], axis=0)
    weights = np.exp(largest - largest[-1])
    return np.array([_shape(column) for column in (weights[1:] - weights[0]).T])


def shape_if_told(log_weights: np.ndarray) -> np.ndarray:
    """``pareto_shape``, float32; NaN of fewer weights than it takes, and of rows that have no finite weight.

    Example:
        >>> shape_if_told(np.zeros([3, 2])).tolist()
        [nan, nan]
    """
    shape = np.full(log_weights.shape[1], np.nan, np.float32)
    if len(log_weights) >= _FEWEST:
        told = np.isfinite(log_weights.max(axis=0))
        shape[told] = pareto_shape(log_weights[:, told])
    return shape


def _shape(x: np.ndarray) -> float:
    """Zhang and Stephens' estimate (doi:10.1198/tech.2009.08017) from sorted ``x`` above 0; -inf of equal ones."""
    n = len(x)
    quarter = x[int(n / 4 + 0.5) - 1]
    if quarter <= 0:  # weights that are alike to the last digit have no tail
        return -math.inf
    m = 30 + int(math.sqrt(n))
    theta = 1 / x[-1] + (1 - np.sqrt(m / (np.arange(1, m + 1) - 0.5))) / (3 * quarter)
    k = np.mean(np.log1p(-theta[:, np.newaxis] * x), axis=1)
    log_likelihood = n * (np.log(-theta / k) - k - 1)
    posterior = np.exp(log_likelihood - log_likelihood.max())
    mean = np.sum(theta * posterior) / posterior.sum()
    return float((n * np.mean(np.log1p(-mean * x)) + 0.5 * _PRIOR) / (n + _PRIOR))
