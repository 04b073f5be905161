"""CSV files: numbers in columns, a key and a label among them."""

import csv
import itertools
import os
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import numpy as np

from .. import contract, storage
from ..errors import PipelineError, RowError
from ..formats.files import find_files, root_of
from .base import Opened, RowSource
from .plan import MAX_CLASSES, Plan, Schema, class_names, describe
from .table_rows import Classes, ClassIndex, TableRows

_MAX_ROW_BYTES = 16 << 20
_BLOCK_ROWS = 1 << 14  # that are planned together
_BOM = b"\xef\xbb\xbf"


class Csv(RowSource):
    """A CSV file, a folder of them, or a pattern: UTF-8, commas, and a header that names the columns.

    ``key`` names the column with the key; without it that is ``key``, and where there is no such column, ``FILE:ROW``
    by the number of the row. ``label`` likewise: whole numbers from 0 up in every row are classes by number, anything
    else by name. All other columns, in the order of the file, make ``x``, a vector of float32; files must agree on
    their columns. A row with a cell that is empty or no number, or with more or fewer cells than the header, is
    rejected. The position of a row is the byte where it begins.
    """

    takes = ("key", "label")

    def plan(self) -> Plan:
        """See ``Source.plan``."""
        found = find_files(self.input_path, (".csv",))
        rows, classes = TableRows(), Classes()
        first: list[str] = []
        for file in found.files:
            path = found.path(file)
            with _open(path) as stream:
                names = _header(stream, path)
                first = first or names
                if names != first:
                    raise PipelineError(f"{path} and {found.files[0]} have different columns: take them apart")
                self._add(rows, classes, file, names, _rows(stream, path))
        _, label, values = self._columns(first)
        if not values:
            raise PipelineError(f"{self.input_path} has the columns {first}, expected some with numbers beside them")
        labels = None if label is None else _by_number(classes.names(self.input_path))
        schema = Schema((len(values),), "float32", labels)
        return rows.plan(schema, [describe(found.path(file), found.root) for file in found.files], found.hidden)

    def open(self, file: str, schema: Schema) -> Opened:
        """See ``RowSource.open``; the position is the offset of a row."""
        path = os.path.join(root_of(self.input_path), *file.split("/"))
        stream = _open(path)
        names = _header(stream, path)
        _, label, values = self._columns(names)
        index = ClassIndex(schema.labels)

        def row(position: int) -> tuple[np.ndarray, int | None]:
            stream.seek(position)
            _, cells = next(_rows(stream, path), (0, []))
            if len(cells) != len(names):
                raise PipelineError(f"{path} has no row of {len(names)} cells at byte {position}: it has changed")
            x = _numbers([cells[column] for column in values], [names[column] for column in values])
            return x, None if label is None else index.of(cells[label])

        return row

    def _columns(self, names: Sequence[str]) -> tuple[int | None, int | None, list[int]]:
        """The numbers of the columns with the key, the label and the values."""
        special = []
        for given, default in ((self.fields.key, contract.KEY), (self.fields.label, contract.LABEL)):
            if given and given not in names:
                raise PipelineError(f"{self.input_path} has no column {given!r}, expected one of {list(names)[:20]}")
            name = given or default
            special.append(names.index(name) if name in names else None)
        return special[0], special[1], [column for column in range(len(names)) if column not in special]

    def _add(
        self, rows: TableRows, classes: Classes, file: str, names: list[str], content: Iterator[tuple[int, list[str]]]
    ) -> None:
        key, label, _ = self._columns(names)
        for first in itertools.count(0, _BLOCK_ROWS):
            block = list(itertools.islice(content, _BLOCK_ROWS))
            keys: list[str | None] = []
            reasons: dict[int, str] = {}
            for row, (_, cells) in enumerate(block):
                keys.append(f"{file}:{first + row}" if key is None else None)
                try:
                    if len(cells) != len(names):
                        raise RowError(f"{len(cells)} cells, expected {len(names)}")
                    if key is not None:
                        keys[row] = _text(cells[key], "key")
                    if label is not None:
                        classes.add([_text(cells[label], "label")])
                except RowError as error:
                    reasons[row] = str(error)
            rows.add(file, keys, [offset for offset, _ in block], reasons)
            if len(block) < _BLOCK_ROWS:
                return


