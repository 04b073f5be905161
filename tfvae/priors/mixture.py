"""A learned mixture of normals."""

import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import bijectors as tfb
from tensorflow_probability import distributions as tfd

from tfvae import families
from tfvae.arguments import check_at_least, check_room
from tfvae.priors.base import Prior

_LOWEST_SCALE = 1e-5
_ONE = math.log(math.expm1(1.0 - _LOWEST_SCALE))  # softplus makes a scale of 1 of it


def _triangle() -> tfb.FillScaleTriL:
    # Not of the module: it makes a tensor, and a process in which TensorFlow has run cannot be forked.
    return tfb.FillScaleTriL(diag_shift=_LOWEST_SCALE)


@keras.saving.register_keras_serializable("tfvae")
class Mixture(Prior):
    """p(z) = Σ_c π_c N(z; m_c, diag(s_c)²), with weights, means and scales learned.

    It starts from equal weights, means drawn from N(0, I) and scales of 1; ``priors.fit`` starts it from
    scikit-learn's expectation maximisation.

    Args:
        latent_dim: D.
        num_components: C.
        full_covariance: Whether each component has a covariance matrix of its own, by its Cholesky factor.
        name: Keras's.

    Example:
        >>> Mixture(2, num_components=10)().sample(5, seed=(0, 1)).shape
        TensorShape([5, 2])
    """

    def __init__(self, latent_dim: int, num_components: int = 10, full_covariance: bool = False, name: str = "prior"):
        super().__init__(latent_dim, name=name)
        check_at_least(1, num_components=num_components)
        check_room("A mixture", num_components, *[self.latent_dim] * (1 + bool(full_covariance)))
        self.num_components, self.full_covariance = int(num_components), bool(full_covariance)
        shape = (self.num_components, self.latent_dim)
        one = (
            _triangle().inverse(np.eye(self.latent_dim, dtype=np.float32))
            if full_covariance
            else tf.fill(shape[1:], _ONE)
        )
        self.logits = self.add_weight(name="logits", shape=shape[:1], initializer="zeros")
        self.locs = self.add_weight(name="locs", shape=shape, initializer=keras.initializers.RandomNormal(stddev=1.0))
        self.raw_scales = self.add_weight(name="raw_scales", shape=[shape[0], *one.shape], initializer="zeros")
        self.raw_scales.assign(tf.broadcast_to(one, self.raw_scales.shape))

    def distribution(self, condition: tf.Tensor | None = None) -> tfd.Distribution:
        """See ``Prior.distribution``."""
        locs, raw = (tf.convert_to_tensor(weight.value) for weight in (self.locs, self.raw_scales))
        components = (
            tfd.MultivariateNormalTriL(locs, _triangle().forward(raw))
            if self.full_covariance
            else tfd.Independent(families.Normal(locs, _LOWEST_SCALE + tf.nn.softplus(raw)), 1)
        )
        return tfd.MixtureSameFamily(tfd.Categorical(logits=tf.convert_to_tensor(self.logits.value)), components)

    def initialize(self, z: np.ndarray, seed: int) -> None:
        """See ``Prior.initialize``: the maximum likelihood of the draws, by scikit-learn."""
        if len(z) < self.num_components:
            raise ValueError(f"A mixture of {self.num_components} needs as many rows at least, received {len(z)}.")
        from tfvae.pipelines import extras  # here: the pipelines are no part of the package's own import

        with extras.needed("sklearn"):
            import sklearn.mixture  # here alone: who does not fit a mixture needs no scikit-learn

        kind = "full" if self.full_covariance else "diag"
        fitted = sklearn.mixture.GaussianMixture(self.num_components, covariance_type=kind, random_state=seed)
        fitted.fit(z)
        self.logits.assign(np.log(fitted.weights_))
        self.locs.assign(fitted.means_)
        self.raw_scales.assign(self._raw_scales_of(fitted.covariances_))

    def _raw_scales_of(self, covariances: np.ndarray) -> Any:
        if self.full_covariance:
            return _triangle().inverse(tf.constant(np.linalg.cholesky(covariances), tf.float32))
        scales = np.maximum(np.sqrt(covariances) - _LOWEST_SCALE, _LOWEST_SCALE)
        return np.log(np.expm1(scales))

    def get_config(self) -> dict[str, Any]:
        names = ("latent_dim", "num_components", "full_covariance", "name")
        return {name: getattr(self, name) for name in names}
