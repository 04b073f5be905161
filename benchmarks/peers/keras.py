"""``fit``, a plain Keras loop, and the MLP's matrix products alone, on TensorFlow.

python -m benchmarks.peers.keras ROWS.npy {mlp,conv} BATCH {fit,plain,products}
"""

import sys

import numpy as np
import tensorflow as tf

from benchmarks import models, training
from benchmarks.peers.turns import Work, take_turns
from benchmarks.sizes import EPOCHS, HIDDEN, LATENT


def products(x: np.ndarray, batch_size: int, width: int = HIDDEN, latent: int = LATENT, num_samples: int = 1) -> Work:
    """The matrix products of a training step, forward and backward, and nothing else: an epoch is one XLA program.

    No batch is gathered, no activation applied, no weight changed: each batch is a slice of the rows.
    """
    steps, pixels = len(x) // batch_size, x.shape[1]
    sizes = [(pixels, width), (width, 2 * latent), (latent, width), (width, pixels)]
    weights = [tf.Variable(tf.random.stateless_normal(size, [0, i]) * 0.01) for i, size in enumerate(sizes)]
    data = tf.constant(x)

    @tf.function(jit_compile=True, autograph=False)
    def epoch(data):
        w1, w2, w3, w4 = weights

        def body(k, *_):
            batch = tf.slice(data, [k * batch_size, 0], [batch_size, pixels])
            hidden = batch @ w1
            parameters = hidden @ w2
            z = tf.tile(parameters[:, :latent], [num_samples, 1])
            features = z @ w3
            d_logits = features @ w4
            d_w4, d_features = mm_t(features, d_logits), tf.matmul(d_logits, w4, transpose_b=True)
            d_w3, d_z = mm_t(z, d_features), tf.matmul(d_features, w3, transpose_b=True)
            d_z = tf.reduce_sum(tf.reshape(d_z, [num_samples, batch_size, latent]), axis=0)
            d_parameters = tf.concat([d_z, d_z], axis=1)
            d_w2, d_hidden = mm_t(hidden, d_parameters), tf.matmul(d_parameters, w2, transpose_b=True)
            return k + 1, mm_t(batch, d_hidden), d_w2, d_w3, d_w4

        zeros = [tf.zeros(size) for size in sizes]
        return tf.while_loop(lambda k, *_: k < steps, body, (tf.constant(0), *zeros))[1:]

    def turn() -> tuple[int, list[float]]:
        for _ in range(EPOCHS):
            gradients = epoch(data)
        assert np.isfinite(gradients[0].numpy()).all()
        return EPOCHS * steps * batch_size, []

    return turn


def mm_t(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    return tf.matmul(a, b, transpose_a=True)


SIDES = {"fit": (models.vae, training.fitted), "plain": (models.plain_vae, training.plainly_fitted)}


def main(path: str, name: str, batch_size: int, side: str) -> None:
    x = np.load(path).reshape(-1, *models.EVENT_SHAPES[name])
    if side == "products":
        take_turns(products(x, batch_size))
        return
    build, train = SIDES[side]
    model = build(name)
    take_turns(train(model, x, batch_size), sum(int(tf.size(w)) for w in model.trainable_variables))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
