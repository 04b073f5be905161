"""Counts whose rate is a share of the row's library: its total count, how deeply a cell was sequenced (scVI's model).

The mean of count g is μ_g = ℓ π_g with shares π = softmax(logits) and the library ℓ (Lopez et al., Deep generative
modeling for single-cell transcriptomics, 2018). Unless it is given, ℓ is the observed Σ x along the last axis, read
from the row that is scored: the number is then log p(x | z, ℓ), as scVI reports it. It is no density of x alone, and
compares with such numbers only.
"""

from typing import Any

import tensorflow as tf
from tensorflow_probability import bijectors as tfb
from tensorflow_probability import distributions as tfd
from tensorflow_probability import random as tfp_random
from tensorflow_probability import util as tfp_util

from tfvae.families.poisson import Bag, Counts
from tfvae.families.random import standard_uniform
from tfvae.families.saddle_points import log_negative_binomial, log_poisson, log_zero_inflated
from tfvae.families.table import Mixed

_Properties = tfp_util.ParameterProperties
_ZERO_LOGITS = {"zero_logits": _Properties(event_ndims=1)}
_LEAST = 1e-30  # of a library, whose logarithm is taken
# TFP makes an object of the base class where a part is no composite tensor.
_Independent: Any = tfd.Independent.__bases__[0]


class LibraryPoisson(Counts):
    """Poisson counts of mean ℓ π, π = softmax(logits), ℓ the row's total unless it is given.

    Args:
        logits: log π but for a constant, ``[..., G]``.
        library: ℓ, ``[...]``; by default that of each row that is scored, and 1 for a mean and a draw, which know none.

    Example:
        >>> p = LibraryPoisson(logits=[0.0, 0.0])
        >>> p.mean().numpy().tolist(), p.with_library(6.0).mean().numpy().tolist()
        ([0.5, 0.5], [3.0, 3.0])
        >>> bool(p.log_prob([4.0, 2.0]) == p.with_library(6.0).log_prob([4.0, 2.0]))
        True
    """

    def __init__(self, logits: Any, library: Any = None, name: str = "LibraryPoisson"):
        self._start(name, library, logits=logits)

    def _start(self, name: str, library: Any, **parameters: Any) -> None:
        self._library = None if library is None else tf.convert_to_tensor(library, tf.float32)
        super().__init__(name, **parameters)

    @classmethod
    def _parameter_properties(cls, dtype: Any, num_classes: Any = None) -> dict[str, Any]:
        return {"logits": _Properties(event_ndims=1)}

    def with_library(self, library: Any) -> "LibraryPoisson":
        """The same shares of a library that is known, ``[...]``."""
        return type(self)(**{**self.parameters, "library": library})

    def _event_shape(self) -> tf.TensorShape:
        return self.parameters["logits"].shape[-1:]

    def _log_rate(self, library: tf.Tensor) -> tf.Tensor:
        log_shares = tf.nn.log_softmax(self.parameters["logits"])
        return log_shares + tf.math.log(tf.maximum(library, _LEAST))[..., tf.newaxis]

    def _log_prob(self, x: tf.Tensor) -> tf.Tensor:
        library = tf.reduce_sum(x, axis=-1) if self._library is None else self._library
        return tf.reduce_sum(self._log_probs(x, self._log_rate(library)), axis=-1)

    def _log_probs(self, x: tf.Tensor, log_rate: tf.Tensor) -> tf.Tensor:
        return log_poisson(x, log_rate)

    def _rate(self) -> tf.Tensor:
        return tf.exp(self._log_rate(tf.constant(1.0) if self._library is None else self._library))

    def _mean(self) -> tf.Tensor:
        return self._rate() * self._share_of_counts()

    def _variance(self) -> tf.Tensor:
        """Of a count k that is 0 with probability 1 - s: s Var k + s (1 - s) E[k]²."""
        share, rate = self._share_of_counts(), self._rate()
        return share * self._variance_of_counts(rate) + share * (1.0 - share) * rate**2

    def _share_of_counts(self) -> Any:
        """1 - P(a zero that is no count)."""
        return 1.0

    def _variance_of_counts(self, rate: tf.Tensor) -> tf.Tensor:
        return rate

    def _sample_n(self, n: Any, seed: Any = None) -> tf.Tensor:
        of_rate, of_count, of_zero = tf.unstack(tfp_random.split_seed(seed, n=3))
        rate = self._rate() + tf.zeros_like(self.parameters["logits"])
        drawn = tfd.Poisson(self._drawn_rate(tf.broadcast_to(rate, tf.concat([[n], tf.shape(rate)], 0)), of_rate))
        counts = drawn.sample(seed=of_count)
        share = self._share_of_counts()
        if isinstance(share, float):
            return counts
        return tf.where(standard_uniform(tf.shape(counts), of_zero, self.dtype) < share, counts, tf.zeros_like(counts))

    def _drawn_rate(self, rate: tf.Tensor, seed: Any) -> tf.Tensor:
        return rate


