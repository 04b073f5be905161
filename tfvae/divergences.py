"""KL(q‖p) where it has a closed form, whole and by unit: pure functions of two distributions."""

import tensorflow as tf
from tensorflow_probability import distributions as tfd


def closed_form_kl(posterior: tfd.Distribution, prior: tfd.Distribution) -> tf.Tensor | None:
    """KL(q(z|x)‖p(z)) in nats, ``[B]``, or None where TFP knows no closed form.

    For two diagonal normals this is the paper's appendix B.

    Example:
        >>> q = tfd.Independent(tfd.Normal([[0.5]], [[0.6065307]]), 1)
        >>> p = tfd.Independent(tfd.Normal([0.0], [1.0]), 1)
        >>> round(float(closed_form_kl(q, p)[0]), 6)
        0.30894
    """
    pairs = [(posterior, prior)]
    if isinstance(posterior, tfd.MultivariateNormalLinearOperator):
        pairs.append((posterior, _as_multivariate(prior)))
    for q, p in pairs:
        try:
            return tfd.kl_divergence(q, p)
        except NotImplementedError:
            continue
    return None


def kl_by_unit(posterior: tfd.Distribution, prior: tfd.Distribution, z: tf.Tensor) -> tf.Tensor:
    """KL(q(z_d|x)‖p(z_d)) of each unit d in nats, ``[B, D]``, for distributions whose units are independent.

    Where the marginals have no closed form it is the mean of log q(z_d|x) - log p(z_d) over the samples z
    ``[K, B, D]``. A posterior or prior that ties its units together has no KL of a unit: it is one unit, ``[B, 1]``.

    Example:
        >>> q = tfd.Independent(tfd.Normal([[0.5, 0.0]], [[0.6065307, 1.0]]), 1)
        >>> p = tfd.Independent(tfd.Normal([0.0, 0.0], [1.0, 1.0]), 1)
        >>> [round(float(kl), 5) for kl in kl_by_unit(q, p, q.sample(1))[0]]
        [0.30894, 0.0]
    """
    if not (has_independent_units(posterior) and has_independent_units(prior)):
        kl = closed_form_kl(posterior, prior)
        kl = tf.reduce_mean(posterior.log_prob(z) - prior.log_prob(z), axis=0) if kl is None else kl
        return kl[..., tf.newaxis]
    q, p = posterior.distribution, prior.distribution
    try:
        return tfd.kl_divergence(q, p)
    except NotImplementedError:
        return tf.reduce_mean(q.log_prob(z) - p.log_prob(z), axis=0)


def has_independent_units(distribution: tfd.Distribution) -> bool:
    """Whether every unit of z has a scalar distribution of its own.

    Example:
        >>> has_independent_units(tfd.Independent(tfd.Normal([0.0, 1.0], 1.0), 1))
        True
    """
    return isinstance(distribution, tfd.Independent) and distribution.distribution.event_shape.rank == 0


def _as_multivariate(prior: tfd.Distribution) -> tfd.Distribution:
    """The same prior as a multivariate normal, if it is a product of normals: TFP pairs KLs by class."""
    normal = getattr(prior, "distribution", None)
    if not isinstance(prior, tfd.Independent) or not isinstance(normal, tfd.Normal):
        return prior
    ones = tf.ones(prior.event_shape)
    return tfd.MultivariateNormalDiag(normal.loc * ones, normal.scale * ones)
