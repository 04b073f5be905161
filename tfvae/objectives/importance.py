"""Bounds and gradients from importance weights w = p(x, z) / q(z|x)."""

import keras
import tensorflow as tf

from tfvae.objectives.terms import Estimate, Terms


@keras.saving.register_keras_serializable("tfvae")
def importance_weighted(terms: Terms) -> Estimate:
    """The importance-weighted bound, log (1/K) Σ w (Burda et al., arXiv 1509.00519, equation 8).

    Example:
        >>> importance_weighted(terms).bound.numpy().tolist()
        [4.0, 4.0]
    """
    log_weight = terms.log_weight
    num_samples = tf.cast(tf.shape(log_weight)[0], log_weight.dtype)
    bound = tf.reduce_logsumexp(log_weight, axis=0) - tf.math.log(num_samples)
    return Estimate(bound, bound)


@keras.saving.register_keras_serializable("tfvae")
def doubly_reparameterized(terms: Terms) -> Estimate:
    """The importance-weighted bound with the doubly reparameterised gradient, DReG (Tucker et al., arXiv 1810.04152).

    For normalised weights w̃ the decoder learns from Σ w̃ ∇ log w as ever, the encoder from Σ w̃² ∇z ∂ log w / ∂z
    (equation 8): the same mean, without the score term whose noise grows with K. With one sample it is
    ``sticking_the_landing``.

    Example:
        >>> doubly_reparameterized(terms).bound.numpy().tolist()
        [4.0, 4.0]
    """
    bound = importance_weighted(terms).bound
    log_weight = terms.log_joint - terms.log_posterior_held
    normalised = tf.stop_gradient(tf.nn.softmax(log_weight, axis=0))
    return Estimate(bound, tf.reduce_sum(normalised * log_weight, axis=0), path_weight=normalised)


@keras.saving.register_keras_serializable("tfvae")
def sticking_the_landing(terms: Terms) -> Estimate:
    """The ELBO without the score term in its gradient (Roeder et al., arXiv 1703.09194).

    log q(z|x) is differentiated through z alone: what is left out has mean zero, and the variance of what remains
    vanishes where q(z|x) is the true posterior. For an importance-weighted bound the same would be biased: take
    ``doubly_reparameterized`` there.

    Example:
        >>> sticking_the_landing(terms).bound.numpy().tolist()
        [4.0, 4.0]
    """
    bound = tf.reduce_mean(terms.log_weight, axis=0)
    return Estimate(bound, tf.reduce_mean(terms.log_joint - terms.log_posterior_held, axis=0))
