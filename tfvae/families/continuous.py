"""Densities of real numbers that TFP lacks, each exact and each drawn pathwise.

The paper's section 2.4 names 22 families that can be sampled as z = g(ε, x) with ε free of parameters: by (i) an
inverse CDF, (ii) a location and a scale, or (iii) a composition of others. TFP has 17 of them; Rayleigh, Reciprocal,
Gompertz, Erlang and F are here, and two of TFP's whose density is not 0 outside of their support.
"""

import math
from typing import Any

import tensorflow as tf
from tensorflow_probability import bijectors as tfb
from tensorflow_probability import distributions as tfd
from tensorflow_probability import random as tfp_random
from tensorflow_probability import util as tfp_util

_Properties = tfp_util.ParameterProperties
_LOWEST_SCALE = 1e-6


def _positive() -> Any:
    return _Properties(default_constraining_bijector_fn=lambda: tfb.Softplus(low=_LOWEST_SCALE))


class Rayleigh(tfd.Weibull):
    """The length of a vector of two independent N(0, scale²): a Weibull with concentration 2 (method i).

    Example:
        >>> round(float(Rayleigh(2.0).mean()), 4)  # scale √(π/2)
        2.5066
    """

    def __init__(self, scale: Any, name: str = "Rayleigh"):
        scale = tf.convert_to_tensor(scale)
        super().__init__(tf.constant(2.0, scale.dtype), scale * math.sqrt(2.0), name=name)
        self._parameters = {"scale": scale, "name": name}

    @classmethod
    def _parameter_properties(cls, dtype: Any, num_classes: Any = None) -> dict[str, Any]:
        return {"scale": _positive()}


class Reciprocal(tfd.TransformedDistribution):
    """Log-uniform on [low, high]: p(z) = 1 / (z log(high / low)), the exponential of a Uniform (method i).

    Example:
        >>> round(float(Reciprocal(1.0, 10.0).prob(2.0)), 4)
        0.2171
    """

    def __init__(self, low: Any, high: Any, name: str = "Reciprocal"):
        low, high = tf.convert_to_tensor(low), tf.convert_to_tensor(high)
        super().__init__(tfd.Uniform(tf.math.log(low), tf.math.log(high)), tfb.Exp(), name=name)
        self._parameters = {"low": low, "high": high, "name": name}

    @classmethod
    def _parameter_properties(cls, dtype: Any, num_classes: Any = None) -> dict[str, Any]:
        return {"low": _positive(), "high": _positive()}

    def _mean(self) -> tf.Tensor:
        low, high = self._parameters["low"], self._parameters["high"]
        return (high - low) / tf.math.log(high / low)

    def _variance(self) -> tf.Tensor:
        low, high = self._parameters["low"], self._parameters["high"]
        return (high**2 - low**2) / (2 * tf.math.log(high / low)) - self._mean() ** 2

    def _stddev(self) -> tf.Tensor:
        return tf.sqrt(self._variance())


class Gompertz(tfd.TransformedDistribution):
    """CDF 1 - exp(-concentration (exp(rate z) - 1)) for z > 0 (method i).

    For e ~ Exponential(1), z = log(1 + e / concentration) / rate: the inverse CDF at 1 - exp(-e), exact near 0 too.

    Example:
        >>> round(float(Gompertz(1.0, 2.0).cdf(0.5)), 4)  # 1 - exp(1 - e)
        0.8206
    """

    def __init__(self, concentration: Any, rate: Any, name: str = "Gompertz"):
        concentration, rate = tf.convert_to_tensor(concentration), tf.convert_to_tensor(rate)
        inverse = [tfb.Scale(1.0 / rate), tfb.Invert(tfb.Expm1()), tfb.Scale(1.0 / concentration)]
        super().__init__(tfd.Exponential(tf.ones_like(concentration * rate)), tfb.Chain(inverse), name=name)
        self._parameters = {"concentration": concentration, "rate": rate, "name": name}

    @classmethod
    def _parameter_properties(cls, dtype: Any, num_classes: Any = None) -> dict[str, Any]:
        return {"concentration": _positive(), "rate": _positive()}

    def _mean(self) -> tf.Tensor:
        """exp(c) E₁(c) / rate for concentration c."""
        return _scaled_exponential_integral(self._parameters["concentration"]) / self._parameters["rate"]

    def _mode(self) -> tf.Tensor:
        return tf.maximum(-tf.math.log(self._parameters["concentration"]), 0.0) / self._parameters["rate"]


def _scaled_exponential_integral(c: tf.Tensor) -> tf.Tensor:
    """exp(c) E₁(c) to 2e-7, by Abramowitz & Stegun 5.1.53 (c <= 1) and 5.1.56 (c > 1)."""
    low, high = tf.minimum(c, 1.0), tf.maximum(c, 1.0)
    series = [0.00107857, -0.00976004, 0.05519968, -0.24991055, 0.99999193, -0.57721566]
    top = [1.0, 8.5733287401, 18.0590169730, 8.6347608925, 0.2677737343]
    bottom = [1.0, 9.5733223454, 25.6329561486, 21.0996530827, 3.9584969228]
    below = tf.exp(low) * (tf.math.polyval(_like(series, c), low) - tf.math.log(low))
    above = tf.math.polyval(_like(top, c), high) / tf.math.polyval(_like(bottom, c), high) / high
    return tf.where(c <= 1.0, below, above)


def _like(coefficients: list[float], x: tf.Tensor) -> list[tf.Tensor]:
    return [tf.cast(value, x.dtype) for value in coefficients]


