"""The benchmarks' models, "mlp" and "conv" of ``benchmarks.sizes``: ours, and the textbook VAE on plain Keras."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from tensorflow_probability import distributions as tfd

import tfvae
from benchmarks.sizes import FILTERS, HIDDEN, IMAGE, LATENT, PIXELS, SMALL

EVENT_SHAPES = {"mlp": (PIXELS,), "conv": IMAGE}


def vae(
    name: str,
    posterior: tfvae.DistributionLayer | None = None,
    hidden: int = HIDDEN,
    latent: int = LATENT,
    likelihood: tfvae.DistributionLayer | None = None,
    **more: Any,
) -> tfvae.VAE:
    """Ours, compiled, from the package's own networks."""
    keras.utils.set_random_seed(0)
    networks = tfvae.networks
    encoder, decoder = {
        "mlp": lambda: (networks.mlp([hidden]), networks.mlp([hidden])),
        "conv": lambda: (networks.conv_encoder(FILTERS), transposed_decoder(FILTERS[::-1])),
    }[name]()
    model = tfvae.VAE(
        encoder=encoder,
        decoder=decoder,
        posterior=posterior or tfvae.DistributionLayer("Normal", [latent]),
        likelihood=likelihood or tfvae.DistributionLayer("Bernoulli", EVENT_SHAPES[name]),
        **more,
    )
    model.compile(optimizer=keras.optimizers.Adam(1e-3))
    return model


def transposed_decoder(filters: Sequence[int]) -> keras.Sequential:
    """The decoder that the peers have too: transposed convolutions of 3x3, where ``networks.conv_decoder`` resizes."""
    layers, small = keras.layers, [side // 2 ** len(filters) for side in IMAGE[:2]]
    doubling = {"strides": 2, "padding": "same", "activation": "relu"}
    first = [layers.Dense(math.prod(small) * filters[0], "relu"), layers.Reshape([*small, filters[0]])]
    return keras.Sequential([*first, *(layers.Conv2DTranspose(f, 3, **doubling) for f in filters)], name="decoder")


def plain_vae(name: str) -> "PlainVAE":
    """The textbook's, compiled."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    strided = {"strides": 2, "padding": "same", "activation": "relu"}
    encoder, decoder = {
        "mlp": lambda: (
            [layers.Dense(HIDDEN, "tanh"), layers.Dense(2 * LATENT)],
            [layers.Dense(HIDDEN, "tanh"), layers.Dense(PIXELS)],
        ),
        "conv": lambda: (
            [*(layers.Conv2D(f, 3, **strided) for f in FILTERS), layers.Flatten(), layers.Dense(2 * LATENT)],
            [
                layers.Dense(math.prod(SMALL), "relu"),
                layers.Reshape(SMALL),
                *(layers.Conv2DTranspose(f, 3, **strided) for f in FILTERS[::-1]),
                layers.Conv2D(1, 1),
            ],
        ),
    }[name]()
    model = PlainVAE(
        keras.Sequential([keras.Input(EVENT_SHAPES[name]), *encoder]),
        keras.Sequential([keras.Input([LATENT]), *decoder]),
    )
    model.compile(optimizer=keras.optimizers.Adam(1e-3), jit_compile=False)
    return model


class PlainVAE(keras.Model):
    """The encoder ends in a location and a raw scale, the decoder in logits."""

    def __init__(self, encoder: keras.Model, decoder: keras.Model):
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        self.loss_metric = keras.metrics.Mean(name="loss")
        self.noise = keras.random.SeedGenerator(0)

    @property
    def metrics(self):
        return [self.loss_metric]

    def negative_elbo(self, x: tf.Tensor) -> tf.Tensor:
        loc, raw_scale = tf.split(self.encoder(x), 2, axis=-1)
        q = tfd.Independent(tfd.Normal(loc, tf.nn.softplus(raw_scale)), 1)
        z = loc + q.distribution.scale * keras.random.normal(tf.shape(loc), seed=self.noise)
        cross_entropy = tf.nn.sigmoid_cross_entropy_with_logits(x, self.decoder(z))
        prior = tfd.Independent(tfd.Normal(tf.zeros([LATENT]), tf.ones([LATENT])), 1)
        pixels = range(1, x.shape.rank)
        return tf.reduce_mean(tfd.kl_divergence(q, prior) + tf.reduce_sum(cross_entropy, axis=pixels))

    def train_step(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
        with tf.GradientTape() as tape:
            loss = self.negative_elbo(x)
        variables = self.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        self.loss_metric.update_state(loss)
        return {"loss": self.loss_metric.result()}
