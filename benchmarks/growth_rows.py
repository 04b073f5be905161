"""How training grows with its rows: ``fit`` on bytes that tf.data reads from the disk, and on the same in memory.

Run by ``python -m benchmarks.growth``. Rows are shuffled within a window, as for data that do not fit in memory; each
number of rows is trained on in a process of its own, whose peak memory is shown.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks import models, report
from benchmarks.serving import memory
from benchmarks.sizes import PIXELS

BATCH = 512
WARM_UP_ROWS = 16 * BATCH  # what `fit` runs as one program
WINDOW = 10_000  # rows that are shuffled among each other
LEAST_EXAMPLES, MOST_EXAMPLES = 100_000, 1_000_000  # of one turn over the rows, and of all turns of one number of rows
MOST_IN_MEMORY = 1_000_000


def write_rows(images: np.ndarray, rows: int, path: pathlib.Path) -> None:
    """The pictures as bytes, over and over."""
    block = np.round(255 * images).astype(np.uint8).tobytes()
    with open(path, "wb") as file:
        for start in range(0, rows, len(images)):
            file.write(block[: min(len(images), rows - start) * PIXELS])
        file.flush()
        os.fsync(file.fileno())


def forget(path: pathlib.Path) -> None:
    """Lets the system drop the file from its cache, so that the next reader reads the disk."""
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def stream(path: pathlib.Path, rows: int) -> tf.data.Dataset:
    """Batches of bytes ``[B, 784]``, of the first rows of the file."""
    records = tf.data.FixedLengthRecordDataset(str(path), PIXELS).take(rows)
    records = records.apply(tf.data.experimental.assert_cardinality(rows))  # which a file of records does not say
    return (
        records.shuffle(WINDOW)
        .batch(BATCH)
        .map(
            lambda batch: tf.reshape(tf.io.decode_raw(batch, tf.uint8), [-1, PIXELS]),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
    )


def train_alone(path: pathlib.Path, rows: int, place: str, rounds: int) -> None:
    """Train on the rows from ``place``, disk or memory, and print what was found; runs in a process of its own."""
    data = stream(path, rows)
    if place == "memory":
        data = tf.constant(np.fromfile(path, np.uint8, rows * PIXELS).reshape(-1, PIXELS))
    vae, epochs = models.vae("mlp"), max(1, LEAST_EXAMPLES // rows)
    vae.fit(data, batch_size=BATCH, steps_per_epoch=min(rows, WARM_UP_ROWS) // BATCH, verbose=0)  # traces and compiles
    rates: list[float] = []
    for _ in range(max(1, min(rounds, MOST_EXAMPLES // rows))):
        forget(path)
        started = time.perf_counter()
        loss = vae.fit(data, batch_size=BATCH, epochs=epochs, verbose=0).history["loss"][-1]
        rates.append(epochs * rows / (time.perf_counter() - started))
    print(json.dumps({"examples_per_second": rates, "peak_mb": memory("VmHWM") / 1e6, "loss": loss}))


def train(images: np.ndarray, sizes: list[int], rounds: int, place: str | None) -> dict[str, dict[int, Any]]:
    """What ``train_alone`` found for each number of rows, from the disk and from memory."""
    found: dict[str, dict[int, Any]] = {"disk": {}, "memory": {}}
    with tempfile.TemporaryDirectory(dir=place) as folder:
        path = pathlib.Path(folder) / "rows.bin"
        write_rows(images, max(sizes), path)
        for rows in sizes:
            for side in ["disk", "memory"][: 2 if rows <= MOST_IN_MEMORY else 1]:
                command = [sys.executable, "-m", "benchmarks.growth_rows", str(path), str(rows), side, str(rounds)]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                found[side][rows] = json.loads(done.stdout.splitlines()[-1])
                print(f"{rows:,} rows from {side}: {found[side][rows]}", file=sys.stderr, flush=True)
    return found


def keep(found: dict[str, dict[int, Any]]) -> None:
    table = []
    for side, points in found.items():
        least = min(point["peak_mb"] for point in points.values())
        for rows, point in points.items():
            peak = point["peak_mb"]
            shown = [f"{rows:,}", side, report.spread(point["examples_per_second"]), f"{peak:,.0f}"]
            table.append([*shown, f"{peak / least:.2f}", f"{point['loss']:.2f}"])
    title = f"fit on rows of 784 bytes: streamed from disk, shuffled within {WINDOW:,}, and as one array in memory"
    header = ["rows", "from", "examples/s", "peak memory, MB", "over the least of its kind", "last loss (nats)"]
    report.keep("growth_rows", title, header, table, found)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train on the rows of one file, alone in this process.")
    parser.add_argument("path", type=pathlib.Path)
    parser.add_argument("rows", type=int)
    parser.add_argument("place", choices=["disk", "memory"])
    parser.add_argument("rounds", type=int)
    train_alone(**vars(parser.parse_args()))
