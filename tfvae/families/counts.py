"""Counts that TFP has in a form that does not suit float32 or a layer: ours are exact for large ones too."""

from typing import Any

import tensorflow as tf
from tensorflow_probability import distributions as tfd
from tensorflow_probability import util as tfp_util

from tfvae.families.saddle_points import (
    log_dirichlet_multinomial,
    log_multinomial,
    log_negative_binomial,
    log_zero_inflated,
)
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


class Binomial(tfd.Binomial):
    """TFP's Binomial, its probability exact in float32 where counts are large.

    Example:
        >>> round(float(Binomial(2.0, logits=0.0).prob(1.0)), 4)
        0.5
    """

    def __init__(self, total_count: Any, logits: Any = None, probs: Any = None, name: str = "Binomial"):
        super().__init__(total_count, logits=logits, probs=probs, name=name)
        self._parameters = {"total_count": total_count, "logits": logits, "probs": probs, "name": name}

    @classmethod
    def _parameter_properties(cls, dtype: Any, num_classes: Any = None) -> dict[str, Any]:
        return tfd.Binomial._parameter_properties(dtype, num_classes)

    def _log_prob(self, x: tf.Tensor) -> tf.Tensor:
        logits, n = self._logits_parameter_no_checks(), tf.convert_to_tensor(self.total_count)
        log_shares = tf.stack([tf.math.log_sigmoid(logits), tf.math.log_sigmoid(-logits)], axis=-1)
        return log_multinomial(_successes_and_failures(x, n), n, log_shares)


class BetaBinomial(tfd.BetaBinomial):
    """TFP's BetaBinomial, its probability exact in float32 where counts or concentrations are large.

    Example:
        >>> round(float(BetaBinomial(2.0, 1.0, 1.0).prob(1.0)), 4)
        0.3333
    """

    def __init__(self, total_count: Any, concentration1: Any, concentration0: Any, name: str = "BetaBinomial"):
        super().__init__(total_count, concentration1, concentration0, name=name)
        concentrations = {"concentration1": concentration1, "concentration0": concentration0}
        self._parameters = {"total_count": total_count, **concentrations, "name": name}

    @classmethod
    def _parameter_properties(cls, dtype: Any, num_classes: Any = None) -> dict[str, Any]:
        return tfd.BetaBinomial._parameter_properties(dtype, num_classes)

    def _log_prob(self, x: tf.Tensor) -> tf.Tensor:
        n, ones, zeros = map(tf.convert_to_tensor, (self.total_count, self.concentration1, self.concentration0))
        alpha = tf.stack([ones + tf.zeros_like(zeros), zeros + tf.zeros_like(ones)], axis=-1)
        return log_dirichlet_multinomial(_successes_and_failures(x, n), n, alpha)


def _successes_and_failures(x: tf.Tensor, n: tf.Tensor) -> tf.Tensor:
    """[x, n - x] along a new last axis."""
    return tf.stack([x + tf.zeros_like(n), n - x], axis=-1)


class NegativeBinomial(tfd.NegativeBinomial):
    """TFP's NegativeBinomial, its probability exact in float32 where counts or the total_count are large.

    Example:
        >>> round(float(NegativeBinomial(1.0, logits=0.0).prob(1.0)), 4)
        0.25
    """

    def __init__(self, total_count: Any, logits: Any = None, probs: Any = None, name: str = "NegativeBinomial"):
        super().__init__(total_count, logits=logits, probs=probs, require_integer_total_count=False, name=name)
        self._parameters = {"total_count": total_count, "logits": logits, "probs": probs, "name": name}

    @classmethod
    def _parameter_properties(cls, dtype: Any, num_classes: Any = None) -> dict[str, Any]:
        return tfd.NegativeBinomial._parameter_properties(dtype, num_classes)

    def _log_prob(self, x: tf.Tensor) -> tf.Tensor:
        size = tf.convert_to_tensor(self.total_count)
        return log_negative_binomial(x, self._logits_parameter_no_checks() + tf.math.log(size), size)


_Inflated: Any = tfd.inflated.inflated_factory("ZeroInflatedNegativeBinomial", NegativeBinomial, 0.0)


class ZeroInflatedNegativeBinomial(_Inflated):
    """TFP's, its probability exact; a zero is no count with the probability sigmoid(2 inflated_loc_logits), as there.

    Example:
        >>> p = ZeroInflatedNegativeBinomial(inflated_loc_logits=0.0, total_count=1.0, logits=0.0)
        >>> p.prob([0.0, 1.0]).numpy().round(3).tolist()
        [0.75, 0.125]
    """

    def _log_prob(self, x: tf.Tensor) -> tf.Tensor:
        if self._inflated_loc_logits is None:
            zero_logits = tf.math.log(self._inflated_loc_probs) - tf.math.log1p(-self._inflated_loc_probs)
        else:
            zero_logits = 2.0 * self._inflated_loc_logits
        return log_zero_inflated(x, zero_logits, self._distribution.log_prob(x))


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

    def _log_prob(self, x: tf.Tensor) -> tf.Tensor:
        return log_multinomial(x, tf.convert_to_tensor(self.total_count), tf.nn.log_softmax(self.logits))


class DirichletMultinomial(tfd.DirichletMultinomial):
    """TFP's DirichletMultinomial, its probability exact in float32 for large counts and concentrations too.

    log p(x) = log n! - Σ log x! - [log Γ(Σα + n) - log Γ(Σα)] + Σ [log Γ(α + x) - log Γ(α)]. As Σα grows at a fixed
    mean it becomes a Multinomial.

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
        return log_dirichlet_multinomial(x, n, alpha)
