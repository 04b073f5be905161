"""q(z|x): what a posterior adds to a DistributionLayer.

The paper's section 2.4 asks that z be a differentiable function of the parameters and of independent noise. TFP calls
such a family fully reparameterised; this module checks it and draws from it.
"""

import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfvae.distribution_layer import DistributionLayer
from tfvae.engine import replicas
from tfvae.families import facts


def diagonal_normal(latent_dim: int) -> DistributionLayer:
    """The paper's posterior, q(z|x) = N(mean(x), diag(stddev(x)^2)), section 3.

    Example:
        >>> diagonal_normal(2)(tf.zeros([5, 16])).event_shape
        TensorShape([2])
    """
    return DistributionLayer("Normal", [latent_dim], name="posterior")


def full_normal(latent_dim: int) -> DistributionLayer:
    """q(z|x) = N(mean(x), S(x)) with a full covariance matrix, through its Cholesky factor.

    Example:
        >>> full_normal(2)(tf.zeros([5, 16])).covariance().shape
        TensorShape([5, 2, 2])
    """
    return DistributionLayer("MultivariateNormalTriL", [latent_dim], name="posterior")


def check_posterior(layer: DistributionLayer, posterior: tfd.Distribution) -> None:
    """Raise ValueError unless z can be drawn pathwise and is a vector."""
    if len(layer.event_shape) != 1:
        raise ValueError(
            f"The posterior's event_shape must be [latent_dim], received {list(layer.event_shape)}: "
            "give the latent one axis and reshape it in the decoder."
        )
    if posterior.reparameterization_type != tfd.FULLY_REPARAMETERIZED:
        raise ValueError(
            f"The posterior {layer.family.__name__} has no pathwise gradient. Expected a reparameterised family such "
            "as Normal, Gamma or Dirichlet."
        )


def draw(posterior: tfd.Distribution, num_samples: int, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """z ~ q(z|x), ``[K, B, D]``, strictly inside the support, and log q(z|x), ``[K, B]``, nats.

    A draw that float32 rounds to the end of an open support is moved to the nearest number inside, and the density is
    that of the number it is moved to. Everywhere else the density comes with the draw, so that a flow is not inverted.

    Example:
        >>> z, log_q = draw(tfd.Independent(tfd.Normal(tf.zeros([5, 2]), 1.0), 1), 3, tf.constant([0, 1]))
        >>> z.shape, log_q.shape
        (TensorShape([3, 5, 2]), TensorShape([3, 5]))
    """
    known = facts.of(posterior)
    if known is None or not known.support.is_open:
        return replicas.sample_and_log_prob(posterior, seed, sample_shape=[num_samples])
    z = known.support.inside(replicas.sample(posterior, seed, sample_shape=[num_samples]))
    return z, posterior.log_prob(z)
