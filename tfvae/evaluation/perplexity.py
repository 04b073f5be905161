"""Perplexity: log p of documents as it compares between vocabularies and lengths."""

from typing import Any

import numpy as np
import tensorflow as tf

from tfvae.evaluation.samples import numbers


def perplexity(nats: Any, x: Any) -> float:
    """exp(-Σ log p(words of a row) / Σ words of a row) for bags of words x ``[N, V]`` whose log p(x) is ``nats [N]``.

    log p(x) of a bag has a term for the orders of its words, log n! - Σ log x_i!, which published perplexities leave
    out: it is taken off here. A uniform guess of V words has V; of a lower bound the perplexity is an upper one.

    Raises:
        ValueError: If the numbers do not fit each other.

    Example:
        >>> from tfvae import families
        >>> x = np.array([[1.0, 2.0, 0.0, 1.0]], "float32")
        >>> round(perplexity(families.BagOfWords([0.0, 0.0, 0.0, 0.0]).log_prob(x), x), 3)
        4.0
    """
    nats, x = (numbers(name, given, "an array of numbers") for name, given in (("nats", nats), ("x", x)))
    if x.ndim != 2 or nats.shape != x.shape[:1] or not (np.all(x >= 0) and x.sum() > 0 and np.isfinite(nats).all()):
        raise ValueError(
            f"There are nats of shape {nats.shape} for x of shape {x.shape}, expected finite ones, one for each row of "
            "counts [N, V], and words in some row."
        )
    orders = tf.math.lgamma(x.sum(axis=1) + 1) - tf.reduce_sum(tf.math.lgamma(x + 1), axis=1)
    return float(np.exp(-(nats - orders.numpy()).sum() / x.sum()))