class Erlang(tfd.Gamma):
    """The sum of ``num_stages`` independent Exponentials of a rate: a Gamma of whole concentration (methods i and iii).

    Drawn as z = -Σ log u / rate, u uniform: the paper's own composition, which holds for whole concentrations only.

    Example:
        >>> float(Erlang(3, 2.0).mean())
        1.5
    """

    def __init__(self, num_stages: Any, rate: Any, name: str = "Erlang"):
        rate = tf.convert_to_tensor(rate)
        self._num_stages = int(num_stages)
        if self._num_stages != num_stages or self._num_stages < 1:
            raise ValueError(f"num_stages must be a whole number of 1 or more, received {num_stages}.")
        super().__init__(tf.constant(self._num_stages, rate.dtype), rate, name=name)
        self._parameters = {"num_stages": num_stages, "rate": rate, "name": name}

    @classmethod
    def _parameter_properties(cls, dtype: Any, num_classes: Any = None) -> dict[str, Any]:
        return {"rate": _positive()}

    def _sample_n(self, n: Any, seed: Any = None) -> tf.Tensor:
        stages = tfd.Exponential(tf.ones_like(self.rate)).sample([n, self._num_stages], seed=seed)
        return tf.reduce_sum(stages, axis=1) / self.rate


class F(tfd.Distribution):
    """Fisher's F: (χ²(df1) / df1) / (χ²(df2) / df2) for independent Chi-squareds (method iii).

    Example:
        >>> round(float(F(3.0, 6.0).mean()), 4)  # df2 / (df2 - 2)
        1.5
    """

    def __init__(self, df1: Any, df2: Any, name: str = "F"):
        df1, df2 = tf.convert_to_tensor(df1), tf.convert_to_tensor(df2)
        self._df1, self._df2 = df1, df2
        super().__init__(
            dtype=df1.dtype,
            reparameterization_type=tfd.FULLY_REPARAMETERIZED,
            validate_args=False,
            allow_nan_stats=True,
            parameters={"df1": df1, "df2": df2, "name": name},
            name=name,
        )

    @classmethod
    def _parameter_properties(cls, dtype: Any, num_classes: Any = None) -> dict[str, Any]:
        return {"df1": _positive(), "df2": _positive()}

    def _event_shape(self) -> tf.TensorShape:
        return tf.TensorShape([])

    def _sample_n(self, n: Any, seed: Any = None) -> tf.Tensor:
        first, second = tf.unstack(tf.random.experimental.stateless_split(tfp_random.sanitize_seed(seed), 2))
        ones = tf.ones_like(self._df1 * self._df2)
        # In logarithms: a χ² of few degrees of freedom underflows long before the ratio does.
        top = tfd.ExpGamma(ones * self._df1 / 2, ones / 2).sample(n, seed=first) - tf.math.log(self._df1)
        bottom = tfd.ExpGamma(ones * self._df2 / 2, ones / 2).sample(n, seed=second) - tf.math.log(self._df2)
        return tf.exp(top - bottom)

    def _log_prob(self, x: tf.Tensor) -> tf.Tensor:
        """(a/2) log(a x) + (b/2) log b - ((a+b)/2) log(a x + b) - log x - log B(a/2, b/2), a = df1, b = df2."""
        a, b = self._df1, self._df2
        log_beta = tf.math.lgamma(a / 2) + tf.math.lgamma(b / 2) - tf.math.lgamma((a + b) / 2)
        log_ratio = (a / 2) * tf.math.log(a * x) + (b / 2) * tf.math.log(b) - ((a + b) / 2) * tf.math.log(a * x + b)
        return log_ratio - tf.math.log(x) - log_beta

    def _mean(self) -> tf.Tensor:
        """df2 / (df2 - 2), which is infinite for df2 <= 2."""
        return tf.where(self._df2 > 2, self._df2 / (self._df2 - 2), float("inf"))

    def _mode(self) -> tf.Tensor:
        return tf.maximum((self._df1 - 2) / self._df1, 0.0) * self._df2 / (self._df2 + 2)

    def _variance(self) -> tf.Tensor:
        a, b = self._df1, self._df2
        return tf.where(b > 4, 2 * b**2 * (a + b - 2) / (a * (b - 2) ** 2 * (b - 4)), float("inf"))

    def _stddev(self) -> tf.Tensor:
        return tf.sqrt(self._variance())

    def _default_event_space_bijector(self) -> Any:
        return tfb.Softplus()


class GeneralizedPareto(tfd.GeneralizedPareto):
    """TFP's, with a density of 0 outside of the support, where TFP's formula goes on and grows without bound.

    Example:
        >>> [round(float(log_prob), 4) for log_prob in GeneralizedPareto(0.0, 1.0, 0.3).log_prob([-1.0, 1.0])]
        [-inf, -1.1369]
    """

    def _log_prob(self, x: tf.Tensor) -> tf.Tensor:
        z = (x - self.loc) / self.scale
        inside = (z >= 0) & (1.0 + self.concentration * z > 0)
        return tf.where(inside, super()._log_prob(tf.where(inside, x, self.loc)), -math.inf)


class PERT(tfd.PERT):
    """TFP's, with a density of 0 outside of [low, high], where TFP's is NaN.

    Example:
        >>> [round(float(log_prob), 4) for log_prob in PERT(0.0, 0.5, 1.0).log_prob([-1.0, 0.5])]
        [-inf, 0.6286]
    """

    def _log_prob(self, x: tf.Tensor) -> tf.Tensor:
        inside = (self.low <= x) & (x <= self.high)
        return tf.where(inside, super()._log_prob(tf.where(inside, x, self.peak)), -math.inf)
