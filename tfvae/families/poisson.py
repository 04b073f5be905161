"""Counts that a Poisson makes, exact in float32 for large ones, and bags of words, whose number is the row's own."""

from typing import Any

import tensorflow as tf
from tensorflow_probability import bijectors as tfb
from tensorflow_probability import distributions as tfd
from tensorflow_probability import random as tfp_random
from tensorflow_probability import util as tfp_util

from tfvae.families.counts import DirichletMultinomial, Multinomial
from tfvae.families.random import standard_uniform
from tfvae.families.saddle_points import log_dirichlet_multinomial, log_multinomial, log_poisson, log_zero_inflated

_Properties = tfp_util.ParameterProperties


class Poisson(tfd.Poisson):
    """TFP's Poisson, its probability exact in float32 where counts are large.

    Example:
        >>> Poisson(log_rate=11.5).log_prob(99000.0).numpy().round(2)
        np.float32(-7.08)
    """

    def __init__(self, rate: Any = None, log_rate: Any = None, name: str = "Poisson"):
        super().__init__(rate=rate, log_rate=log_rate, name=name)
        self._parameters = {"rate": rate, "log_rate": log_rate, "name": name}

    @classmethod
    def _parameter_properties(cls, dtype: Any, num_classes: Any = None) -> dict[str, Any]:
        return tfd.Poisson._parameter_properties(dtype, num_classes)

    def _log_prob(self, x: tf.Tensor) -> tf.Tensor:
        return log_poisson(x, self._log_rate_parameter_no_checks())


class Counts(tfd.Distribution):
    """What families of counts share: counts as floats, no gradient through a draw.

    Example:
        >>> isinstance(BagOfWords([0.0, 0.0]), Counts)
        True
    """

    def __init__(self, name: str, **parameters: Any):
        tensors = {key: tf.convert_to_tensor(value) for key, value in parameters.items()}
        super().__init__(
            dtype=next(iter(tensors.values())).dtype,
            reparameterization_type=tfd.NOT_REPARAMETERIZED,
            validate_args=False,
            allow_nan_stats=True,
            parameters={**tensors, "name": name},
            name=name,
        )

    def _stddev(self) -> tf.Tensor:
        return tf.sqrt(self._variance())


class ZeroInflatedPoisson(Counts):
    """0 with probability sigmoid(zero_logits), else a Poisson's count: more zeros than a Poisson has.

    log P(0) = log(e^l + e^-λ) - log(1 + e^l), and of others log Poisson(x; λ) - log(1 + e^l) (Lambert 1992).

    Example:
        >>> ZeroInflatedPoisson(zero_logits=0.0, log_rate=0.0).prob([0.0, 1.0]).numpy().round(4)
        array([0.6839, 0.1839], dtype=float32)
    """

    def __init__(self, zero_logits: Any, log_rate: Any, name: str = "ZeroInflatedPoisson"):
        super().__init__(name, zero_logits=zero_logits, log_rate=log_rate)

    @classmethod
    def _parameter_properties(cls, dtype: Any, num_classes: Any = None) -> dict[str, Any]:
        return {"zero_logits": _Properties(), "log_rate": _Properties()}

    def _event_shape(self) -> tf.TensorShape:
        return tf.TensorShape([])

    def _log_prob(self, x: tf.Tensor) -> tf.Tensor:
        return log_zero_inflated(x, self.parameters["zero_logits"], log_poisson(x, self.parameters["log_rate"]))

    def _sample_n(self, n: Any, seed: Any = None) -> tf.Tensor:
        seeds = tfp_random.split_seed(seed, n=2)
        zero = tf.sigmoid(self.parameters["zero_logits"]) + tf.zeros(self.batch_shape_tensor(), self.dtype)
        drawn = tfd.Poisson(log_rate=self.parameters["log_rate"] + 0.0 * zero).sample(n, seed=seeds[1])
        return tf.where(standard_uniform(tf.shape(drawn), seeds[0], self.dtype) < zero, tf.zeros_like(drawn), drawn)

    def _mean(self) -> tf.Tensor:
        return tf.sigmoid(-self.parameters["zero_logits"]) * tf.exp(self.parameters["log_rate"])

    def _variance(self) -> tf.Tensor:
        rate = tf.exp(self.parameters["log_rate"])
        return self._mean() * (1.0 + rate * tf.sigmoid(self.parameters["zero_logits"]))


