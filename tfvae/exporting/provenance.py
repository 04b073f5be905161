"""Where a model comes from: the data it was trained on, and how good it was found to be.

Each value is checked when it is told, because it ends in files that people and programs trust. None is unknown.
"""

import dataclasses
import re
import reprlib
import sys
from collections.abc import Mapping
from typing import Any

_LONGEST_TEXT, _MOST_FINDINGS = 200, 50
_NATS = ("elbo", "elbo_standard_error", "log_marginal", "log_marginal_standard_error", "monte_carlo_standard_error")
_NUMBERS = (*_NATS, "median_effective_sample_size")


def _check_texts(record: Any, *names: str) -> None:
    for name in names:
        value = getattr(record, name)
        fits = isinstance(value, str) and value.isprintable() and 0 < len(value) <= _LONGEST_TEXT
        if value is not None and not fits:
            raise ValueError(f"{name} is {value!r}, expected at most {_LONGEST_TEXT} characters that print.")


def _is_finite(value: Any) -> bool:
    """Whether it is a number that a float holds; a whole number of a JSON file may have any length."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _check_findings(judges: Any) -> None:
    """Numbers by name, by name; names in small letters, few of them."""
    expected = "numbers by name, by the judge's name, names in small letters, and at most 50 of each"

    def are_names(found: Any) -> bool:
        named = isinstance(found, dict) and 0 < len(found) <= _MOST_FINDINGS
        return named and all(isinstance(name, str) and re.fullmatch("[a-z0-9_]{1,50}", name) for name in found)

    if not are_names(judges) or not all(are_names(found) for found in judges.values()):
        raise ValueError(f"judges is {reprlib.repr(judges)}, expected {expected}.")
    for judge, found in judges.items():
        for name, value in found.items():
            if value is not None and not _is_finite(value):
                raise ValueError(f"judges has {reprlib.repr(value)} as {name} of {judge}, expected a finite number.")


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A prepared dataset; None stands for what is unknown.

    Attributes:
        name: The dataset's own name.
        folder: The last part of its path.
        manifest_sha256: Hexadecimal SHA-256 of its ``manifest.json``.
        standardized: Whether its columns were standardized, by what the manifest holds.
        columns_sha256: Hexadecimal SHA-256 of its columns' names, words and units, in their order; None where rows have
            no columns.
    """

    name: str | None = None
    folder: str | None = None
    manifest_sha256: str | None = None
    standardized: bool | None = None
    columns_sha256: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.standardized, bool | None):
            raise ValueError(f"standardized is {self.standardized!r}, expected True, False or None.")
        _check_texts(self, "name", "folder", "manifest_sha256", "columns_sha256")
        if self.folder is not None and re.search(r"[/\\]", self.folder):
            raise ValueError(f"folder is {self.folder!r}, expected the last part of a path alone.")
        for name in ("manifest_sha256", "columns_sha256"):
            if (value := getattr(self, name)) is not None and not re.fullmatch("[0-9a-f]{64}", value):
                raise ValueError(f"{name} is {value!r}, expected 64 hexadecimal digits.")


@dataclasses.dataclass(frozen=True)
class Measured:
    """How good a model was found to be, in nats a row; None stands for what is unknown.

    Attributes:
        dataset: What it was measured on.
        split: Which of the dataset's splits.
        observations: How x was scored: bounds on binarised and on greyscale images must never be compared.
        rows: How many rows.
        num_samples: Samples of z for each row in log p(x).
        elbo, log_marginal: Means over the rows.
        elbo_standard_error, log_marginal_standard_error: What another sample of rows would move them by.
        monte_carlo_standard_error: What other samples of z would move log p(x) by; None too where they are too few to
            tell, so that log p(x) is but a lower bound.
        median_effective_sample_size: How many of the samples of z half of the rows rest on.
        judges: What ``evaluation.judge`` found: numbers by name, by the judge's name.
    """

    dataset: Dataset = Dataset()
    split: str | None = None
    observations: str | None = None
    rows: int | None = None
    num_samples: int | None = None
    elbo: float | None = None
    elbo_standard_error: float | None = None
    log_marginal: float | None = None
    log_marginal_standard_error: float | None = None
    monte_carlo_standard_error: float | None = None
    median_effective_sample_size: float | None = None
    judges: Mapping[str, Mapping[str, float | None]] | None = None

    def __post_init__(self) -> None:
        _check_texts(self, "split", "observations")
        for name in ("rows", "num_samples"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise ValueError(f"{name} is {value!r}, expected a whole number above 0.")
        for name in _NUMBERS:
            value = getattr(self, name)
            unit = " of nats" if name in _NATS else ""
            if value is not None and not _is_finite(value):
                raise ValueError(f"{name} is {reprlib.repr(value)}, expected a finite number{unit}.")
        if self.judges is not None:
            _check_findings(self.judges)


@dataclasses.dataclass(frozen=True)
class Provenance:
    """What an exporter is told of a model beyond the model itself.

    Attributes:
        trained_on: The data.
        measured: The measurements.
        license: Under which its weights may be used, as Hugging Face writes it: ``apache-2.0``, ``cc-by-4.0``.

    Raises:
        ValueError: For a value of another kind: a text that is long or does not print, a number that is not finite.

    Example:
        >>> Provenance(Dataset("digits"), Measured(elbo=-25.5)).measured.log_marginal is None
        True
    """

    trained_on: Dataset = Dataset()
    measured: Measured = Measured()
    license: str | None = None

    def __post_init__(self) -> None:
        _check_texts(self, "license")
        if self.license is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", self.license):
            raise ValueError(
                f"license is {self.license!r}, expected an identifier in small letters such as apache-2.0."
            )