def _open(path: str) -> BinaryIO:
    try:
        return storage.open_to_read(path)
    except OSError as error:
        raise PipelineError(f"{path} cannot be read: {error.strerror}") from error


def _header(stream: BinaryIO, path: str) -> list[str]:
    """The names of the columns, from the front of a file."""
    begin = stream.read(len(_BOM))
    if begin[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise PipelineError(f"{path} is UTF-16, expected UTF-8: save it as such")
    stream.seek(len(_BOM) if begin == _BOM else 0)
    rows = _rows(stream, path)
    names = next(rows, (0, []))[1]
    doubtful = [name for name in names if not name.strip() or not _is_utf8(name) or names.count(name) > 1]
    if not names or doubtful:
        what = f"the columns {doubtful[:5]!a}, which are no names, or not different ones" if names else "no header"
        raise PipelineError(f"{path} has {what}: give every column a name in the first line")
    return names


class _Lines:
    """The lines of a file, and how far they have been read."""

    def __init__(self, stream: BinaryIO, path: str):
        self.offset = self.start = stream.tell()
        self._stream, self._path = stream, path

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._stream.readline(_MAX_ROW_BYTES)
        self.offset += len(line)
        if self.offset - self.start >= _MAX_ROW_BYTES:
            raise PipelineError(f"{self._path} has a row of more than {_MAX_ROW_BYTES} bytes at byte {self.start}")
        if not line:
            raise StopIteration
        return line.decode("utf-8", "surrogateescape")


def _rows(stream: BinaryIO, path: str) -> Iterator[tuple[int, list[str]]]:
    """Where each row begins, and its cells; lines without any are passed over. A quoted cell may hold line breaks."""
    lines = _Lines(stream, path)
    reader = csv.reader(lines, strict=True)
    while True:
        lines.start = lines.offset
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise PipelineError(f"{path} cannot be read at byte {lines.start}: {error}; mend its quotes") from error
        if cells:
            yield lines.start, cells


def _numbers(cells: Sequence[str], names: Sequence[str]) -> np.ndarray:
    try:
        _refuse_odd("".join(cells))
        values = list(map(float, cells))
    except ValueError:
        name, cell = next(pair for pair in zip(names, cells, strict=True) if not _is_number(pair[1]))
        what = f"{cell[:50]!a}, expected a number" if cell.strip() else "empty"
        raise RowError(f"column {name!r} is {what}") from None
    with np.errstate(over="ignore"):  # a number beyond float32 becomes inf, which is rejected
        return np.array(values).astype(np.float32)


def _refuse_odd(text: str) -> None:
    """Python's float would take 1_000, and the digits of other scripts."""
    if "_" in text or not text.isascii():
        raise ValueError(text)


def _is_number(cell: str) -> bool:
    try:
        _refuse_odd(cell)
        float(cell)
    except ValueError:
        return False
    return True


def _text(cell: str, what: str) -> str:
    if not cell:
        raise RowError(f"the {what} is empty")
    if not _is_utf8(cell):
        raise RowError(f"the {what} is not UTF-8")
    return cell


def _is_utf8(cell: str) -> bool:
    return not any(0xDC80 <= ord(letter) <= 0xDCFF for letter in cell)


def _by_number(names: tuple[str, ...]) -> tuple[str, ...]:
    """Names of classes, where they are whole numbers those from 0 to the largest."""
    numbers = [int(name) for name in names if name.isascii() and name.isdigit() and len(name) < 10]
    if sorted(map(str, numbers)) == sorted(names) and max(numbers) < MAX_CLASSES:
        return class_names([np.array(numbers)])
    return names
