"""Which column of a table is what: its key, its label, its numbers and its words; and what a row's cells then are."""

import dataclasses
import math
import re
import shlex
from collections.abc import Iterable, Sequence

import numpy as np

from .. import contract
from ..errors import PipelineError, RowError
from ..formats.csv_blocks import NULLS
from ..formats.csv_text import is_number
from ..formats.files import FolderValues, with_folders
from ..formats.text import apart, is_utf8
from .base import Fields
from .plan import Column

_PIXEL = re.compile(r"pixel_?(\d+)|(\d+)x(\d+)", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Columns:
    """The columns of a table, by their numbers.

    Attributes:
        names: What all columns are called.
        key: The one with the key, or None.
        label: The one with the label, or None.
        values: Those that make ``x``, in order.
        categories: Those of them that hold words.
        folders: Cells of the last columns, which the folders of the file say: the same in every row.
        missing: Whether a number may be missing.

    Example:
        >>> columns = Columns.of("rows.csv", ("id", "height", "colour"), Fields(key="id", categories=("colour",)))
        >>> columns.key, columns.values, columns.texts
        (0, (1, 2), {0: 'key', 2: "column 'colour'"})
    """

    names: tuple[str, ...]
    key: int | None
    label: int | None
    values: tuple[int, ...]
    categories: tuple[int, ...]
    folders: tuple[str, ...] = ()
    missing: bool = False

    @classmethod
    def of(cls, path: str, names: Sequence[str], fields: Fields, folders: FolderValues | None = None) -> "Columns":
        """The columns that are called so, and those of the file's folders.

        Raises:
            PipelineError: A column that the user named is not there, or none is left for ``x``.
        """
        folders = folders or {}
        names = with_folders(names, path, folders)
        beside = () if fields.columns else (fields.label, *(fields.drop or ()))  # later data may lack those
        for name in (fields.key, *beside, *(fields.categories or ())):
            if name is not None and name not in names:
                several = "" if name in (fields.key, fields.label) else apart(name, names)
                raise PipelineError(f"{path} has no column {name!r}, expected one of {list(names)[:20]}{several}")
        number = {name: i for i, name in enumerate(names)}
        key = number.get(fields.key or contract.KEY)
        label = number.get(fields.label or contract.LABEL)
        left_out = {key, label, *(number.get(name) for name in fields.drop or ())}
        values = tuple(i for i in range(len(names)) if i not in left_out)
        if not values:
            raise PipelineError(f"{path} has the columns {list(names)}, expected some with numbers beside them")
        words = {number[name] for name in fields.categories or ()}
        if words - {*values}:
            name = names[min(words - {*values})]
            raise PipelineError(
                f"column {name!r} cannot be of categories and the key, the label or dropped: choose one"
            )
        cells = tuple("" if value is None else str(value) for value in folders.values())
        return cls(tuple(names), key, label, values, tuple(sorted(words)), cells, bool(fields.missing))

    @property
    def width(self) -> int:
        """How many cells a row of the file has."""
        return len(self.names) - len(self.folders)

    @property
    def numbers(self) -> tuple[int, ...]:
        """The values that are numbers."""
        return tuple(i for i in self.values if i not in self.categories)

    @property
    def texts(self) -> dict[int, str]:
        """The columns that hold text, and what reasons call them."""
        named = {self.key: contract.KEY, self.label: contract.LABEL}
        named |= {i: f"column {self.names[i]!r}" for i in self.categories}
        return {i: name for i, name in named.items() if i is not None}

    def schema(self, categories: Sequence[Sequence[str]]) -> tuple[Column, ...]:
        """What ``Schema.columns`` says of them; ``categories`` of each column of words."""
        words = dict(zip(self.categories, map(tuple, categories), strict=True))
        return tuple((self.names[i], words.get(i)) for i in self.values)

    def layout(self, path: str, fields: Fields, width: int) -> tuple[tuple[int, ...], str]:
        """Shape and dtype of rows of ``width`` values: as the user says; of pixels a picture; else a vector of floats.

        Raises:
            PipelineError: There are more or fewer values than the shape has.
        """
        side = math.isqrt(width)
        are_pixels = side > 1 and side * side == width and _are_pixels([self.names[i] for i in self.values])
        dtype = fields.dtype or ("uint8" if fields.shape or are_pixels else "float32")
        shape = fields.shape or ((side, side) if are_pixels and dtype == "uint8" else (width,))
        if math.prod(shape) != width or min(shape) < 1:
            raise PipelineError(
                f"{path} has {width} values a row, expected {math.prod(shape)} for --shape {list(shape)}"
            )
        if dtype not in ("uint8", "float32"):
            raise PipelineError(f"--dtype is {dtype}, expected uint8 or float32")
        return (*shape, 1) if dtype == "uint8" and len(shape) == 2 else tuple(shape), dtype

    def refuse_text(self, path: str, rows: Iterable[Sequence[str]]) -> None:
        """Raises PipelineError where a column that should hold numbers holds nothing but words in these rows."""
        whole = [(*cells, *self.folders) for cells in rows if len(cells) == self.width]
        found: dict[str, str] = {}
        for i in self.numbers:
            cells = [cells[i] for cells in whole if cells[i].strip() and not self._is_missing(cells[i])]
            if cells and not any(map(is_number, cells)):
                found[self.names[i]] = ascii(cells[0][:50])
        if not found:
            return
        first, those, one = shlex.quote(next(iter(found))), ", ".join(map(repr, found)), len(found) == 1
        named = f"column {those} of {path} holds" if one else f"columns {those} of {path} hold"
        written = " ".join(map(shlex.quote, found))
        raise PipelineError(
            f"{named} text such as {', '.join(found.values())}, expected numbers: say what {'it' if one else 'each'} "
            f"is, --key {first}, --label {first} or --categories {written} (of embed --keep {written}, or "
            f"--prepared-with the dataset that has {'its' if one else 'their'} categories), or leave "
            f"{'it' if one else 'them'} out by --drop {written}"
        )

    def _is_missing(self, cell: str) -> bool:
        return self.missing and cell.strip() in NULLS

    def encode(self, cells: Sequence[str], columns: Sequence[Column], dtype: str) -> np.ndarray:
        """The values of a row, `[D]`.

        Raises:
            RowError: A cell is not of its column's kind.
        """
        values: list[float] = []
        for i, (name, categories) in zip(self.values, columns, strict=True):
            if categories is None and dtype == "float32" and self._is_missing(cells[i]):
                values.append(math.nan)
            elif categories is None:
                values.append(_number(cells[i], name, dtype))
            elif cells[i] in categories:
                values += [float(category == cells[i]) for category in categories]
            else:
                what = f"is {cells[i][:50]!a}, which is none of its {len(categories)} categories"
                raise RowError(f"column {name!r} {what if cells[i] else 'is empty'}")
        with np.errstate(over="ignore"):  # a number beyond float32 becomes inf, which is rejected
            return np.array(values).astype(dtype)


def _are_pixels(names: Sequence[str]) -> bool:
    """Whether columns are called pixel0, pixel1 ..., or 1x1, 1x2 ..., all of them, in order."""
    found = [_PIXEL.fullmatch(name) for name in names]
    at = [tuple(int(number) for number in match.groups() if number) for match in found if match]
    side = math.isqrt(len(names))
    grid = [(row + at[0][0], column + at[0][-1]) for row in range(side) for column in range(side)] if at else []
    flat = [(number + at[0][0],) for number in range(len(names))] if at else []
    return len(at) == len(names) and at in (grid, flat)


def _number(cell: str, name: str, dtype: str) -> float:
    if not is_number(cell):
        what = f"{cell[:50]!a}, expected a number" if cell.strip() else "empty"
        raise RowError(f"column {name!r} is {what}")
    value = float(cell)
    if dtype == "uint8" and not (0 <= value <= 255 and value == int(value)):
        raise RowError(f"column {name!r} is {cell[:50]!a}, expected a whole number from 0 to 255, or --dtype float32")
    if dtype == "float32" and not _is_held(cell, value):
        raise RowError(
            f"column {name!r} is {cell[:50]!a}, a whole number that float32 does not hold: --drop the column if it is "
            "a name, or write its numbers with a point if they may be rounded"
        )
    return value


def _is_held(cell: str, value: float) -> bool:
    """Whether float32 has the number of a cell of digits; a cell with a point is rounded, as all such are."""
    if abs(value) < 2.0**24 or not cell.strip().lstrip("+-").isdigit():
        return True
    with np.errstate(over="ignore"):
        stored = float(np.float32(value))
    return not math.isfinite(stored) or int(cell) == int(stored)  # what is infinite is rejected as such


def text(cell: str, what: str) -> str:
    """A cell that must hold text.

    Raises:
        RowError: It is empty, or not UTF-8.
    """
    if not cell:
        raise RowError(f"the {what} is empty" if " " not in what else f"{what} is empty")
    if not is_utf8(cell):
        raise RowError(f"the {what} is not UTF-8" if " " not in what else f"{what} is not UTF-8")
    return cell
