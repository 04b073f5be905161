"""The carried models in JAX: K steps are one ``lax.scan``, the rows are gathered inside it, Adam is optax's."""

import functools
import math

import jax
import numpy as np
import optax
from jax import lax
from jax import numpy as jnp

from benchmarks.gpu.carried import Case
from benchmarks.gpu.program import batches

Weights = list[tuple[jax.Array, jax.Array]]
_LAYOUT = ("NHWC", "HWIO", "NHWC")
PRECISIONS = {"float32": "highest", "tf32": "default"}


def encode(weights: Weights, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and standard deviation of q(z|x), ``[B, D]``, for bytes ``[B, *event]``."""
    h = x.astype(jnp.float32) / 255
    *hidden, (kernel, bias) = weights[: len(weights) // 2]
    for w, b in hidden:
        if w.ndim == 4:
            h = jax.nn.relu(lax.conv_general_dilated(h, w, (2, 2), "SAME", dimension_numbers=_LAYOUT) + b)
        else:
            h = jnp.tanh(h @ w + b)
    loc, raw_scale = jnp.split(h.reshape(len(h), -1) @ kernel + bias, 2, axis=-1)
    return loc, jax.nn.softplus(raw_scale)


def decode(weights: Weights, z: jax.Array) -> jax.Array:
    """The logits of p(x|z), ``[B, *event]``, for z ``[B, D]``."""
    (w, b), *transposed, (kernel, bias) = weights[len(weights) // 2 :]
    if not transposed:
        return jnp.tanh(z @ w + b) @ kernel + bias
    channels = transposed[0][0].shape[-1]
    side = math.isqrt(w.shape[1] // channels)
    h = jax.nn.relu(z @ w + b).reshape(len(z), side, side, channels)
    for w, b in transposed:
        h = lax.conv_transpose(h, w, (2, 2), "SAME", dimension_numbers=_LAYOUT, transpose_kernel=True)
        h = jax.nn.relu(h + b)
    return h @ kernel + bias


def negative_elbo(weights: Weights, x: jax.Array, noise: jax.Array) -> jax.Array:
    """Of a batch, the mean over its rows, nats; noise ``[B, D]`` is standard normal."""
    loc, scale = encode(weights, x)
    logits = decode(weights, loc + scale * noise)
    reconstruction = optax.sigmoid_binary_cross_entropy(logits, x.astype(jnp.float32) / 255)
    kl = jnp.sum(0.5 * (loc**2 + scale**2 - 1) - jnp.log(scale), axis=-1)
    return jnp.mean(jnp.sum(reconstruction.reshape(len(x), -1), axis=-1) + kl)


def pairs(case: Case) -> Weights:
    """Kernel and bias of each layer, a copy."""
    values = [jnp.array(value) for value in case.initial_weights]
    return list(zip(values[::2], values[1::2], strict=True))


class JaxSide:
    """From the carried weights on, as ``ProgramSide``."""

    def __init__(self, case: Case, rows: np.ndarray, precision: str):
        self._precision = PRECISIONS[precision]
        self._data = jnp.asarray(rows.reshape(len(rows), *case.event_shape))
        self._batches = [jnp.asarray(x) for x in batches(np.asarray(self._data), len(case.embed.inputs[0]))]
        optimizer = optax.adam(case.learning_rate, eps=case.epsilon)
        calls, steps, batch_size = case.calls(len(rows)), case.steps, case.batch_size
        weights = pairs(case)
        latent_dim = weights[len(weights) // 2][0].shape[0]
        self._encoder = pairs(case)
        self._state = weights, optimizer.init(weights)
        self._key = jax.random.key(0)

        @functools.partial(jax.jit, donate_argnums=0)
        def train(state, data, rows, key):
            def step(carry, inputs):
                weights, moments = carry
                rows, key = inputs
                noise = jax.random.normal(key, [batch_size, latent_dim])
                loss, gradients = jax.value_and_grad(negative_elbo)(weights, data[rows], noise)
                updates, moments = optimizer.update(gradients, moments)
                return (optax.apply_updates(weights, updates), moments), loss

            state, losses = lax.scan(step, state, (rows, jax.random.split(key, steps)))
            return state, losses.mean()

        @jax.jit
        def shuffled(key):
            following, order, noise = jax.random.split(key, 3)
            rows = jax.random.permutation(order, len(self._data))[: calls * steps * batch_size]
            return following, tuple(rows.reshape(calls, steps, batch_size)), tuple(jax.random.split(noise, calls))

        self._train, self._shuffled = train, shuffled
        self._means = jax.jit(lambda weights, x: encode(weights, x)[0])

    def epoch(self) -> float:
        with jax.default_matmul_precision(self._precision):
            self._key, order, keys = self._shuffled(self._key)
            losses = []
            for rows, key in zip(order, keys, strict=True):
                self._state, loss = self._train(self._state, self._data, rows, key)
                losses.append(loss)
        return float(np.mean(jax.device_get(losses)))

    def embed(self) -> np.ndarray:
        with jax.default_matmul_precision(self._precision):
            means = [self._means(self._encoder, x) for x in self._batches]
        return np.asarray(jax.block_until_ready(means)[0])
