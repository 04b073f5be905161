"""What ``callbacks.Checkpoint`` costs a training: its rate beside that of the same training without, in turn.

    python -m benchmarks.checkpoints [--rounds 5] [--seconds 2] [--turn 12]

One every few seconds is dear enough to be told from noise; one a minute costs as much less as it is rarer. What is
written goes to the disk of the temporary folder.
"""

import argparse
import pathlib
import statistics
import tempfile
from typing import Any

import tensorflow as tf

from benchmarks import models, report
from benchmarks.peers.turns import Work
from benchmarks.sizes import LATENT, PIXELS
from benchmarks.training import ROWS, images, timed
from tfvae.callbacks import Checkpoint, kept

SIZES = {500: 100, 2000: 512}  # hidden units, and rows of a batch


def trained(model: Any, x: tf.Tensor, batch_size: int, epochs: int, seconds: float | None, written: list[int]) -> Work:
    """A turn of ``fit``, with checkpoints or not; how many there were is noted."""

    def run() -> tuple[int, list[float]]:
        with tempfile.TemporaryDirectory() as folder:
            callbacks = [Checkpoint(folder, minutes=seconds / 60, keep=10_000)] if seconds else []
            history = model.fit(x, batch_size=batch_size, epochs=epochs, verbose=0, callbacks=callbacks)
            written.append(len(kept.points(folder)))
        return epochs * ROWS, history.history["loss"]

    return run


def size(model: Any) -> float:
    """Megabytes of a checkpoint of a model."""
    with tempfile.TemporaryDirectory() as folder:
        model.fit(images()[:100], verbose=0, callbacks=[Checkpoint(folder)])
        return sum(path.stat().st_size for path in pathlib.Path(folder).rglob("*") if path.is_file()) / 1e6


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side after the first (default 5)")
    parser.add_argument("--seconds", type=float, default=2.0, help="from one checkpoint to the next (default 2)")
    parser.add_argument("--turn", type=float, default=12.0, help="seconds that a turn is to take, about (default 12)")
    options = parser.parse_args(arguments)
    x = tf.constant(images())
    table, details = [], {}
    for hidden, batch_size in SIZES.items():
        model, counts = models.vae("mlp", hidden=hidden), {"without": [], "with": []}
        warm = timed(trained(model, x, batch_size, 1, None, []), [])
        warm()  # traces and compiles
        epochs = max(1, round(options.turn * warm() / ROWS))
        every = {"without": None, "with": options.seconds}
        sides = {
            name: timed(trained(model, x, batch_size, epochs, seconds, counts[name]), [])
            for name, seconds in every.items()
        }
        rates = report.interleave(sides, options.rounds)
        ratio, written = report.ratio(rates, "with", "without"), statistics.median(counts["with"])
        took = epochs * ROWS / statistics.median(rates["without"])
        one = (1 / ratio - 1) * took / written
        megabytes = size(model)
        row = [f"{PIXELS}-{hidden}-{LATENT}, batch {batch_size}", f"{megabytes:.0f}"]
        row += [report.spread(rates[name]) for name in ("without", "with")]
        table.append([*row, f"{ratio:.3f}", f"{written:g} in {took:.0f} s", f"{one:.3f}", f"{one / 60:.2%}"])
        details[str(hidden)] = {"examples_per_second": rates, "checkpoints": counts["with"], "megabytes": megabytes}
    header = [
        "model",
        "MB",
        "without, examples/s",
        "with",
        "ratio",
        "checkpoints",
        "s each",
        "of a training at one a minute",
    ]
    title = f"Trainings with a checkpoint every {options.seconds:g} s"
    report.keep("checkpoints", title, header, table, {"models": details})


if __name__ == "__main__":
    main()
