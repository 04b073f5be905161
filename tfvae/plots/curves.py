"""Numbers about a model: its learning curve, KL of its units, and what a table's columns leave over."""

import csv
import os
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfvae import evaluation
from tfvae.arguments import check_kind, check_words, some
from tfvae.models.vae import VAE, check_vae
from tfvae.plots import pictures, style
from tfvae.plots.style import PathLike

_CURVES = {"elbo": "training", "val_elbo": "validation"}
_MOST_BARS = 60
_MOST_COLUMNS = 30


def learning_curve(history: PathLike | dict[str, Sequence[float]], path: PathLike) -> str:
    """The ELBO in nats over the epochs, from Keras's history or from the CSV file that ``tfvae train`` writes.

    Raises:
        ValueError: If the history holds no ELBO, or something else than a number for each epoch, or the file is no CSV.
    """
    expected = "Keras's history, which fit(...).history is, or the path of its CSV file"
    check_kind("history", history, (dict, str, os.PathLike), expected)
    values = history if isinstance(history, dict) else _read_history(history)
    if "elbo" not in values:
        held = ", ".join(map(str, values)) or "nothing"
        raise ValueError(f"The history holds no elbo, only {held:.200}: train for an epoch at least.")
    curves = {key: _numbers(key, values[key]) for key in _CURVES if key in values}
    with style.axes(path, 3.8) as axes:
        for key, elbo in curves.items():
            marker = "." if len(elbo) <= 50 else None
            axes.plot(np.arange(1, len(elbo) + 1), elbo, label=_CURVES[key], marker=marker)
        axes.set(xlabel="epoch", ylabel="ELBO (nats)", title="Learning curve")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(True)
        axes.legend(loc="lower right")
    return str(path)


def _numbers(key: str, given: Any) -> np.ndarray:
    """One of a history's curves, a number an epoch."""
    try:
        if np.ndim(given) != 1 or not len(given) or any(isinstance(one, (str, bytes)) for one in given):
            raise TypeError
        return np.array([float(one) for one in given])
    except (TypeError, ValueError):
        raise ValueError(f"{key} is {reprlib.repr(given)}, expected a list of numbers, one for each epoch.") from None


def _read_history(path: PathLike) -> dict[str, list[float]]:
    """The curves of a CSV file; of its other columns the names alone."""
    if os.path.isdir(path):
        raise ValueError(f"history is {os.fspath(path)!r}, which is a folder: pass its file, such as history.csv.")
    if not os.path.isfile(path):
        raise ValueError(f"history is {os.fspath(path)!r}, but there is no such file.")
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            names, *rows = [cells for cells in csv.reader(file) if cells] or [[]]
    except (UnicodeDecodeError, csv.Error):
        raise ValueError(f"{os.fspath(path)} is no CSV file, which tfvae train and Keras's CSVLogger write.") from None
    for number, row in enumerate(rows, 1):
        if len(row) != len(names):
            raise ValueError(f"Row {number} of {os.fspath(path)} has {len(row)} cells, expected {len(names)}.")
    return {name: _cells(path, rows, column, name) if name in _CURVES else [] for column, name in enumerate(names)}


def _cells(path: PathLike, rows: Sequence[Sequence[str]], column: int, name: str) -> list[float]:
    found: list[float] = []
    for number, row in enumerate(rows, 1):
        try:  # Keras's CSVLogger writes NA for what an epoch did not measure
            found.append(float("nan") if row[column] == "NA" else float(row[column]))
        except ValueError:
            raise ValueError(
                f"Row {number} of {os.fspath(path)} has {row[column]!r:.80} for {name}, expected a number."
            ) from None
    return found


def kl_by_unit(vae: VAE, x: Any, path: PathLike) -> str:
    """Bars of KL(q(z_d|x)‖p(z_d)) in nats, the mean over rows, the largest first; pale below 0.01 nat.

    x are rows as ``fit`` takes them. Of more than 60 units the first 60 are drawn.
    """
    kl = evaluation.kl_by_unit(vae, x)
    order = np.argsort(-kl)[:_MOST_BARS]
    with style.axes(path, 3.0) as axes:
        colours = [style.COLOURS[0] if kl[d] >= 0.01 else style.PALE for d in order]
        axes.bar(np.arange(len(order)), kl[order], color=colours)
        axes.set_xticks(np.arange(len(order)), order, fontsize=8 if len(order) <= 30 else 5)
        axes.set(xlabel="unit of z", ylabel="KL(q‖p) (nats)", title=f"KL of each unit, {kl.sum():.2f} nats in all")
        axes.grid(True, axis="y")
        axes.set_axisbelow(True)
    return str(path)


def residuals(vae: VAE, x: Any, path: PathLike, names: Sequence[str] = ()) -> str:
    """How far a table's rows lie from their reconstructions, a box for each column, in its standard deviations.

    A box of a column that the model reconstructs is short; one that it does not is as long as the column is wide. Boxes
    hold the middle half of the rows, whiskers 90 %. Of more than 30 columns the 30 that are reconstructed worst are
    drawn.

    Args:
        vae: A model of vectors, ``[D]``.
        x: Rows as ``fit`` takes them.
        path: The PNG to write.
        names: What the columns are called; by default by their numbers.

    Raises:
        ValueError: If an observation is no vector.
    """
    check_vae(vae)
    check_words(names=names)
    if len(vae.event_shape) != 1:
        raise ValueError(f"An observation has shape {vae.event_shape}, expected (D,): residuals are of a table.")
    rows = pictures.first_rows(x, None)
    means = some(vae.reconstruct(rows), "draw")
    values = np.asarray(rows["x"] if isinstance(rows, Mapping) else rows, np.float64)
    left = (values - means) / np.maximum(values.std(axis=0), 1e-12)
    worst = np.argsort(-np.sqrt(np.mean(left**2, axis=0)))[:_MOST_COLUMNS]
    shown = np.sort(worst)[::-1]
    with style.axes(path, 0.8 + 0.22 * len(shown)) as axes:
        labels = [style.label_name(int(d), names) for d in shown]
        axes.axvline(0.0, color=style.PALE, zorder=0)
        ends = np.percentile(left[:, shown], [5, 25, 50, 75, 95], axis=0)
        at = np.arange(len(shown))
        axes.hlines(at, ends[0], ends[4], color="#444444", linewidth=0.8)
        axes.barh(at, ends[3] - ends[1], left=ends[1], height=0.6, color=style.COLOURS[0], zorder=2)
        axes.vlines(ends[2], at - 0.3, at + 0.3, color="white", zorder=3)
        axes.set_yticks(at, labels)
        axes.set(xlabel="x - E[x|z] (standard deviations of the column)", title="Residuals of each column")
    return str(path)
