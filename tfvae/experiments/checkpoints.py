"""What a training run keeps on disk: the model at its last point, and all of its points.

A run that is stopped anywhere, in the middle of a save as well, finds a model and the points that belong to it. Between
two points it goes on from ``callbacks.Checkpoint``'s.
"""

import csv
import dataclasses
import json
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import keras

from tfvae.callbacks import Checkpoint
from tfvae.engine.model import UnsupervisedModel

_WITHIN = "until-"  # the folder of a stretch that is trained now


@dataclasses.dataclass(frozen=True)
class Point:
    """One place of a curve: what was measured there, nats a row, and the seconds of training that led there."""

    samples: int
    train: float
    test: float
    seconds: float
    failed_rows: int = 0


class Measured(NamedTuple):
    """What is plotted at a point, nats a row, and on how many rows the measurement failed, so that no mean has them."""

    train: float
    test: float
    failed_rows: int = 0


def stretches(
    folder: pathlib.Path | None,
    ends: Sequence[int],
    build: Callable[[], UnsupervisedModel],
    fit: Callable[[UnsupervisedModel, int, int, list[Any]], dict[str, list[float]]],
    measure: Callable[[UnsupervisedModel, dict[str, list[float]]], Measured],
) -> Iterator[Point]:
    """Train a model from one of ``ends``, in samples, to the next, and measure it at each.

    Model and points are kept in ``folder``, where there is one, and a later call goes on from there, or from within a
    stretch that a stop has interrupted.

    Args:
        folder: Where they are kept.
        ends: In rising order; the last one is where the training ends.
        build: Gives the model, compiled, where none is kept.
        fit: Trains it from one number of samples to another, with these callbacks, and gives the history.
        measure: Measures it, given the history of the stretch before.
    """
    done = read_points(folder)
    yield from (point for point in done if point.samples <= ends[-1])
    start, seconds = (done[-1].samples, done[-1].seconds) if done else (0, 0.0)
    to_do = [end for end in ends if start < end]
    if not to_do:
        return
    model = load(folder) if folder and done else build()
    for end in to_do:
        checkpoint = Checkpoint(folder / f"{_WITHIN}{end}") if folder else None
        began = time.perf_counter()
        history = fit(model, start, end, [checkpoint] if checkpoint else [])
        seconds += checkpoint.seconds if checkpoint else time.perf_counter() - began
        train, test, failed_rows = measure(model, history)
        done.append(Point(end, train, test, round(seconds, 1), failed_rows))
        keep(folder, model, done)
        start = end
        yield done[-1]


def remembered(path: pathlib.Path, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What ``compute`` gives, numbers and words by name, kept in a JSON file: computed once."""
    if not path.exists():
        incomplete = path.with_suffix(".incomplete")
        incomplete.write_text(json.dumps(compute()), encoding="utf-8")
        os.replace(incomplete, path)
    return json.loads(path.read_text(encoding="utf-8"))


def place(output: str | os.PathLike[str], name: str, seed: int = 0) -> pathlib.Path:
    """Where the model and the points of a curve are kept; the default seed goes without saying.

    Example:
        >>> place("runs", "mnist-20-AEVB", seed=3).as_posix()
        'runs/checkpoints/mnist-20-AEVB-seed3'
    """
    return pathlib.Path(output) / "checkpoints" / (f"{name}-seed{seed}" if seed else name)


def keep(folder: pathlib.Path | None, model: keras.Model, points: Sequence[Point]) -> None:
    """Keep the model under the name of its point, then the points: a kill between costs one stretch, no more."""
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    model.save(folder / "incomplete.keras")
    current = _model_file(folder, points[-1].samples)
    os.replace(folder / "incomplete.keras", current)
    with open(folder / "incomplete.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([field.name for field in dataclasses.fields(Point)])
        writer.writerows(dataclasses.astuple(point) for point in points)
    os.replace(folder / "incomplete.csv", folder / "points.csv")
    for earlier in set(folder.glob("model-*.keras")) - {current}:
        earlier.unlink()
    for within in folder.glob(f"{_WITHIN}*"):
        shutil.rmtree(within)


def read_points(folder: pathlib.Path | None) -> list[Point]:
    """The points that were kept in ``folder``, in order; none where there is no run."""
    if folder is None or not (folder / "points.csv").exists():
        return []
    with open(folder / "points.csv", newline="", encoding="utf-8") as file:
        return [
            Point(
                int(row["samples"]),
                float(row["train"]),
                float(row["test"]),
                float(row["seconds"]),
                int(row.get("failed_rows", 0)),
            )
            for row in csv.DictReader(file)
        ]


def load(folder: str | os.PathLike[str]) -> UnsupervisedModel:
    """The model at the last point of the curve that is kept in ``folder``."""
    folder = pathlib.Path(folder)
    return keras.saving.load_model(_model_file(folder, read_points(folder)[-1].samples))


def _model_file(folder: pathlib.Path, samples: int) -> pathlib.Path:
    return folder / f"model-{samples}.keras"
