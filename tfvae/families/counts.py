"""Counts that TFP has in a form that does not suit float32 or a layer."""

from typing import Any

import tensorflow as tf
from tensorflow_probability import distributions as tfd
from tensorflow_probability import math as tfp_math
from tensorflow_probability import util as tfp_util

from tfvae.families.sigmoid import Sigmoid


class Geometric(tfd.Geometric):
    """Failures before the first success, log P(x) = log σ(logits) + x log σ(-logits): exact where σ rounds to 1.

    Example:
        >>> Geometric(logits=20.0).log_prob([0.0, 1.0]).numpy().round(3)
        array([ -0., -20.], dtype=float32)
    """

    def __init__(self, logits: Any = None, probs: Any = None, name: str = "Geometric"):
        super().__init__(logits=logits, probs=probs, name=name)
        self._parameters = {"logits": logits, "probs": probs, "name": name}

    @classmethod
    def _parameter_properties(cls, dtype: Any, num_classes: Any = None) -> dict[str, Any]:
        probs = tfp_util.ParameterProperties(default_constraining_bijector_fn=Sigmoid, is_preferred=False)
        return {"logits": tfp_util.ParameterProperties(), "probs": probs}

    def _log_prob(self, x: tf.Tensor) -> tf.Tensor:
        if self._logits is None:
            return super()._log_prob(x)
        return -tf.nn.softplus(-self._logits) - x * tf.nn.softplus(self._logits)


def _one_total(properties: dict[str, Any]) -> dict[str, Any]:
    """One ``total_count`` for a whole vector of counts, where TFP asks for one for each."""
    return {**properties, "total_count": tfp_util.ParameterProperties(shape_fn=lambda shape: shape[:-1])}


class Multinomial(tfd.Multinomial):
    """TFP's Multinomial, normalised, with a fixed number of trials for a vector of counts.

    Example:
        >>> round(float(Multinomial(2.0, logits=[0.0, 0.0]).prob([1.0, 1.0])), 4)
        0.5
    """

    def __init__(self, total_count: Any, logits: Any = None, name: str = "Multinomial"):
        super().__init__(total_count, logits=logits, name=name)
        self._parameters = {"total_count": total_count, "logits": logits, "name": name}

    @classmethod
    def _parameter_properties(cls, dtype: Any, num_classes: Any = None) -> dict[str, Any]:
        properties = tfd.Multinomial._parameter_properties(dtype, num_classes)
        return _one_total({name: value for name, value in properties.items() if name != "probs"})


class DirichletMultinomial(tfd.DirichletMultinomial):
    """TFP's DirichletMultinomial, its density exact in float32 for large concentrations too.

    log p(x) = log n! - Σ log x! - [log Γ(Σα + n) - log Γ(Σα)] + Σ [log Γ(α + x) - log Γ(α)]; the brackets are no
    differences of large numbers here. As Σα grows at a fixed mean it becomes a Multinomial.

    Example:
        >>> round(float(DirichletMultinomial(2.0, [1.0, 1.0]).prob([1.0, 1.0])), 4)
        0.3333
    """

    def __init__(self, total_count: Any, concentration: Any, name: str = "DirichletMultinomial"):
        super().__init__(total_count, concentration, name=name)
        self._parameters = {"total_count": total_count, "concentration": concentration, "name": name}

    @classmethod
    def _parameter_properties(cls, dtype: Any, num_classes: Any = None) -> dict[str, Any]:
        return _one_total(tfd.DirichletMultinomial._parameter_properties(dtype, num_classes))

    def _log_prob(self, x: tf.Tensor) -> tf.Tensor:
        n, alpha = tf.convert_to_tensor(self.total_count), tf.convert_to_tensor(self.concentration)
        total = tf.reduce_sum(alpha, axis=-1)
        ways = tf.math.lgamma(n + 1.0) - tf.reduce_sum(tf.math.lgamma(x + 1.0), axis=-1)
        return ways + tf.reduce_sum(_log_rising(alpha, x), axis=-1) - _log_rising(total, n + tf.zeros_like(total))


def _log_rising(y: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """log Γ(y + x) - log Γ(y) for x >= 0, by a form without cancellation where y is the larger."""
    y = y + tf.zeros_like(x)
    small = tf.minimum(x, y)
    return tf.where(x <= y, -tfp_math.log_gamma_difference(small, y), tf.math.lgamma(y + x) - tf.math.lgamma(y))
