"""Draws and moments of any distribution, of q(z|x), p(x|z) and p(z) alike, where TFP has no formula either."""

import contextlib

import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfvae.engine import replicas
from tfvae.families import facts
from tfvae.families.flow import Flow
from tfvae.families.random import stratified_normal

_NUM_DRAWS = 100  # where a mean has no formula
# TFP makes an object of the base class where a part is no composite tensor, as a flow's network is not.
_FLOW = tfd.TransformedDistribution.__bases__[0]
_PRODUCTS = tuple(kind.__bases__[0] for kind in (tfd.Independent, tfd.Sample))


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
    if isinstance(distribution, Flow):
        return distribution.forward(from_noise(distribution.base, noise))[0]
    if isinstance(distribution, _FLOW):
        return distribution.bijector.forward(from_noise(distribution.distribution, noise))
    if not isinstance(distribution, _PRODUCTS):
        raise NotImplementedError(f"{type(distribution).__name__} has no inverse CDF for each coordinate.")
    marginal = distribution.distribution
    if isinstance(marginal, tfd.Normal):
        return marginal.loc + marginal.scale * noise
    return marginal.quantile(tfd.Normal(0.0, 1.0).cdf(noise))


def from_noise_with_log_prob(distribution: tfd.Distribution, noise: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """``from_noise``, and the log-density of what it gives, nats: of a flow without the way back.

    Example:
        >>> z, log_prob = from_noise_with_log_prob(tfd.Independent(tfd.Normal([1.0], [2.0]), 1), tf.constant([[0.0]]))
        >>> z.numpy().tolist(), log_prob.numpy().round(4).tolist()
        ([[1.0]], [-1.6121000051498413])
    """
    if not isinstance(distribution, Flow):
        z = from_noise(distribution, noise)
        return z, distribution.log_prob(z)
    z, log_prob = from_noise_with_log_prob(distribution.base, noise)
    z, log_det = distribution.forward(z)
    return z, log_prob - log_det


def mean(distribution: tfd.Distribution) -> tf.Tensor:
    """The mean, ``[B, *event]``; where it does not exist (Cauchy, Student's t with df <= 1), the mode.

    Of numbers that stand for classes or items (``Categorical``, ``OrderedLogistic``, ``PlackettLuce``) it is the mode,
    the likeliest: halfway between the classes 0 and 2 there is no class.

    Where TFP has no formula it is the mean of 100 fixed draws, the same for the same row. Of what standard normal noise
    leads to, as a flow, they are stratified: 0.01 of a standard deviation from the truth on trained flows, 2 % in
    ``stddev``. Of others (a relaxed Bernoulli) they are independent, with an error of 0.1 of a standard deviation.

    Example:
        >>> mean(tfd.Independent(tfd.Gamma([[2.0]], 1.0), 1)).numpy().tolist()
        [[2.0]]
        >>> mean(tfd.Independent(tfd.Categorical([[0.0, 2.0, 1.5]]), 1)).numpy().tolist()
        [1.0]
    """
    known = facts.of(distribution)
    if known is not None and known.support.is_name:
        with contextlib.suppress(NotImplementedError):
            return tf.cast(distribution.mode(), tf.float32)
    try:
        value = distribution.mean()
    except NotImplementedError:
        return tf.reduce_mean(_draws(distribution), axis=0)
    if known is not None and known.has_mean:
        return value
    try:
        return tf.where(tf.math.is_finite(value), value, tf.cast(distribution.mode(), value.dtype))
    except NotImplementedError:
        return value


def stddev(distribution: tfd.Distribution) -> tf.Tensor:
    """The standard deviation, ``[B, *event]``; infinite where it does not exist, of draws as ``mean`` is."""
    known = facts.of(distribution)
    try:
        if known is not None and known.support is facts.SPHERE:
            return tf.sqrt(tf.linalg.diag_part(distribution.covariance()))
        value = distribution.stddev()
    except NotImplementedError:
        return tf.math.reduce_std(_draws(distribution), axis=0)
    return tf.where(tf.math.is_nan(value), float("inf"), value)


def _draws(distribution: tfd.Distribution) -> tf.Tensor:
    """By the same noise for every row where that leads to them, so that a row's mean is no matter of its batch."""
    event = distribution.event_shape
    shape = [_NUM_DRAWS, *[1] * distribution.batch_shape.rank, *event]
    with contextlib.suppress(NotImplementedError):
        noise = stratified_normal(_NUM_DRAWS, event.num_elements()).reshape(shape)
        return tf.cast(from_noise(distribution, tf.constant(noise)), tf.float32)
    return tf.cast(replicas.sample(distribution, tf.constant([0, 0]), sample_shape=[_NUM_DRAWS]), tf.float32)
