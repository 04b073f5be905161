"""Learned accept/reject sampling (Bauer & Mnih, arXiv 1810.11428): a prior that refuses draws."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from tensorflow_probability import bijectors as tfb
from tensorflow_probability import distributions as tfd
from tensorflow_probability import math as tfp_math
from tensorflow_probability import random as tfp_random

from tfvae import families
from tfvae.arguments import check_at_least, check_number, checked_shape
from tfvae.priors.base import Prior

_DRAWS_OF_A_STEP = 1024
_CHUNK = 10_000


@keras.saving.register_keras_serializable("tfvae", name="ResampledPrior")
class Resampled(Prior):
    """p(z) = N(z; 0, I) ((1 - α) a(z) / Z + α): a draw of N(0, I) is kept with probability a(z), the T-th in any case.

    Z = E_N[a(z)] and α = (1 - Z)^(T-1) (equation 7). A step of training estimates Z by 1024 draws of its own: a moving
    average of them is the value, the step's own gives the gradient. ``normalize`` finds Z to four digits afterwards,
    which ``priors.fit`` does by itself; ``log_marginal`` and what else is reported then hold to as many.

    Where codes lie far out, with less than a hundredth of N(0, I) around them, 1024 draws see too little of Z.

    Args:
        latent_dim: D.
        hidden: Hidden units, tanh, of the network whose sigmoid is a(z).
        truncation: T.
        decay: What the moving average keeps at each step.
        name: Keras's.

    Example:
        >>> prior = Resampled(2, hidden=[8])
        >>> prior().sample(5, seed=(0, 1)).shape, 0 < float(prior.normalize()) < 1
        (TensorShape([5, 2]), True)
    """

    def __init__(
        self,
        latent_dim: int,
        hidden: Sequence[int] = (100, 100),
        truncation: int = 100,
        decay: float = 0.99,
        name: str = "prior",
    ):
        super().__init__(latent_dim, name=name)
        check_at_least(1, truncation=truncation)
        check_number(0.0, decay=decay)
        if decay > 1.0:
            raise ValueError(f"decay is {decay!r}, expected a number between 0 and 1.")
        self.hidden, self.truncation, self.decay = checked_shape("hidden", hidden), int(truncation), float(decay)
        ends = [(units, "tanh") for units in self.hidden] + [(1, None)]
        self.acceptance = [keras.layers.Dense(units, end, dtype="float32") for units, end in ends]
        for layer, width in zip(self.acceptance, (self.latent_dim, *self.hidden), strict=True):
            layer.build((None, width))
        kind = {"synchronization": "on_read", "aggregation": "mean", "trainable": False}
        start = keras.initializers.Constant(0.5)  # what a network that knows nothing accepts
        self.normalizer = keras.Variable(start, shape=(), dtype="float32", name="normalizer", **kind)

    def distribution(self, condition: tf.Tensor | None = None) -> tfd.Distribution:
        """See ``Prior.distribution``."""
        return _Resampled(self.latent_dim, self._log_accepted, tf.math.log(self.normalizer.value), self.truncation)

    def in_training(self, condition: tf.Tensor | None, seed: tf.Tensor) -> tfd.Distribution:
        """See ``Prior.in_training``: this moves Z."""
        mean = self._mean_accepted(_DRAWS_OF_A_STEP, seed)
        value = self.decay * self.normalizer.value + (1.0 - self.decay) * tf.stop_gradient(mean)
        self.normalizer.assign(value)
        log_mean = tf.math.log(mean)
        log_normalizer = tf.math.log(value) + log_mean - tf.stop_gradient(log_mean)
        return _Resampled(self.latent_dim, self._log_accepted, log_normalizer, self.truncation)

    def normalize(self, num_draws: int = 1_000_000, seed: int = 0) -> tf.Tensor:
        """Find Z by many draws, keep it and return it."""
        check_at_least(1, num_draws=num_draws)
        chunk = tf.function(lambda seed: self._mean_accepted(_CHUNK, seed), autograph=False)
        means = [chunk(tf.constant([seed, i])) for i in range(-(-num_draws // _CHUNK))]
        self.normalizer.assign(tf.reduce_mean(means))
        return tf.convert_to_tensor(self.normalizer.value)

    def _log_accepted(self, z: tf.Tensor) -> tf.Tensor:
        """log a(z), ``[...]`` for z ``[..., D]``."""
        for layer in self.acceptance:
            z = layer(z)
        return -tf.nn.softplus(-z[..., 0])

    def _mean_accepted(self, num_draws: int, seed: tf.Tensor) -> tf.Tensor:
        z = families.standard_normal([num_draws, self.latent_dim], seed)
        return tf.reduce_mean(tf.exp(self._log_accepted(z)))

    def get_config(self) -> dict[str, Any]:
        names = ("latent_dim", "hidden", "truncation", "decay", "name")
        return {name: getattr(self, name) for name in names}


class _Resampled(tfd.Distribution):
    """The density for a log a(z) and a log Z."""

    def __init__(self, latent_dim: int, log_accepted: Any, log_normalizer: tf.Tensor, truncation: int):
        self._log_accepted, self._log_normalizer, self._truncation = log_accepted, log_normalizer, truncation
        zeros = tf.zeros([latent_dim])
        self._base = tfd.Independent(families.Normal(zeros, zeros + 1.0), 1)
        super().__init__(tf.float32, tfd.NOT_REPARAMETERIZED, False, True, parameters={}, name="Resampled")

    def _log_prob(self, z: tf.Tensor) -> tf.Tensor:
        # Z of 0 or 1 would make a logarithm of 0 of one of the two parts
        log_z = tf.clip_by_value(self._log_normalizer, -14.0, -1e-6)
        log_alpha = (self._truncation - 1.0) * tf.math.log(-tf.math.expm1(log_z))
        if self._truncation == 1:
            return self._base.log_prob(z)
        log_rest = tf.math.log(-tf.math.expm1(log_alpha))
        ratio = tfp_math.log_add_exp(self._log_accepted(z) - log_z + log_rest, log_alpha)
        return self._base.log_prob(z) + ratio

    def _sample_n(self, n: Any, seed: Any = None) -> tf.Tensor:
        """The first of T draws that is kept, and the last of them where none is."""
        first, second = tf.unstack(tf.random.experimental.stateless_split(tfp_random.sanitize_seed(seed), 2))
        z = self._base.sample([n, self._truncation], seed=first)
        u = families.standard_uniform([n, self._truncation], second)
        is_kept = tf.math.log(u) < self._log_accepted(z)
        last = tf.one_hot(self._truncation - 1, self._truncation, on_value=True, off_value=False)
        return tf.gather(z, tf.argmax(tf.cast(is_kept | last, tf.int32), axis=1), batch_dims=1)

    def _default_event_space_bijector(self) -> tfb.Bijector:
        return tfb.Identity()

    def _batch_shape(self) -> tf.TensorShape:
        return tf.TensorShape([])

    def _batch_shape_tensor(self) -> tf.Tensor:
        return tf.zeros([0], tf.int32)

    def _event_shape(self) -> tf.TensorShape:
        return self._base.event_shape

    def _event_shape_tensor(self) -> tf.Tensor:
        return self._base.event_shape_tensor()
