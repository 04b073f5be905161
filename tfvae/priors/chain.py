"""A chain of normals, which a q(z|x) of independent units can never equal."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfvae.arguments import check_at_least, check_number
from tfvae.priors.base import Prior


@keras.saving.register_keras_serializable("tfvae")
class FirstOrderAutoregressive(Prior):
    """p(z) of an AR(1) chain: z_1 ~ N(0, I), z_t = α z_{t-1} + √(1 - α²) ε_t (δ-VAE, arXiv 1901.03416, section 2.2).

    Each unit is N(0, 1) by itself. z is ``latent_dim / num_channels`` steps of so many channels, one after the other.
    No q(z|x) whose units are independent is nearer than ``least_kl``, so that z cannot say nothing of x.

    Args:
        latent_dim: D.
        correlation: α, between -1 and 1: of neighbouring steps.
        num_channels: Units of a step, each a chain of its own.
        name: Keras's.

    Raises:
        ValueError: If α is not between -1 and 1, or D no multiple of ``num_channels``.

    Example:
        >>> prior = FirstOrderAutoregressive(4, correlation=0.9)
        >>> prior().covariance().numpy()[0].round(3), round(prior.least_kl, 3)
        (array([1.   , 0.9  , 0.81 , 0.729], dtype=float32), 1.424)
    """

    def __init__(self, latent_dim: int, correlation: float = 0.9, num_channels: int = 1, name: str = "prior"):
        super().__init__(latent_dim, name=name)
        check_at_least(1, num_channels=num_channels)
        check_number(-1.0, is_open=True, also="below 1", correlation=correlation)
        if correlation >= 1:
            raise ValueError(f"correlation is {correlation}, expected a number above -1, below 1.")
        if self.latent_dim % num_channels:
            raise ValueError(
                f"latent_dim is {latent_dim}, expected a multiple of num_channels, {num_channels}: steps have one size."
            )
        self.correlation, self.num_channels = float(correlation), int(num_channels)

    @property
    def least_kl(self) -> float:
        """δ, the least KL(q‖p) of a q with independent units, nats: a channel's ½ [(T - 2) log(1 + α²) - log(1 - α²)].

        That is where σ_t² is 1 / Λ_tt, of p's precision Λ; a chain of one step has none.
        """
        steps, square = self.latent_dim // self.num_channels, self.correlation**2
        of_a_channel = 0.5 * ((steps - 2) * np.log1p(square) - np.log1p(-square)) if steps > 1 else 0.0
        return float(self.num_channels * of_a_channel)

    def distribution(self, condition: tf.Tensor | None = None) -> tfd.Distribution:
        """See ``Prior.distribution``."""
        step = np.arange(self.latent_dim // self.num_channels)
        lag = step[:, np.newaxis] - step
        new = np.where(step == 0, 1.0, np.sqrt(1.0 - self.correlation**2))
        scale = np.where(lag >= 0, self.correlation ** np.maximum(lag, 0) * new, 0.0)
        scale = np.kron(scale, np.eye(self.num_channels)).astype(np.float32)
        return tfd.MultivariateNormalTriL(tf.zeros([self.latent_dim]), scale)

    def get_config(self) -> dict[str, Any]:
        names = ("latent_dim", "correlation", "num_channels", "name")
        return {name: getattr(self, name) for name in names}