class LibraryNegativeBinomial(LibraryPoisson):
    """Negative binomial counts of mean ℓ π and variance μ + μ²/θ: Poissons whose rate is drawn of a Gamma.

    Args:
        logits, library: See ``LibraryPoisson``.
        total_count: θ, the inverse dispersion, ``[..., G]``; scVI's is one for each gene (``shared=["total_count"]``).

    Example:
        >>> p = LibraryNegativeBinomial(logits=[0.0, 0.0], total_count=[1.0, 1.0])
        >>> p.with_library(2.0).prob([0.0, 1.0]).numpy().round(4), p.with_library(2.0).variance().numpy().tolist()
        (np.float32(0.125), [2.0, 2.0])
    """

    def __init__(self, logits: Any, total_count: Any, library: Any = None, name: str = "LibraryNegativeBinomial"):
        self._start(name, library, logits=logits, total_count=total_count)

    @classmethod
    def _parameter_properties(cls, dtype: Any, num_classes: Any = None) -> dict[str, Any]:
        theta = _Properties(event_ndims=1, default_constraining_bijector_fn=tfb.Exp)
        return {**LibraryPoisson._parameter_properties(dtype), "total_count": theta}

    def _log_probs(self, x: tf.Tensor, log_rate: tf.Tensor) -> tf.Tensor:
        return log_negative_binomial(x, log_rate, self.parameters["total_count"])

    def _variance_of_counts(self, rate: tf.Tensor) -> tf.Tensor:
        return rate + rate**2 / self.parameters["total_count"]

    def _drawn_rate(self, rate: tf.Tensor, seed: Any) -> tf.Tensor:
        theta = self.parameters["total_count"] + tf.zeros_like(rate)
        return tfd.Gamma(theta, theta / tf.maximum(rate, _LEAST)).sample(seed=seed)


class _WithMoreZeros(LibraryPoisson):
    """What the two below add to the counts that they are of."""

    def _log_probs(self, x: tf.Tensor, log_rate: tf.Tensor) -> tf.Tensor:
        return log_zero_inflated(x, self.parameters["zero_logits"], super()._log_probs(x, log_rate))

    def _share_of_counts(self) -> Any:
        return tf.sigmoid(-self.parameters["zero_logits"])


class LibraryZeroInflatedPoisson(_WithMoreZeros):
    """``LibraryPoisson`` with more zeros: each count is 0 with probability sigmoid(zero_logits) beforehand.

    Args:
        logits, library: See ``LibraryPoisson``.
        zero_logits: ``[..., G]``.

    Example:
        >>> p = LibraryZeroInflatedPoisson(logits=[0.0, 0.0], zero_logits=[0.0, 0.0])
        >>> p.with_library(2.0).mean().numpy().tolist()
        [0.5, 0.5]
    """

    def __init__(self, logits: Any, zero_logits: Any, library: Any = None, name: str = "LibraryZeroInflatedPoisson"):
        self._start(name, library, logits=logits, zero_logits=zero_logits)

    @classmethod
    def _parameter_properties(cls, dtype: Any, num_classes: Any = None) -> dict[str, Any]:
        return {**LibraryPoisson._parameter_properties(dtype), **_ZERO_LOGITS}


