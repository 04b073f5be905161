"""The score function's gradient, arXiv 1312.6114, section 2.2."""

import keras
import tensorflow as tf

from tfvae.objectives.terms import Estimate, Terms


@keras.saving.register_keras_serializable("tfvae")
def score_function(terms: Terms) -> Estimate:
    """Estimator A with the gradient of section 2.2, E[f(z) ∇ log q(z|x)]: the high-variance reference.

    No gradient flows through z: the encoder learns from log w times ∇ log q(z|x), the decoder as ever from
    ∇ log p(x|z).

    Example:
        >>> score_function(terms).bound.numpy().tolist()
        [4.0, 4.0]
    """
    log_weight = tf.stop_gradient(terms.log_weight)
    surrogate = log_weight * terms.log_posterior_at_held_z + terms.log_likelihood + terms.log_prior
    return Estimate(tf.reduce_mean(log_weight, axis=0), tf.reduce_mean(surrogate, axis=0), path_weight=0.0)
