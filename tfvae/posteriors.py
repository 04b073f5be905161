"""q(z|x): what a posterior adds to a DistributionLayer.

The paper's section 2.4 asks that z be a differentiable function of the parameters and of independent noise. TFP calls
such a family fully reparameterised; this module checks it, draws from it, and summarises it for an embedding.
"""

import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfvae.distribution_layer import DistributionLayer
from tfvae.engine import replicas
from tfvae.families import facts

_NUM_DRAWS = 100  # where a mean has no formula
# TFP makes an object of the base class where a part is no composite tensor, as a flow's network is not.
_FLOW = tfd.TransformedDistribution.__bases__[0]
_PRODUCTS = tuple(kind.__bases__[0] for kind in (tfd.Independent, tfd.Sample))


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
        return replicas.sample_and_log_prob(posterior, seed, before=[num_samples])
    z = known.support.inside(replicas.sample(posterior, seed, before=[num_samples]))
    return z, posterior.log_prob(z)


def from_noise(distribution: tfd.Distribution, noise: tf.Tensor) -> tf.Tensor:
    """z = g(noise) for standard normal noise ``[..., D]``, so that z is distributed as ``distribution``.

    Normals are shifted and scaled (section 2.4, ii); other families go through their inverse CDF (section 2.4, i), and
    a flow through its bijectors (section 2.4, iii).

    Raises:
        NotImplementedError: Where TFP knows no inverse CDF (Dirichlet).

    Example:
        >>> from_noise(tfd.Independent(tfd.Normal([1.0], [2.0]), 1), tf.constant([[3.0]])).numpy().tolist()
        [[7.0]]
    """
    if isinstance(distribution, tfd.MultivariateNormalLinearOperator):
        return distribution.loc + distribution.scale.matvec(noise)
    if isinstance(distribution, tfd.MultivariateNormalDiagPlusLowRankCovariance):
        return distribution.mean() + tf.linalg.matvec(tf.linalg.cholesky(distribution.covariance()), noise)
    if isinstance(distribution, _FLOW):
        return distribution.bijector.forward(from_noise(distribution.distribution, noise))
    if not isinstance(distribution, _PRODUCTS):
        raise NotImplementedError(f"{type(distribution).__name__} has no inverse CDF for each coordinate.")
    marginal = distribution.distribution
    if isinstance(marginal, tfd.Normal):
        return marginal.loc + marginal.scale * noise
    return marginal.quantile(tfd.Normal(0.0, 1.0).cdf(noise))


def mean(posterior: tfd.Distribution) -> tf.Tensor:
    """The mean of q(z|x), ``[B, D]``; where it does not exist (Cauchy, Student's t with df <= 1), the mode.

    Where TFP has no formula, as for a flow, it is the mean of 100 draws of a fixed seed: the same for the same row, and
    within a tenth of a standard deviation of the truth two times in three.

    Example:
        >>> mean(tfd.Independent(tfd.Gamma([[2.0]], 1.0), 1)).numpy().tolist()
        [[2.0]]
    """
    try:
        value = posterior.mean()
    except NotImplementedError:
        return tf.reduce_mean(_draws(posterior), axis=0)
    try:
        return tf.where(tf.math.is_finite(value), value, tf.cast(posterior.mode(), value.dtype))
    except NotImplementedError:
        return value


def stddev(posterior: tfd.Distribution) -> tf.Tensor:
    """The standard deviation of q(z|x), ``[B, D]``; infinite where it does not exist, of draws as ``mean`` is."""
    known = facts.of(posterior)
    try:
        if known is not None and known.support is facts.SPHERE:
            return tf.sqrt(tf.linalg.diag_part(posterior.covariance()))
        value = posterior.stddev()
    except NotImplementedError:
        return tf.math.reduce_std(_draws(posterior), axis=0)
    return tf.where(tf.math.is_nan(value), float("inf"), value)


def _draws(distribution: tfd.Distribution) -> tf.Tensor:
    return tf.cast(replicas.sample(distribution, tf.constant([0, 0]), before=[_NUM_DRAWS]), tf.float32)
