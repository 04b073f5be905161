"""``tfvae runs``: the runs below a folder and their numbers, read without TensorFlow.

A number is shown where a record of the model that lies there says it. Bounds compare between runs on the same data.
"""

import csv
import dataclasses
import datetime
import math
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from tfvae import records, tables
from tfvae.pipelines import storage

_DEPTH = 3  # folders below the one that is asked for
_MODEL, _UNFINISHED = "model.keras", "incomplete"
_LONGEST_TEXT = 40
_LONGEST_LINE = 1 << 16  # bytes of history.csv


@dataclasses.dataclass(frozen=True)
class Run:
    """A run's numbers, of which None is unknown.

    Attributes:
        run: Its folder, from the one that was asked for.
        when: When its training ended.
        model, data: Their names.
        epochs: Passes over the data.
        elbo, bits: The last epoch's validation, in nats a row and in bits per dimension.
        log_marginal: log p(x) as ``tfvae evaluate`` measured it, in nats a row.
        is_lower_bound: Whether that rests on too few effective samples.
    """

    run: str
    when: datetime.datetime
    model: str | None = None
    data: str | None = None
    epochs: float | None = None
    elbo: float | None = None
    bits: float | None = None
    log_marginal: float | None = None
    is_lower_bound: bool = False


_HEADS = {
    "run": "run",
    "model": "model",
    "data": "data",
    "epochs": "epochs",
    "elbo": "validation ELBO",
    "bits": "bits/dimension",
    "log-marginal": "log p(x)",
    "when": "trained",
}
SORTS = tuple(_HEADS)
_WHERE_KNOWN = ("bits", "log-marginal")
_LEAST_FIRST = ("run", "model", "data", "bits")


def found(folder: str | os.PathLike[str]) -> tuple[list[Run], list[str]]:
    """The runs in a folder and below, and a sentence on each thing there that is none.

    Raises:
        ValueError: If there is no such folder.
    """
    top = pathlib.Path(folder)
    if not top.is_dir():
        raise ValueError(f"There is no folder {top}: tfvae train --output writes runs.")
    notes: list[str] = []
    runs = [run for place in _places(top, _DEPTH, notes) if (run := _run(place, top, notes))]
    return runs, notes


def table(runs: list[Run], sort: str = "when") -> str:
    """Runs as a table for a terminal: the best, the newest or the alphabet's first come first, what is unknown last.

    Example:
        >>> at = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
        >>> shown = table([Run("a", at, elbo=-90.0), Run("b", at), Run("c", at, elbo=-80.0)], "elbo")
        >>> [line[0] for line in shown.splitlines()[1:]]
        ['c', 'a', 'b']
    """

    def place(run: Run) -> tuple[Any, ...]:
        value = _value(run, sort)
        if value is None:
            return True, 0, run.run
        return False, value if sort in _LEAST_FIRST else -value, run.run

    columns = [
        name for name in _HEADS if name not in _WHERE_KNOWN or any(_value(run, name) is not None for run in runs)
    ]
    rows = [[_cell(run, name) for name in columns] for run in sorted(runs, key=place)]
    return tables.plain([[_HEADS[name] for name in columns], *rows])


def _value(run: Run, column: str) -> Any:
    value = getattr(run, column.replace("-", "_"))
    return value.timestamp() if column == "when" else value


def _cell(run: Run, column: str) -> str:
    value = _value(run, column)
    if value is None or isinstance(value, str):
        return value or ""
    if column == "when":
        return f"{run.when.astimezone():%Y-%m-%d %H:%M}"
    bound = "≥ " if column == "log-marginal" and run.is_lower_bound else ""
    return bound + f"{value:.{ {'epochs': 0, 'bits': 3}.get(column, 2) }f}"


