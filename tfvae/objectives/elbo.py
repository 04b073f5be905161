"""The evidence lower bound by the two estimators of arXiv 1312.6114, section 2.3, and one between them."""

import keras
import tensorflow as tf

from tfvae.objectives.terms import Estimate, Terms


@keras.saving.register_keras_serializable("tfvae")
def elbo_a(terms: Terms) -> Estimate:
    """Estimator A, equation 6: L = (1/K) Σ log p(x, z) - log q(z|x).

    Example:
        >>> elbo_a(terms).bound.numpy().tolist()
        [4.0, 4.0]
    """
    bound = tf.reduce_mean(terms.log_weight, axis=0)
    return Estimate(bound, bound)


@keras.saving.register_keras_serializable("tfvae")
def elbo_b(terms: Terms) -> Estimate:
    """Estimator B, equation 7: L = -KL(q(z|x)‖p(z)) + (1/K) Σ log p(x|z).

    Raises:
        ValueError: If this pair of posterior and prior has no closed-form KL.

    Example:
        >>> elbo_b(terms).bound.numpy().tolist()
        [2.0, 2.0]
    """
    if not terms.kl_is_exact:
        raise ValueError(
            "Estimator B needs a closed-form KL, which TFP does not know for this posterior and prior. "
            "Use objectives.elbo_a, or objectives.elbo, which chooses."
        )
    bound = tf.reduce_mean(terms.log_likelihood, axis=0) - terms.kl
    return Estimate(bound, bound)


@keras.saving.register_keras_serializable("tfvae")
def elbo_entropy(terms: Terms) -> Estimate:
    """Between A and B: L = H(q(z|x)) + (1/K) Σ log p(x, z), H the entropy, for a prior that has no closed-form KL.

    A has no noise where q(z|x) is p(z|x), this has less where p(x, z) hardly changes over q(z|x), as early in training.

    Raises:
        ValueError: If TFP knows no entropy of the posterior, as of a flow or a mixture.

    Example:
        >>> elbo_entropy(terms).bound.numpy().round(4).tolist()  # 3 + 2 + log(2πe) / 2
        [6.418900012969971, 6.418900012969971]
    """
    try:
        entropy = tf.add_n([latent.posterior.entropy() for latent in terms.latents])
    except NotImplementedError as error:
        raise ValueError(f"The entropy of the posterior has no closed form: take objectives.elbo_a. {error}") from None
    bound = entropy + tf.reduce_mean(terms.log_joint, axis=0)
    return Estimate(bound, bound)


@keras.saving.register_keras_serializable("tfvae")
def elbo(terms: Terms) -> Estimate:
    """The ELBO by estimator B where KL(q‖p) has a closed form, by estimator A where it has none.

    Example:
        >>> elbo(terms).bound.numpy().tolist()  # the KL of these terms is exact
        [2.0, 2.0]
    """
    return elbo_b(terms) if terms.kl_is_exact else elbo_a(terms)