class LibraryZeroInflatedNegativeBinomial(_WithMoreZeros, LibraryNegativeBinomial):
    """``LibraryNegativeBinomial`` with more zeros, scVI's default: see ``LibraryZeroInflatedPoisson``.

    Args:
        logits, total_count, library: See ``LibraryNegativeBinomial``.
        zero_logits: ``[..., G]``.

    Example:
        >>> p = LibraryZeroInflatedNegativeBinomial(logits=[0.0, 0.0], total_count=[1.0, 1.0], zero_logits=[0.0, 0.0])
        >>> p.with_library(2.0).prob([0.0, 1.0]).numpy().round(4)
        np.float32(0.0938)
    """

    def __init__(
        self,
        logits: Any,
        total_count: Any,
        zero_logits: Any,
        library: Any = None,
        name: str = "LibraryZeroInflatedNegativeBinomial",
    ):
        self._start(name, library, logits=logits, total_count=total_count, zero_logits=zero_logits)

    @classmethod
    def _parameter_properties(cls, dtype: Any, num_classes: Any = None) -> dict[str, Any]:
        return {**LibraryNegativeBinomial._parameter_properties(dtype), **_ZERO_LOGITS}


def with_library(distribution: tfd.Distribution, library: tf.Tensor) -> tfd.Distribution:
    """p(x|z) of rows whose libraries ``[...]`` are known; any other distribution, and other columns, as they are.

    Example:
        >>> with_library(LibraryPoisson([0.0, 0.0]), 6.0).mean().numpy().tolist()
        [3.0, 3.0]
    """
    if not _is_of(distribution, LibraryPoisson):
        return distribution
    if isinstance(distribution, Mixed):
        return Mixed([with_library(part, library) for part in distribution.parts])
    if isinstance(distribution, _Independent):
        axes = distribution.event_shape.rank - distribution.distribution.event_shape.rank
        return _Independent(with_library(distribution.distribution, library), axes)
    return distribution.with_library(library)


def with_library_of(distribution: tfd.Distribution, x: tf.Tensor) -> tfd.Distribution:
    """p(x|z) for rows of the libraries that x ``[..., *event]`` has: means and draws are then as large as its counts.

    Example:
        >>> with_library_of(LibraryPoisson([0.0, 0.0]), tf.constant([[4.0, 2.0]])).mean().numpy().tolist()
        [[3.0, 3.0]]
    """
    return _with_totals(distribution, x, LibraryPoisson)


def with_total_of(distribution: tfd.Distribution, x: tf.Tensor) -> tfd.Distribution:
    """p(x|z) to draw rows that stand beside x ``[..., *event]``: ``with_library_of``, and bags of as many words as its.

    Example:
        >>> from tfvae import families
        >>> beside = with_total_of(families.BagOfWords([0.0, 0.0]), tf.constant([[4.0, 2.0], [0.0, 1.0]]))
        >>> tf.reduce_sum(beside.sample(seed=[1, 2]), axis=-1).numpy().tolist()
        [6.0, 1.0]
    """
    return _with_totals(distribution, x, (LibraryPoisson, Bag))


def is_given_total(distribution: Any) -> bool:
    """Whether log p(x|z) is given the total of the row, so that a draw stands beside no row unless it is told one.

    Example:
        >>> from tfvae import families
        >>> is_given_total(families.BagOfWords([0.0, 0.0])), is_given_total(tfd.Poisson(1.0))
        (True, False)
    """
    return _is_of(distribution, (LibraryPoisson, Bag))


def _with_totals(distribution: Any, x: tf.Tensor, kinds: Any) -> tfd.Distribution:
    if not _is_of(distribution, kinds):
        return distribution
    if isinstance(distribution, Mixed):
        columns = tf.split(x, [part.event_shape[-1] for part in distribution.parts], axis=-1)
        parts = zip(distribution.parts, columns, strict=True)
        return Mixed([_with_totals(part, some, kinds) for part, some in parts])
    if isinstance(distribution, _Independent):
        axes = distribution.event_shape.rank - distribution.distribution.event_shape.rank
        return _Independent(_with_totals(distribution.distribution, x, kinds), axes)
    total = tf.reduce_sum(x, axis=-1)
    return distribution.with_total(total) if isinstance(distribution, Bag) else distribution.with_library(total)


def _is_of(distribution: Any, kinds: Any) -> bool:
    if isinstance(distribution, Mixed):
        return any(_is_of(part, kinds) for part in distribution.parts)
    if isinstance(distribution, _Independent):
        return _is_of(distribution.distribution, kinds)
    return isinstance(distribution, kinds)