def _places(folder: pathlib.Path, depth: int, notes: list[str], top: bool = True) -> Iterator[pathlib.Path]:
    """The folders that hold a run, or the beginning of one; links are not followed."""
    try:
        with os.scandir(folder) as entries:
            inside = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        notes.append(f"{_printable(str(folder))} cannot be read: {error.strerror}.")
        return
    if {entry.name for entry in inside} & {_MODEL, _UNFINISHED, records.RUN}:
        yield folder
        return
    for entry in inside:
        if depth and entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
            below = list(_places(pathlib.Path(entry.path), depth - 1, notes, top=False))
            yield from below
            if top and not below:
                notes.append(f"{_printable(entry.path)} holds no run.")


def _run(folder: pathlib.Path, top: pathlib.Path, notes: list[str]) -> Run | None:
    name = _printable(str(folder))
    if (folder / _UNFINISHED).is_dir():
        notes.append(f"{name}: a training goes on there, or was killed.")
    if not (folder / _MODEL).is_file():
        notes.append(f"{name} is no finished run: it has no {_MODEL}.")
        return None
    trained, measured = {}, {}
    try:
        sha256 = storage.sha256(str(folder / _MODEL))
        when = datetime.datetime.fromtimestamp((folder / _MODEL).stat().st_mtime, datetime.UTC)
        trained = records.of_model(folder / records.RUN, sha256)
        measured = records.of_model(folder / records.EVALUATION, sha256)
        history = _last_line(folder / "history.csv") if trained else {}
    except (OSError, ValueError) as error:
        notes.append(_printable(str(error)))
        return None
    if not trained:
        notes.append(f"{name} has no {records.RUN} of its model.")
    dataset = trained.get("dataset")
    return Run(
        _printable(os.path.relpath(folder, top)),
        _time(trained.get("finished")) or when,
        _model_name(trained),
        _known_text(dataset.get("folder")) if isinstance(dataset, dict) else None,
        _number(trained.get("epochs")),
        _number(history.get("val_elbo")),
        _number(history.get("val_bits_per_dimension")),
        _number(measured.get("log_marginal")),
        measured.get("monte_carlo_standard_error") is None,
    )


def _last_line(path: pathlib.Path) -> dict[str, Any]:
    """The last line of a table by the names in its head, empty where there is none; a long file costs no more."""
    if not path.is_file():
        return {}
    with path.open("rb") as file:
        head = file.readline(_LONGEST_LINE)
        file.seek(max(len(head), path.stat().st_size - _LONGEST_LINE))
        lines = file.read(_LONGEST_LINE).splitlines()
    texts = [line.decode("utf-8", "replace") for line in (head, *lines[-1:])]
    try:
        names, *values = csv.reader(texts)
    except csv.Error as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    return dict(zip(names, values[0], strict=False)) if values else {}


def _number(value: Any) -> float | None:
    """A finite number from a record or a table's cell, else None."""
    try:
        number = None if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if number is not None and math.isfinite(number) else None


def _time(value: Any) -> datetime.datetime | None:
    try:
        return datetime.datetime.fromisoformat(value).astimezone(datetime.UTC)
    except (TypeError, ValueError, OverflowError):
        return None


def _model_name(trained: dict[str, Any]) -> str | None:
    """The preset, or FILE.py:FUNCTION as the user's file was called; ``experiment`` is of runs by tfvae 0.1."""
    name, file = _known_text(trained.get("model") or trained.get("experiment")), trained.get("model_file")
    if name and isinstance(file, dict) and (known_as := _known_text(file.get("name"))):
        return f"{known_as}:{name.rpartition(':')[2]}"
    return name


def _known_text(value: Any) -> str | None:
    if not isinstance(value, str) or not value:
        return None
    return _printable(value if len(value) <= _LONGEST_TEXT else f"{value[: _LONGEST_TEXT - 1]}…")


def _printable(value: str) -> str:
    """A stranger's text for a terminal, without what would steer it."""
    return "".join(letter if letter.isprintable() else "?" for letter in value)
