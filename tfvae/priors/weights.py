"""p(θ): a prior on the generative weights."""

from collections.abc import Iterable
from typing import Any

import keras
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfvae.arguments import check_at_least, check_number


@keras.saving.register_keras_serializable("tfvae")
class WeightPrior:
    """The prior on the generative weights, p(θ) = N(0, scale²), for the MAP estimate of the paper's section 5.

    The paper maximises (N/M) Σ L(x) + log p(θ). Divided by N that is the mean bound plus log p(θ) / N, the scaling that
    ``fit`` uses; it depends on the rows of the dataset, so they have to be said. The prior is on weight matrices and
    kernels, not on biases.

    Args:
        num_rows: N, the rows of the training data.
        scale: Standard deviation of a weight.

    Example:
        >>> round(float(WeightPrior(num_rows=10)([tf.zeros([2, 3]), tf.ones([7])])), 4)  # 6 log N(0; 0, 1) / 10
        -0.5514
    """

    def __init__(self, num_rows: int, scale: float = 1.0):
        check_at_least(1, most=2**53, num_rows=num_rows)
        check_number(0, is_open=True, scale=scale)
        self.num_rows, self.scale = int(num_rows), float(scale)

    def __call__(self, weights: Iterable[Any]) -> tf.Tensor:
        """log p(θ) / N, nats for each row, of those weights that are no biases."""
        normal = tfd.Normal(0.0, self.scale)
        kernels = [tf.cast(w, tf.float32) for w in weights if len(w.shape) > 1]
        return sum((tf.reduce_sum(normal.log_prob(k)) for k in kernels), start=tf.constant(0.0)) / self.num_rows

    def get_config(self) -> dict[str, Any]:
        return {"num_rows": self.num_rows, "scale": self.scale}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "WeightPrior":
        return cls(**config)
