"""A learned mixture of normals."""

import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfvae import families
from tfvae.arguments import check_at_least
from tfvae.priors.base import Prior

_LOWEST_SCALE = 1e-5
_ONE = math.log(math.expm1(1.0 - _LOWEST_SCALE))  # softplus makes a scale of 1 of it


@keras.saving.register_keras_serializable("tfvae")
class Mixture(Prior):
    """p(z) = Σ_c π_c N(z; m_c, diag(s_c)²), with weights, means and scales learned.

    It starts from equal weights, means drawn from N(0, I) and scales of 1; ``priors.fit`` starts it from
    scikit-learn's expectation maximisation.

    Args:
        latent_dim: D.
        num_components: C.
        name: Keras's.

    Example:
        >>> Mixture(2, num_components=10)().sample(5, seed=(0, 1)).shape
        TensorShape([5, 2])
    """

    def __init__(self, latent_dim: int, num_components: int = 10, name: str = "prior"):
        super().__init__(latent_dim, name=name)
        check_at_least(1, num_components=num_components)
        self.num_components = int(num_components)
        shape = (self.num_components, self.latent_dim)
        self.logits = self.add_weight(name="logits", shape=shape[:1], initializer="zeros")
        self.locs = self.add_weight(name="locs", shape=shape, initializer=keras.initializers.RandomNormal(stddev=1.0))
        self.raw_scales = self.add_weight(name="raw_scales", shape=shape, initializer=keras.initializers.Constant(_ONE))

    def distribution(self, condition: tf.Tensor | None = None) -> tfd.Distribution:
        """See ``Prior.distribution``."""
        scales = _LOWEST_SCALE + tf.nn.softplus(self.raw_scales.value)
        components = tfd.Independent(families.Normal(tf.convert_to_tensor(self.locs.value), scales), 1)
        return tfd.MixtureSameFamily(tfd.Categorical(logits=tf.convert_to_tensor(self.logits.value)), components)

    def initialize(self, z: np.ndarray, seed: int) -> None:
        """See ``Prior.initialize``: the maximum likelihood of the draws, by scikit-learn."""
        if len(z) < self.num_components:
            raise ValueError(f"A mixture of {self.num_components} needs as many rows at least, received {len(z)}.")
        from tfvae.pipelines import extras  # here: the pipelines are no part of the package's own import

        with extras.needed("sklearn"):
            import sklearn.mixture  # here alone: who does not fit a mixture needs no scikit-learn

        fitted = sklearn.mixture.GaussianMixture(self.num_components, covariance_type="diag", random_state=seed)
        fitted.fit(z)
        self.logits.assign(np.log(fitted.weights_))
        self.locs.assign(fitted.means_)
        scales = np.maximum(np.sqrt(fitted.covariances_) - _LOWEST_SCALE, _LOWEST_SCALE)
        self.raw_scales.assign(np.log(np.expm1(scales)))

    def get_config(self) -> dict[str, Any]:
        return {"latent_dim": self.latent_dim, "num_components": self.num_components, "name": self.name}
