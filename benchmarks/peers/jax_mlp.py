"""The VAE in JAX: an epoch is one ``lax.scan``, the rows are gathered inside it, Adam is optax's.

python -m benchmarks.peers.jax_mlp ROWS.npy BATCH
"""

import functools
import sys

import jax
import numpy as np
import optax
from jax import numpy as jnp

from benchmarks.peers.turns import take_turns

EPOCHS, HIDDEN, LATENT = 3, 500, 20


def initial(key: jax.Array, pixels: int) -> list[tuple[jax.Array, jax.Array]]:
    sizes = [(pixels, HIDDEN), (HIDDEN, 2 * LATENT), (LATENT, HIDDEN), (HIDDEN, pixels)]
    glorot = jax.nn.initializers.glorot_uniform()
    keys = jax.random.split(key, len(sizes))
    return [(glorot(k, size), jnp.zeros(size[1])) for k, size in zip(keys, sizes, strict=True)]


def negative_elbo(weights: list[tuple[jax.Array, jax.Array]], x: jax.Array, key: jax.Array) -> jax.Array:
    """Of a batch, the mean over its rows."""
    (w1, b1), (w2, b2), (w3, b3), (w4, b4) = weights
    loc, raw_scale = jnp.split(jnp.tanh(x @ w1 + b1) @ w2 + b2, 2, axis=-1)
    scale = jax.nn.softplus(raw_scale)
    z = loc + scale * jax.random.normal(key, scale.shape)
    logits = jnp.tanh(z @ w3 + b3) @ w4 + b4
    reconstruction = jnp.sum(optax.sigmoid_binary_cross_entropy(logits, x), axis=-1)
    kl = jnp.sum(0.5 * (loc**2 + scale**2 - 1) - jnp.log(scale), axis=-1)
    return jnp.mean(reconstruction + kl)


def main(path: str, batch_size: int) -> None:
    data = jnp.asarray(np.load(path))
    steps = len(data) // batch_size
    optimizer = optax.adam(1e-3)
    weights = initial(jax.random.key(0), data.shape[1])
    state = weights, optimizer.init(weights), jax.random.key(1)

    @functools.partial(jax.jit, donate_argnums=0)
    def epoch(state, data):
        weights, moments, key = state
        key, order, noise = jax.random.split(key, 3)
        rows = jax.random.permutation(order, len(data))[: steps * batch_size].reshape(steps, batch_size)

        def step(carry, inputs):
            weights, moments = carry
            rows, key = inputs
            loss, gradients = jax.value_and_grad(negative_elbo)(weights, data[rows], key)
            updates, moments = optimizer.update(gradients, moments)
            return (optax.apply_updates(weights, updates), moments), loss

        (weights, moments), losses = jax.lax.scan(step, (weights, moments), (rows, jax.random.split(noise, steps)))
        return (weights, moments, key), losses.mean()

    def turn() -> tuple[int, list[float]]:
        nonlocal state
        losses = []
        for _ in range(EPOCHS):
            state, loss = epoch(state, data)
            losses.append(float(loss))
        return EPOCHS * steps * batch_size, losses

    take_turns(turn)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
