"""What a training run keeps on disk: the model at its last point, and all of its points.

A run that is stopped anywhere, in the middle of a save as well, finds a model and the points that belong to it.
"""

import csv
import dataclasses
import os
import pathlib
from collections.abc import Sequence

import keras

from tfvae.engine.model import UnsupervisedModel


@dataclasses.dataclass(frozen=True)
class Point:
    """One place of a curve: what was measured there, nats a row, and the seconds of training that led there."""

    samples: int
    train: float
    test: float
    seconds: float
    failed_rows: int = 0


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
