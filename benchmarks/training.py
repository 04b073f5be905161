"""Examples a second of ``fit`` beside a plain Keras loop: the same data, model, optimiser and number of steps.

    python -m benchmarks.training [--rounds 5] [--batch-sizes 100 512 2048]

The plain loop is what a Keras user writes: a ``train_step`` on a subclassed model, ``compile(jit_compile=False)``,
a shuffled ``tf.data`` pipeline. Its losses are shown beside those of ``fit``.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from benchmarks import models, report
from benchmarks.peers.turns import Work
from benchmarks.sizes import EPOCHS, HIDDEN, LATENT, PIXELS

ROWS = 60_000


def images() -> np.ndarray:
    """60,000 pictures of 784 pixels in [0, 1], mostly dark with one bright blob each: MNIST's size and kind.

    Each pixel is a whole number of 255ths, as in a picture: a blob's faint ends would be denormal numbers, which slow a
    framework down that does not flush them, as PyTorch does not.
    """
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(np.arange(28), np.arange(28)), axis=-1).reshape(1, PIXELS, 2)
    centres = rng.uniform(6, 22, size=[ROWS, 1, 2]).astype(np.float32)
    widths = rng.uniform(4, 30, size=[ROWS, 1]).astype(np.float32)
    pictures = np.empty([ROWS, PIXELS], np.float32)
    for start in range(0, ROWS, 5000):
        chunk = slice(start, start + 5000)
        pictures[chunk] = np.rint(255 * np.exp(-np.sum((grid - centres[chunk]) ** 2, axis=-1) / widths[chunk])) / 255
    return pictures


def fitted(model: keras.Model, x: np.ndarray, batch_size: int) -> Work:
    """A turn of ``fit``: its rows, and the loss of each epoch. As on every side, the data are tensors before it."""
    data = tf.constant(x)
    return lambda: (EPOCHS * len(x), model.fit(data, batch_size=batch_size, epochs=EPOCHS, verbose=0).history["loss"])


def plainly_fitted(model: keras.Model, x: np.ndarray, batch_size: int) -> Work:
    dataset = tf.data.Dataset.from_tensor_slices(x).shuffle(len(x)).batch(batch_size).prefetch(tf.data.AUTOTUNE)
    return lambda: (EPOCHS * len(x), model.fit(dataset, shuffle=False, epochs=EPOCHS, verbose=0).history["loss"])


def timed(work: Work, losses: list[float]) -> Callable[[], float]:
    def run() -> float:
        started = time.perf_counter()
        rows, found = work()
        losses.extend(found)
        return rows / (time.perf_counter() - started)

    return run


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="calls of fit of each side after the first (default 5)")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[100, 512, 2048])
    options = parser.parse_args(arguments)
    x = images()
    rows, details = [], {}
    for batch_size in options.batch_sizes:
        losses: dict[str, list[float]] = {"fit": [], "plain Keras": []}
        sides = {
            "fit": timed(fitted(models.vae("mlp"), x, batch_size), losses["fit"]),
            "plain Keras": timed(plainly_fitted(models.plain_vae("mlp"), x, batch_size), losses["plain Keras"]),
        }
        first = {name: EPOCHS * len(x) / run() for name, run in sides.items()}  # traces and compiles
        rates = report.interleave(sides, options.rounds)
        ratio = report.ratio(rates, "fit", "plain Keras")
        rows.append(
            [
                str(batch_size),
                report.spread(rates["fit"]),
                report.spread(rates["plain Keras"]),
                f"{ratio:.2f}",
                f"{losses['fit'][-1]:.2f} / {losses['plain Keras'][-1]:.2f}",
                f"{first['fit'] - EPOCHS * len(x) / statistics.median(rates['fit']):.1f} s",
            ]
        )
        details[str(batch_size)] = {
            "examples_per_second": rates,
            "ratio": ratio,
            "losses": losses,
            "first_call_s": first,
        }
    header = ["batch", "fit, examples/s", "plain Keras, examples/s", "ratio", "last losses (nats)", "compiling"]
    title = f"Training 784-{HIDDEN}-{LATENT}, Bernoulli, Adam, float32, {ROWS:,} rows"
    report.keep("training", title, header, rows, {"batch_sizes": details})


if __name__ == "__main__":
    main()
