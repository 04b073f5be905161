"""Flows: a density that is another one's, carried through invertible steps."""

from collections.abc import Sequence
from typing import Any, Protocol

import tensorflow as tf
from tensorflow_probability import distributions as tfd

_NO_FORMULA = (
    "A flow's {0} has no formula: tfvae.families.draws.{0}(q) gives it by 100 stratified draws. For the means of rows "
    "call vae.embed(x)."
)


class Step(Protocol):
    """An invertible map of z ``[..., D]``. Either way comes with log |det dy/dz| of the map forward, ``[...]``."""

    def forward(self, z: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """z -> y, and log |det dy/dz|."""

    def inverse(self, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """y -> z, and log |det dy/dz|."""


class Inverted:
    """A step the other way round: what was cheap to draw from is cheap to score, and the reverse."""

    def __init__(self, step: Step):
        self._step = step

    def forward(self, z: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """See ``Step``."""
        y, log_det = self._step.inverse(z)
        return y, -log_det

    def inverse(self, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """See ``Step``."""
        z, log_det = self._step.forward(y)
        return z, -log_det


class Flow(tfd.Distribution):
    """z = f_F(... f_1(z_0)) for z_0 of a base: log q(z) = log q_0(z_0) - Σ log |det df/dz| (arXiv 1505.05770, eq. 13).

    A draw comes with its density in one pass forward. The density of a number that was given goes through the steps
    backwards, which may cost more.

    Args:
        base: That of z_0, event shape ``[D]``.
        steps: In the order in which a draw goes through them.
        name: TFP's.

    Example:
        >>> class Doubled:
        ...     def forward(self, z):
        ...         return 2.0 * z, tf.fill(tf.shape(z)[:-1], 3 * tf.math.log(2.0))
        ...     def inverse(self, y):
        ...         return y / 2.0, tf.fill(tf.shape(y)[:-1], 3 * tf.math.log(2.0))
        >>> flow = Flow(tfd.Independent(tfd.Normal(tf.zeros([3]), 1.0), 1), [Doubled()])
        >>> wide = tfd.Independent(tfd.Normal(tf.zeros([3]), 2.0), 1)
        >>> bool(tf.abs(flow.log_prob(tf.ones([3])) - wide.log_prob(tf.ones([3]))) < 1e-5)
        True
    """

    def __init__(self, base: tfd.Distribution, steps: Sequence[Step], name: str = "Flow"):
        self.base, self.steps = base, tuple(steps)
        super().__init__(
            dtype=base.dtype,
            reparameterization_type=base.reparameterization_type,
            validate_args=False,
            allow_nan_stats=True,
            parameters={"base": base, "steps": steps, "name": name},
            name=name,
        )

    def forward(self, z: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """z_0 ``[..., D]`` through all steps, and the sum of their log |det|, ``[...]``."""
        total = tf.zeros(tf.shape(z)[:-1], z.dtype)
        for step in self.steps:
            z, log_det = step.forward(z)
            total += log_det
        return z, total

    def _sample_n(self, n: Any, seed: Any = None) -> tf.Tensor:
        return self.forward(self.base.sample(n, seed=seed))[0]

    def _sample_and_log_prob(self, sample_shape: Any, seed: Any = None) -> tuple[tf.Tensor, tf.Tensor]:
        z, log_prob = self.base.experimental_sample_and_log_prob(sample_shape, seed=seed)
        z, log_det = self.forward(z)
        return z, log_prob - log_det

    def _log_prob(self, y: tf.Tensor) -> tf.Tensor:
        total = tf.zeros(tf.shape(y)[:-1], y.dtype)
        for step in reversed(self.steps):
            y, log_det = step.inverse(y)
            total += log_det
        return self.base.log_prob(y) - total

    def _mean(self) -> tf.Tensor:
        raise NotImplementedError(_NO_FORMULA.format("mean"))

    def _stddev(self) -> tf.Tensor:
        raise NotImplementedError(_NO_FORMULA.format("stddev"))

    def _batch_shape(self) -> tf.TensorShape:
        return self.base.batch_shape

    def _batch_shape_tensor(self) -> tf.Tensor:
        return self.base.batch_shape_tensor()

    def _default_event_space_bijector(self) -> Any:
        return self.base.experimental_default_event_space_bijector()

    def _event_shape(self) -> tf.TensorShape:
        return self.base.event_shape

    def _event_shape_tensor(self) -> tf.Tensor:
        return self.base.event_shape_tensor()

    @classmethod
    def _parameter_properties(cls, dtype: Any, num_classes: Any = None) -> dict[str, Any]:
        raise NotImplementedError("A flow's steps are no parameters.")
