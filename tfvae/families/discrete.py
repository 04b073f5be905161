"""Families of a few values: pixels of 0 and 1, classes."""

from typing import Any

import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfvae.engine import xla
from tfvae.families.random import standard_uniform


class Bernoulli(tfd.Bernoulli):
    """TFP's Bernoulli with float32 events and one softplus for log p(x) where TFP takes two: x logit - softplus(logit).

    A grey value x in [0, 1] scores x log p + (1 - x) log(1 - p).

    Example:
        >>> round(float(Bernoulli(logits=0.0).log_prob(0.3)), 4)  # log 0.5
        -0.6931
    """

    def __init__(self, logits: Any = None, probs: Any = None, dtype: Any = tf.float32, name: str = "Bernoulli"):
        super().__init__(logits=logits, probs=probs, dtype=dtype, name=name)
        self._parameters = {"logits": logits, "probs": probs, "dtype": dtype, "name": name}

    @classmethod
    def _parameter_properties(cls, dtype: Any, num_classes: Any = None) -> dict[str, Any]:
        return tfd.Bernoulli._parameter_properties(dtype, num_classes)

    def _log_prob(self, event: tf.Tensor) -> tf.Tensor:
        logits = self._logits_parameter_no_checks()
        return tf.cast(event, logits.dtype) * logits - xla.softplus(logits)

    def _sample_n(self, n: Any, seed: Any = None) -> tf.Tensor:
        probs = self._probs_parameter_no_checks()
        draws = standard_uniform(tf.concat([[n], tf.shape(probs)], axis=0), seed, probs.dtype)
        return tf.cast(draws < probs, self.dtype)


class OneHotCategorical(tfd.OneHotCategorical):
    """TFP's OneHotCategorical with float32 events and the mean that TFP leaves out.

    Example:
        >>> OneHotCategorical(logits=[0.0, 0.0]).mean().numpy().tolist()
        [0.5, 0.5]
    """

    def __init__(self, logits: Any = None, probs: Any = None, dtype: Any = tf.float32, name: str = "OneHotCategorical"):
        super().__init__(logits=logits, probs=probs, dtype=dtype, name=name)
        self._parameters = {"logits": logits, "probs": probs, "dtype": dtype, "name": name}

    @classmethod
    def _parameter_properties(cls, dtype: Any, num_classes: Any = None) -> dict[str, Any]:
        return tfd.OneHotCategorical._parameter_properties(dtype, num_classes)

    def _mean(self) -> tf.Tensor:
        return self.probs_parameter()
