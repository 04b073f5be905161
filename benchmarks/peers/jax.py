"""The VAE in JAX: an epoch is one ``lax.scan``, the rows are gathered inside it, Adam is optax's.

python -m benchmarks.peers.jax ROWS.npy {mlp,conv} BATCH [--steps]

With ``--steps`` each step is a program of its own: on a CPU, XLA computes the gradient of a convolution's filters tens
of times slower inside a loop.
"""

import functools
import math
import sys
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax import lax
from jax import numpy as jnp

from benchmarks.peers.turns import take_turns
from benchmarks.sizes import EPOCHS, FILTERS, HIDDEN, IMAGE, LATENT, PIXELS, SMALL

Layer = tuple[jax.Array, jax.Array]  # kernel and bias


class MLP:
    """What each model says of itself: the shapes of its kernels, x -> 2 LATENT numbers, and z -> logits."""

    encoder = ((PIXELS, HIDDEN), (HIDDEN, 2 * LATENT))
    decoder = ((LATENT, HIDDEN), (HIDDEN, PIXELS))
    event_shape = (PIXELS,)

    @staticmethod
    def encode(layers: list[Layer], x: jax.Array) -> jax.Array:
        (w1, b1), (w2, b2) = layers
        return jnp.tanh(x @ w1 + b1) @ w2 + b2

    decode = encode


def doubled(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """``lax.conv_transpose`` of a 3x3 kernel by strides of 2, as one convolution to the four phases of the output.

    On a CPU, XLA computes the gradient of ``lax.conv_transpose``'s kernel twenty times slower.
    """
    batch, height, width, channels = x.shape
    filters = kernel.shape[-1]
    taps = jnp.pad(kernel, ((1, 0), (1, 0), (0, 0), (0, 0))).reshape(2, 2, 2, 2, channels, filters)[:, ::-1, :, ::-1]
    taps = taps.transpose(0, 2, 4, 1, 3, 5).reshape(2, 2, channels, 4 * filters)
    phases = convolution(x, taps, 1, ((1, 0), (1, 0))).reshape(batch, height, width, 2, 2, filters)
    return phases.transpose(0, 1, 3, 2, 4, 5).reshape(batch, 2 * height, 2 * width, filters)


def convolution(x: jax.Array, kernel: jax.Array, stride: int, padding: Any) -> jax.Array:
    dimensions = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=dimensions)


class Conv:
    """See ``MLP``."""

    encoder = ((3, 3, 1, FILTERS[0]), (3, 3, *FILTERS), (math.prod(SMALL), 2 * LATENT))
    decoder = ((LATENT, math.prod(SMALL)), (3, 3, SMALL[-1], FILTERS[1]), (3, 3, *FILTERS[::-1]), (FILTERS[0], 1))
    event_shape = IMAGE

    @staticmethod
    def encode(layers: list[Layer], x: jax.Array) -> jax.Array:
        *convolutions, (w, b) = layers
        for kernel, bias in convolutions:
            x = jax.nn.relu(convolution(x, kernel, 2, "SAME") + bias)
        return x.reshape(len(x), -1) @ w + b

    @staticmethod
    def decode(layers: list[Layer], z: jax.Array) -> jax.Array:
        (w1, b1), *convolutions, (w2, b2) = layers
        features = jax.nn.relu(z @ w1 + b1).reshape(len(z), *SMALL)
        for kernel, bias in convolutions:
            features = jax.nn.relu(doubled(features, kernel) + bias)
        return features @ w2 + b2


MODELS = {"mlp": MLP, "conv": Conv}


class Weights(NamedTuple):
    encoder: list[Layer]
    decoder: list[Layer]


def initial(key: jax.Array, model: type) -> Weights:
    def layers(key: jax.Array, shapes: tuple) -> list[Layer]:
        keys = jax.random.split(key, len(shapes))
        glorot = jax.nn.initializers.glorot_uniform()
        return [(glorot(k, shape), jnp.zeros(shape[-1])) for k, shape in zip(keys, shapes, strict=True)]

    first, second = jax.random.split(key)
    return Weights(layers(first, model.encoder), layers(second, model.decoder))


def negative_elbo(weights: Weights, model: type, x: jax.Array, key: jax.Array) -> jax.Array:
    """Of a batch, the mean over its rows."""
    loc, raw_scale = jnp.split(model.encode(weights.encoder, x), 2, axis=-1)
    scale = jax.nn.softplus(raw_scale)
    logits = model.decode(weights.decoder, loc + scale * jax.random.normal(key, scale.shape))
    reconstruction = jnp.sum(optax.sigmoid_binary_cross_entropy(logits, x))
    kl = jnp.sum(0.5 * (loc**2 + scale**2 - 1) - jnp.log(scale))
    return (reconstruction + kl) / len(x)


def main(path: str, name: str, batch_size: int, in_steps: bool) -> None:
    model = MODELS[name]
    rows = np.load(path)
    data = jnp.asarray(rows.reshape(-1, *model.event_shape))
    steps = len(data) // batch_size
    optimizer = optax.adam(1e-3)
    weights = initial(jax.random.key(0), model)
    state = weights, optimizer.init(weights), jax.random.key(1)

    def step(carry, inputs, data):
        weights, moments = carry
        rows, key = inputs
        loss, gradients = jax.value_and_grad(negative_elbo)(weights, model, data[rows], key)
        updates, moments = optimizer.update(gradients, moments)
        return (optax.apply_updates(weights, updates), moments), loss

    def plan(key):
        key, order, noise = jax.random.split(key, 3)
        rows = jax.random.permutation(order, len(data))[: steps * batch_size].reshape(steps, batch_size)
        return key, (rows, jax.random.split(noise, steps))

    @functools.partial(jax.jit, donate_argnums=0)
    def scanned(state, data):
        weights, moments, key = state
        key, inputs = plan(key)
        (weights, moments), losses = lax.scan(lambda *args: step(*args, data), (weights, moments), inputs)
        return (weights, moments, key), losses.mean()

    one_step, planned = jax.jit(step, donate_argnums=0), jax.jit(plan)

    def stepped(state, data):
        weights, moments, key = state
        key, (rows, keys) = planned(key)
        carry, losses = (weights, moments), []
        for inputs in zip(np.asarray(rows), keys, strict=True):
            carry, loss = one_step(carry, inputs, data)
            losses.append(loss)
        return (*carry, key), jnp.stack(losses).mean()

    epoch = stepped if in_steps else scanned

    def turn() -> tuple[int, list[float]]:
        nonlocal state
        losses = []
        for _ in range(EPOCHS):
            state, loss = epoch(state, data)
            losses.append(float(loss))
        return EPOCHS * steps * batch_size, losses

    take_turns(turn, sum(array.size for array in jax.tree.leaves(weights)))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), "--steps" in sys.argv)
