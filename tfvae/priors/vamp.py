"""The VampPrior (Tomczak & Welling, arXiv 1705.07120)."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfvae.arguments import check_at_least, check_room, checked_shape, found_by
from tfvae.distribution_layer import CONSTRAINTS
from tfvae.priors.base import Encode, Prior

_RANGES = dict.fromkeys(CONSTRAINTS, (0.0, np.inf)) | {"sigmoid": (0.0, 1.0), "identity": (-np.inf, np.inf)}


@keras.saving.register_keras_serializable("tfvae")
class VampPrior(Prior):
    """p(z) = (1/C) Σ_c q(z|u_c) for learned pseudo-inputs u_c (equation 9): a mixture that the encoder makes.

    Each step runs the encoder on the C pseudo-inputs as well, as in inference: batch statistics do not see them.

    Args:
        latent_dim: D.
        x_shape: Shape of one observation.
        num_components: C; the paper takes 500.
        constraint: What keeps a pseudo-input among the observations: sigmoid for pixels, identity for real values,
            softplus for positive ones.
        initial: Where they start, floats ``[C, *x_shape]`` on the scale that the encoder sees: rows of the training
            data, say, bytes divided by 255. N(0.05, 0.01²) by default, the authors' choice for pictures.
        name: Keras's.

    Raises:
        ValueError: For an unknown constraint, or initial pseudo-inputs that it cannot give.

    Example:
        >>> from tfvae import VAE, likelihoods, networks, posteriors
        >>> vae = VAE(networks.mlp([4]), networks.mlp([4]), posteriors.diagonal_normal(2), likelihoods.bernoulli([8]),
        ...           prior=VampPrior(2, [8], num_components=5))
        >>> vae.prior().components_distribution.batch_shape
        TensorShape([5])
    """

    def __init__(
        self,
        latent_dim: int,
        x_shape: Sequence[int],
        num_components: int = 500,
        constraint: str = "sigmoid",
        initial: Any = None,
        name: str = "prior",
    ):
        super().__init__(latent_dim, name=name)
        check_at_least(1, num_components=num_components)
        found_by(CONSTRAINTS.__getitem__, "constraint", constraint, f"one of {', '.join(CONSTRAINTS)}")
        self.x_shape, self.num_components = checked_shape("x_shape", x_shape), int(num_components)
        self.constraint, self._bijector = constraint, CONSTRAINTS[constraint]()
        self._encode: Encode | None = None
        shape = (self.num_components, *self.x_shape)
        check_room("The pseudo-inputs", *shape)
        self.raw_inputs = self.add_weight(name="raw_inputs", shape=shape, initializer="zeros")
        start = keras.random.normal(shape, 0.05, 0.01) if initial is None else initial
        numbers = "floats [C, *x_shape], rows of the training data, say, as the encoder sees them: bytes divided by 255"
        self._start_from(found_by(_floats, "initial", start, numbers))

    def _start_from(self, inputs: np.ndarray) -> None:
        if inputs.shape != self.raw_inputs.shape:
            raise ValueError(
                f"The initial pseudo-inputs have shape {inputs.shape}, expected {tuple(self.raw_inputs.shape)}."
            )
        low, high = _RANGES[self.constraint]
        if not ((low <= inputs) & (inputs <= high) & np.isfinite(inputs)).all():
            raise ValueError(
                f"The initial pseudo-inputs are from {inputs.min():g} to {inputs.max():g}, which the constraint "
                f"{self.constraint!r} cannot give, expected finite numbers from {low:g} to {high:g}: 'identity' is for "
                "real values, 'softplus' for positive ones."
            )
        if self.constraint != "identity":  # black and white pixels are what only an infinite number gives
            inputs = np.clip(inputs, 1e-3, high - 1e-3)
        self.raw_inputs.assign(self._bijector.inverse(tf.constant(inputs)))

    @property
    def pseudo_inputs(self) -> tf.Tensor:
        """u, ``[C, *x_shape]``, as floats of the encoder's scale."""
        return self._bijector(tf.convert_to_tensor(self.raw_inputs.value))

    def bind(self, encode: Encode) -> None:
        """See ``Prior.bind``."""
        self._encode = encode

    def distribution(self, condition: tf.Tensor | None = None) -> tfd.Distribution:
        """See ``Prior.distribution``.

        Raises:
            ValueError: Before a VAE has taken it as its prior.
        """
        if self._encode is None:
            raise ValueError("A VampPrior is made of a model's encoder: pass it to VAE(prior=...), or call bind.")
        weights = tfd.Categorical(logits=tf.zeros([self.num_components]))
        return tfd.MixtureSameFamily(weights, self._encode(self.pseudo_inputs))

    def get_config(self) -> dict[str, Any]:
        names = ("latent_dim", "x_shape", "num_components", "constraint", "name")
        return {name: getattr(self, name) for name in names}


def _floats(given: Any) -> np.ndarray:
    found = np.asarray(given)
    if found.dtype == np.uint8:
        raise TypeError("The model may divide them by 255, which the prior does not know.")
    return found.astype(np.float32)
