"""How near ``fit`` comes to the machine: its rate beside those of the parts of its step, each a program of an epoch.

    python -m benchmarks.limit [--rounds 5] [--batch-sizes 100 512 2048]

From part to part something is added: the matrix products; with the batch, the noise, the activations, the densities
and their derivatives, the loss and its gradients; with the optimiser, the training step; then ``fit`` itself, with its
shuffles, its calls, its callbacks and a last batch that is filled up.
"""

import argparse
import statistics
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from benchmarks import models, report
from benchmarks.peers.keras import products
from benchmarks.peers.turns import Work
from benchmarks.sizes import EPOCHS, HIDDEN, LATENT
from benchmarks.training import ROWS, fitted, images, timed
from tfvae.engine import xla
from tfvae.engine.replicas import Rows

PARTS = ("the matrix products", "the loss and its gradients", "the training step", "`fit`")


def gradients(model: keras.Model) -> Callable[[tf.Tensor, tf.Tensor], list[tf.Tensor]]:
    """A program that takes the gradients of each batch of rows ``[K, B]`` and returns the last ones."""

    def epoch(data: tf.Tensor, rows: tf.Tensor) -> list[tf.Tensor]:
        def body(k, *_):
            with tf.GradientTape() as tape:
                loss = model.total_loss(
                    {"x": tf.gather(data, rows[k])}, Rows.of_one_device(tf.ones(rows.shape[1])), True
                )
            return k + 1, *tape.gradient(loss, model.trainable_variables)

        zeros = [tf.zeros(weight.shape) for weight in model.trainable_variables]
        return tf.while_loop(lambda k, *_: k < rows.shape[0], body, (tf.constant(0), *zeros))[1:]

    return xla.compiled(epoch)


def parts(x: np.ndarray, batch_size: int) -> dict[str, Work]:
    """A turn of each part, over whole batches but for ``fit``."""
    model, data = models.vae("mlp"), tf.constant(x)
    fit = fitted(model, x, batch_size)
    fit()  # makes the program
    steps = len(x) // batch_size
    rows = np.random.default_rng(0).permutation(steps * batch_size).astype(np.int32).reshape(steps, batch_size)
    arguments = data, tf.constant(rows), tf.fill([steps], batch_size), tf.constant(steps)
    alone = gradients(model)

    def repeated(program: Callable[[], object]) -> Work:
        def turn() -> tuple[int, list[float]]:
            for _ in range(EPOCHS):
                program()
            return EPOCHS * rows.size, []

        return turn

    works = (
        products(x, batch_size),
        repeated(lambda: alone(*arguments[:2])),
        repeated(lambda: model.train_function.program(*arguments)),
        fit,
    )
    return dict(zip(PARTS, works, strict=True))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="turns of each part after the first (default 5)")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[100, 512, 2048])
    options = parser.parse_args(arguments)
    x = images()
    table, details = [], {}
    for batch_size in options.batch_sizes:
        sides = {name: timed(work, []) for name, work in parts(x, batch_size).items()}
        for run in sides.values():
            run()  # traces and compiles
        rates = report.interleave(sides, options.rounds)
        for name in PARTS:
            step = f"{1e3 * batch_size / statistics.median(rates[name]):.2f} ms"
            ratio = report.ratio(rates, name, PARTS[0])
            table.append([str(batch_size), name, report.spread(rates[name]), step, f"{ratio:.2f}"])
        details[str(batch_size)] = {"examples_per_second": rates}
    header = ["batch", "part", "examples/s", "a batch", "of the matrix products' rate"]
    title = f"What a step of 784-{HIDDEN}-{LATENT} is made of, Bernoulli, Adam, float32, {ROWS:,} rows"
    report.keep("limit", title, header, table, {"batch_sizes": details})


if __name__ == "__main__":
    main()