class Bag(Counts):
    """Counts of V words, x ``[..., V]``, given their sum n = Σ x; a mean and a draw, which know no n, are of one word.

    TFP's Multinomial asks for its n beforehand.

    Example:
        >>> isinstance(BagOfWords([0.0, 0.0]), Bag)
        True
    """

    _weights: str  # the parameter

    def with_total(self, n: tf.Tensor) -> tfd.Distribution:
        """Rows of n words each, ``[...]``."""
        raise NotImplementedError

    def _event_shape(self) -> tf.TensorShape:
        return self.parameters[self._weights].shape[-1:]

    def _sample_n(self, n: Any, seed: Any = None) -> tf.Tensor:
        return tfd.OneHotCategorical(probs=self._mean(), dtype=self.dtype).sample(n, seed=seed)

    def _variance(self) -> tf.Tensor:
        return self._mean() * (1.0 - self._mean())


class BagOfWords(Bag):
    """A multinomial whose number of trials is the row's own: log p(x | n) = log n! - Σ log x_i! + Σ x_i log π_i.

    The probability is of the bag; that of its words in their order lacks the first two terms
    (``evaluation.perplexity``).

    Args:
        logits: log π but for a constant, ``[..., V]``.

    Example:
        >>> p = BagOfWords(logits=[0.0, 0.0])
        >>> round(float(p.prob([1.0, 1.0])), 5), p.mean().numpy().tolist()
        (0.5, [0.5, 0.5])
    """

    _weights = "logits"

    def __init__(self, logits: Any, name: str = "BagOfWords"):
        super().__init__(name, logits=logits)

    @classmethod
    def _parameter_properties(cls, dtype: Any, num_classes: Any = None) -> dict[str, Any]:
        return {"logits": _Properties(event_ndims=1)}

    def _log_prob(self, x: tf.Tensor) -> tf.Tensor:
        return log_multinomial(x, tf.reduce_sum(x, axis=-1), tf.nn.log_softmax(self.parameters["logits"]))

    def _mean(self) -> tf.Tensor:
        return tf.nn.softmax(self.parameters["logits"])

    def with_total(self, n: tf.Tensor) -> tfd.Distribution:
        """See ``Bag.with_total``."""
        return Multinomial(n, logits=self.parameters["logits"])


class DirichletBagOfWords(Bag):
    """A Dirichlet-multinomial whose number of trials is the row's own: words that come once come again.

    log p(x | n) = log n + log B(Σα, n) - Σ_{x_i > 0} [log x_i + log B(α_i, x_i)], with the beta function B.

    Args:
        concentration: α, ``[..., V]``.

    Example:
        >>> DirichletBagOfWords([1.0, 1.0]).prob([1.0, 1.0]).numpy().round(4)
        np.float32(0.3333)
    """

    _weights = "concentration"

    def __init__(self, concentration: Any, name: str = "DirichletBagOfWords"):
        super().__init__(name, concentration=concentration)

    @classmethod
    def _parameter_properties(cls, dtype: Any, num_classes: Any = None) -> dict[str, Any]:
        return {"concentration": _Properties(event_ndims=1, default_constraining_bijector_fn=tfb.Softplus)}

    def _log_prob(self, x: tf.Tensor) -> tf.Tensor:
        return log_dirichlet_multinomial(x, tf.reduce_sum(x, axis=-1), self.parameters["concentration"])

    def _mean(self) -> tf.Tensor:
        alpha = self.parameters["concentration"]
        return alpha / tf.reduce_sum(alpha, axis=-1, keepdims=True)

    def with_total(self, n: tf.Tensor) -> tfd.Distribution:
        """See ``Bag.with_total``."""
        return DirichletMultinomial(n, self.parameters["concentration"])
