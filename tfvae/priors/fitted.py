"""A prior that is fitted after training: a sampler of the aggregate posterior, (1/N) Σ q(z|x_n)."""

import functools
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfvae.arguments import check_at_least, check_kind
from tfvae.engine import xla
from tfvae.priors.base import Prior, check_latent_dims


def fit(
    prior: Prior,
    vae: Any,
    x: Any,
    epochs: int = 20,
    batch_size: int = 1000,
    learning_rate: float = 1e-3,
    seed: int = 0,
) -> Prior:
    """Fit a prior to the aggregate posterior of a trained VAE: the maximum of E_q(z|x)[log p(z)] over the rows.

    That is what p(z) adds to the ELBO, so that it can only rise; encoder and decoder stay as they are. The draws are
    new in each epoch: their means alone would make too narrow a prior. ``vae.with_prior(prior)`` is the model with it.

    Args:
        prior: A prior with weights, which change.
        vae: The model whose posterior is drawn from.
        x: Rows, as ``vae.fit`` takes them in memory.
        epochs: Passes over the rows.
        batch_size: Rows of a step of Adam.
        learning_rate: Adam's at the start; it falls to a tenth.
        seed: Fixes the draws and the order.

    Returns:
        The prior.

    Raises:
        ValueError: If the prior has nothing to learn, or is of another z.

    Example:
        >>> from tfvae import VAE, likelihoods, networks, posteriors, priors
        >>> vae = VAE(networks.mlp([4]), networks.mlp([4]), posteriors.diagonal_normal(2), likelihoods.bernoulli([8]))
        >>> prior = fit(priors.Mixture(2, num_components=3), vae, np.eye(8, dtype="float32"), epochs=1)
        >>> vae.with_prior(prior).sample(4, seed=0).shape
        (4, 8)
    """
    check_kind("prior", prior, Prior, "one of priors, such as priors.Mixture(2)")
    if not hasattr(vae, "bind"):
        check_kind("vae", vae, (), "a tfvae.VAE")
    check_at_least(1, epochs=epochs, batch_size=batch_size)
    if prior.of_rows:
        raise ValueError(
            f"A {type(prior).__name__} is trained with its model, which tells it which rows to leave out: pass it to "
            "VAE(prior=...), or fit another, such as priors.Mixture."
        )
    check_latent_dims(prior, vae.latent_dim)
    vae.bind(prior)
    variables = prior.trainable_variables
    if not variables:
        raise ValueError(f"The prior {type(prior).__name__} has no weights to fit: give it some, with shared=, say.")
    rng = np.random.default_rng(seed)
    draws = vae.draws(x, seed=seed)
    prior.initialize(draws, seed)
    steps = epochs * -(-len(draws) // batch_size)
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, steps, alpha=0.1)
    optimizer = keras.optimizers.Adam(schedule)
    optimizer.build(variables)

    @functools.partial(xla.as_graph, reduce_retracing=True)
    def step(z: tf.Tensor, seed: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            loss = -tf.reduce_mean(prior.in_training(None, seed).log_prob(z))
        optimizer.apply(tape.gradient(loss, variables), variables)

    for epoch in range(epochs):
        z = rng.permutation(draws if epoch == 0 else vae.draws(x, seed=seed + epoch))
        for start in range(0, len(z), batch_size):
            step(tf.constant(z[start : start + batch_size]), tf.constant([seed, epoch * len(z) + start]))
    prior.normalize()
    return prior
