"""Families of a few values: pixels of 0 and 1, classes, grades."""

from typing import Any

import tensorflow as tf
from tensorflow_probability import bijectors as tfb
from tensorflow_probability import distributions as tfd
from tensorflow_probability import math as tfp_math
from tensorflow_probability import util as tfp_util

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


class _Labels(tfd.Distribution):
    """One of the whole numbers 0 to K - 1, as a float; a subclass says log P(x = k), ``[..., K]``."""

    def __init__(self, parameters: dict[str, Any], name: str):
        super().__init__(
            dtype=tf.float32,
            reparameterization_type=tfd.NOT_REPARAMETERIZED,
            validate_args=False,
            allow_nan_stats=True,
            parameters={**parameters, "name": name},
            name=name,
        )

    def log_probs(self) -> tf.Tensor:
        """log P(x = k) for every k, ``[..., K]``, nats."""
        raise NotImplementedError

    def _event_shape(self) -> tf.TensorShape:
        return tf.TensorShape([])

    def _log_prob(self, x: tf.Tensor) -> tf.Tensor:
        log_probs = self.log_probs()
        chosen = tf.equal(tf.cast(x, tf.float32)[..., tf.newaxis], tf.range(float(log_probs.shape[-1])))
        found = tf.reduce_sum(tf.where(chosen, log_probs, 0.0), axis=-1)
        return tf.where(tf.reduce_any(chosen, axis=-1), found, -float("inf"))

    def _sample_n(self, n: Any, seed: Any = None) -> tf.Tensor:
        below = tf.cumsum(tf.exp(self.log_probs()), axis=-1)[..., :-1]  # P(x <= k)
        u = standard_uniform(tf.concat([[n], tf.shape(below)[:-1], [1]], axis=0), seed)
        return tf.reduce_sum(tf.cast(u >= below, tf.float32), axis=-1)

    def _mean(self) -> tf.Tensor:
        probs = tf.exp(self.log_probs())
        return tf.reduce_sum(probs * tf.range(float(probs.shape[-1])), axis=-1)

    def _variance(self) -> tf.Tensor:
        probs = tf.exp(self.log_probs())
        away = tf.range(float(probs.shape[-1])) - self._mean()[..., tf.newaxis]
        return tf.reduce_sum(probs * away**2, axis=-1)

    def _stddev(self) -> tf.Tensor:
        return tf.sqrt(self._variance())

    def _mode(self) -> tf.Tensor:
        return tf.cast(tf.argmax(self.log_probs(), axis=-1), tf.float32)


class Categorical(_Labels):
    """One of K classes, 0 to K - 1. Its mean is that of the class's number; the likely class is its mode.

    A model answers with the likely class, where it answers others by their means; see ``draws.mean``.

    Example:
        >>> Categorical([0.0, 0.0, 0.0]).log_prob([2.0]).numpy().round(4)  # -log 3
        array([-1.0986], dtype=float32)
    """

    def __init__(self, logits: Any, name: str = "Categorical"):
        self._logits = tf.convert_to_tensor(logits)
        super().__init__({"logits": self._logits}, name)

    @classmethod
    def _parameter_properties(cls, dtype: Any, num_classes: Any = None) -> dict[str, Any]:
        return {"logits": tfp_util.ParameterProperties(event_ndims=1, shape_fn=lambda shape: [*shape, num_classes])}

    def log_probs(self) -> tf.Tensor:
        """See ``_Labels``."""
        return tf.nn.log_softmax(self._logits)


class OrderedLogistic(_Labels):
    """Grades 0 to K - 1 between rising cut points: P(x <= k) = sigmoid(cutpoints[k] - loc).

    With a and b the distances of loc from the cut points above and below, log P(x = k) is
    log σ(a) + log σ(-b) + log(1 - exp(b - a)), for σ(a) - σ(b) = σ(a) σ(-b) (1 - exp(b - a)). TFP's own form has no
    gradient in float32 where loc lies 16 from a cut point.

    Example:
        >>> OrderedLogistic(cutpoints=[-1.0, 1.0], loc=0.0).prob([0.0, 1.0, 2.0]).numpy().round(4)
        array([0.2689, 0.4621, 0.2689], dtype=float32)
    """

    def __init__(self, cutpoints: Any, loc: Any, name: str = "OrderedLogistic"):
        self._cutpoints, self._loc = tf.convert_to_tensor(cutpoints), tf.convert_to_tensor(loc)
        super().__init__({"cutpoints": self._cutpoints, "loc": self._loc}, name)

    @classmethod
    def _parameter_properties(cls, dtype: Any, num_classes: Any = None) -> dict[str, Any]:
        return {
            "cutpoints": tfp_util.ParameterProperties(
                event_ndims=1,
                shape_fn=lambda shape: [*shape, num_classes - 1],
                default_constraining_bijector_fn=tfb.Ascending,
            ),
            "loc": tfp_util.ParameterProperties(),
        }

    def log_probs(self) -> tf.Tensor:
        """See ``_Labels``."""
        away = self._cutpoints - self._loc[..., tf.newaxis]  # a of all grades but the last, b of all but the first
        gaps = self._cutpoints[..., 1:] - self._cutpoints[..., :-1] + 0.0 * away[..., 1:]
        zero = tf.zeros_like(away[..., :1])
        below_upper = tf.concat([-tf.nn.softplus(-away), zero], axis=-1)
        above_lower = tf.concat([zero, -tf.nn.softplus(away)], axis=-1)
        between = tf.concat([zero, tfp_math.log1mexp(gaps), zero], axis=-1)
        return below_upper + above_lower + between
