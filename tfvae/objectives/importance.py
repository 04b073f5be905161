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
