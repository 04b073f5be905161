"""q(z|x): what a posterior adds to a DistributionLayer.

The paper's section 2.4 asks that z be a differentiable function of the parameters and of independent noise. TFP calls
such a family fully reparameterised; this module checks it and draws from it.
"""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfvae.arguments import check_latent_dim
from tfvae.distribution_layer import DistributionLayer
from tfvae.engine import replicas
from tfvae.families import facts
from tfvae.flows.posterior import FlowPosterior


def diagonal_normal(latent_dim: int) -> DistributionLayer:
    """The paper's posterior, q(z|x) = N(mean(x), diag(stddev(x)^2)), section 3.

    Example:
        >>> diagonal_normal(2)(tf.zeros([5, 16])).event_shape
        TensorShape([2])
    """
    return _layer("Normal", latent_dim)


def full_normal(latent_dim: int) -> DistributionLayer:
    """q(z|x) = N(mean(x), S(x)) with a full covariance matrix, through its Cholesky factor.

    Example:
        >>> full_normal(2)(tf.zeros([5, 16])).covariance().shape
        TensorShape([5, 2, 2])
    """
    return _layer("MultivariateNormalTriL", latent_dim)


def low_rank_normal(latent_dim: int, rank: int = 5) -> DistributionLayer:
    """q(z|x) = N(mean(x), diag(d(x)) + V(x) V(x)ᵀ) with V ``[D, rank]``: between a diagonal and a full covariance.

    Example:
        >>> low_rank_normal(8, rank=2)(tf.zeros([5, 16])).covariance().shape
        TensorShape([5, 8, 8])
    """
    return _layer("MultivariateNormalDiagPlusLowRankCovariance", latent_dim, rank=rank)


def normal_mixture(latent_dim: int, num_components: int = 4, stratified: bool = False) -> DistributionLayer:
    """q(z|x) = Σ_c π_c(x) N(mean_c(x), diag(stddev_c(x)²)), drawn pathwise, its proportions included.

    ``stratified`` gives each component its share of a row's K samples, which takes noise out of bounds and gradients
    where K > 1; see ``families.StratifiedNormalMixture``.

    Example:
        >>> normal_mixture(2)(tf.zeros([5, 16])).components_distribution.batch_shape
        TensorShape([5, 4])
    """
    family = "StratifiedNormalMixture" if stratified else "NormalMixture"
    return _layer(family, latent_dim, num_components=num_components)


def truncated_normal(latent_dim: int, low: float = -1.0, high: float = 1.0) -> DistributionLayer:
    """q(z|x) = N(loc(x), diag(scale(x)²)) between ``low`` and ``high``.

    Its prior is ``priors.Family("Uniform", [latent_dim], low=low, high=high)``: KL is exact.

    Example:
        >>> bool(tf.reduce_all(tf.abs(truncated_normal(3)(tf.zeros([5, 16])).sample(seed=(0, 1))) < 1.0))
        True
    """
    return _layer("TruncatedNormal", latent_dim, low=low, high=high)


def power_spherical(latent_dim: int) -> DistributionLayer:
    """q(z|x) on the unit sphere, ∝ (1 + mean(x)ᵀz)^concentration(x) (De Cao & Aziz, arXiv 2006.04437).

    Its prior is the uniform one, ``priors.Family("SphericalUniform", [latent_dim])``: KL is exact.

    Example:
        >>> power_spherical(3)(tf.zeros([5, 16])).event_shape
        TensorShape([3])
    """
    return _layer("PowerSpherical", latent_dim)


def planar(latent_dim: int, num_flows: int = 10) -> DistributionLayer:
    """A diagonal normal through planar flows, whose every number is a function of x; see ``families.PlanarFlow``.

    Example:
        >>> planar(2)(tf.zeros([5, 16])).event_shape
        TensorShape([2])
    """
    return _layer("PlanarFlow", latent_dim, num_flows=num_flows)


def sylvester(latent_dim: int, num_flows: int = 4) -> DistributionLayer:
    """A diagonal normal through Sylvester flows, functions of x as in ``planar``; see ``families.SylvesterFlow``.

    Example:
        >>> sylvester(2)(tf.zeros([5, 16])).event_shape
        TensorShape([2])
    """
    return _layer("SylvesterFlow", latent_dim, num_flows=num_flows)


def inverse_autoregressive(latent_dim: int, num_flows: int = 2, hidden: Sequence[int] = (320,)) -> FlowPosterior:
    """A diagonal normal through inverse autoregressive flows (Kingma et al., arXiv 1606.04934) that see the features.

    z ← σ z + (1 - σ) m, with σ and m of a ``networks.Masked``: one call of it a flow for a draw with its density; D
    calls for the density of a number that was given.

    Example:
        >>> inverse_autoregressive(2, hidden=[8])(tf.zeros([5, 16])).event_shape
        TensorShape([2])
    """
    return FlowPosterior(latent_dim, num_flows, "gate", hidden)


def coupling(
    latent_dim: int, num_flows: int = 4, transform: str = "affine", hidden: Sequence[int] = (64, 64)
) -> FlowPosterior:
    """A diagonal normal through coupling layers that see the features: cheap to draw from and to score.

    Args:
        latent_dim: D.
        num_flows: Layers; the halves of z take turns.
        transform: "affine" (RealNVP, arXiv 1605.08803) or "spline" (neural spline flows, arXiv 1906.04032).
        hidden: Hidden units of each network.

    Example:
        >>> coupling(2, hidden=[8])(tf.zeros([5, 16])).event_shape
        TensorShape([2])
    """
    return FlowPosterior(latent_dim, num_flows, transform, hidden, is_coupling=True)


def _layer(family: str, latent_dim: int, **fixed: Any) -> DistributionLayer:
    check_latent_dim(latent_dim)
    return DistributionLayer(family, [latent_dim], name="posterior", **fixed)


def check_posterior(layer: DistributionLayer, posterior: tfd.Distribution) -> None:
    """Raise ValueError unless z can be drawn pathwise and is a vector."""
    if len(layer.event_shape) != 1:
        raise ValueError(
            f"The posterior's event_shape must be [latent_dim], received {list(layer.event_shape)}: "
            "give the latent one axis and reshape it in the decoder."
        )
    if layer.missing:
        raise ValueError("The posterior leaves out what is missing, but no number of z is: pass it without missing.")
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
