"""CSV files: numbers in columns, a key and a label among them."""

import itertools
import math
import os
from collections.abc import Iterator, Sequence
from typing import BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .. import contract
from ..errors import PipelineError, RowError
from ..formats.csv_blocks import LONGEST_LINE, line_starts, lines_at, read_block
from ..formats.csv_text import SUFFIXES, is_number, open_csv, read_header, read_rows
from ..formats.files import find_files, folder_values, root_of
from .base import Batch, Opened, RowSource, Source, good_rows
from .csv_columns import Columns, text
from .plan import Plan, Schema, describe, refuse_blanks
from .table_rows import Classes, ClassIndex, TableRows

_LARGEST, _SMALLEST, _FACTOR = 8 << 20, 16 << 10, 8  # bytes of a block, which shrinks where the text is not plain
_MAX_CATEGORIES = 1000
_SAMPLE = 100  # rows that show whether a column holds words


class Csv(RowSource):
    """A CSV file, a folder of them, or a pattern: UTF-8, commas, gzip or not, and a header that names the columns.

    ``key`` names the column with the key; without it that is ``key``, and where there is no such column, ``FILE:ROW``
    by the number of the row. ``label`` likewise: whole numbers from 0 up in every row are classes by number, anything
    else by name. All other columns but those in ``drop``, in the order of the file, make ``x``, a vector of float32;
    a column in ``categories`` holds words and makes a number for each of them, 1 for the row's own and else 0. Columns
    called ``pixel0``, ``pixel1`` ... that make a square are a grey picture of uint8; ``shape`` and ``dtype`` say
    otherwise. With ``no_header`` the first line is a row and the columns are called by their numbers, from 0.

    With ``missing`` a cell of a column of numbers that is empty, or one of NA, N/A, NULL, None, NaN, ? and -, is NaN.

    Files must agree on their columns, of which those of folders ``NAME=VALUE`` are some. A row with a cell that is
    empty or no number, or with more or fewer cells than the header, is rejected. The position of a row is the byte
    where it begins, of the unpacked content.
    """

    takes = ("key", "label", "shape", "dtype", "no_header", "drop", "categories", "columns", "missing")

    def plan(self) -> Plan:
        """See ``Source.plan``."""
        found = find_files(self.input_path, SUFFIXES)
        rows, classes = TableRows(), Classes()
        first: tuple[str, ...] = ()
        words: list[set[str]] = [set() for _ in dict.fromkeys(self.fields.categories or ())]
        for file in found.files:
            path = found.path(file)
            with open_csv(path) as stream:
                columns = self._columns(stream, path, file)
                first = first or columns.names
                if columns.names != first:
                    raise PipelineError(f"{path} and {found.files[0]} have different columns: take them apart")
                start = stream.tell()
                columns.refuse_text(path, (cells for _, cells in itertools.islice(read_rows(stream, path), _SAMPLE)))
                self._add(rows, classes, words, file, columns, _blocks(stream, path, start, columns))
        schema = self._schema(columns, classes, words)
        return rows.plan(schema, [describe(found.path(file), found.root) for file in found.files], found)

    def _columns(self, stream: BinaryIO, path: str, file: str) -> Columns:
        fields = self.fields
        named = [fields.key, fields.label, *(fields.drop or ()), *(fields.categories or ())]
        known = [contract.KEY, contract.LABEL, *(name for name in named if name), *(c[0] for c in fields.columns or ())]
        names = read_header(stream, path, known, no_header=bool(fields.no_header))
        return Columns.of(path, names, fields, folder_values(file))

    def _schema(self, columns: Columns, classes: Classes, words: Sequence[set[str]]) -> Schema:
        for column, found in zip(columns.categories, words, strict=True):
            refuse_blanks(f"column {columns.names[column]!r} of {self.input_path}", found)
        made = columns.schema([sorted(found) for found in words])
        if self.fields.columns:
            names = [name for name, _ in self.fields.columns]
            if names != [name for name, _ in made]:
                had = [name for name, _ in made]
                raise PipelineError(f"{self.input_path} has the columns {had[:20]}, expected {names[:20]}")
            made = self.fields.columns
        width = sum(1 if categories is None else len(categories) for _, categories in made)
        labels = None if columns.label is None else classes.names(self.input_path)
        return Schema(*columns.layout(self.input_path, self.fields, width), labels, made)

    def _add(
        self,
        rows: TableRows,
        classes: Classes,
        words: Sequence[set[str]],
        file: str,
        columns: Columns,
        blocks: Iterator["_Texts"],
    ) -> None:
        """Takes what the plan needs of a file's rows."""
        first = 0
        for block in blocks:
            cells = dict(zip(columns.texts, block.cells, strict=True))
            good = [row for row in range(len(block.positions)) if row not in block.reasons] if block.reasons else None
            numbers = range(first, first + len(block.positions))
            own = None if columns.key is None else cells[columns.key]
            keys = [f"{file}:{row}" for row in numbers] if own is None else [key or None for key in own]
            rows.add(file, keys, block.positions, block.reasons)
            if columns.label is not None:
                classes.add(_distinct(cells[columns.label], good))
            for column, found in zip(columns.categories, words, strict=True):
                found |= _distinct(cells[column], good)
                if len(found) > _MAX_CATEGORIES:
                    raise PipelineError(
                        f"column {columns.names[column]!r} of {file} has more than {_MAX_CATEGORIES} categories: "
                        "take it for the --key, or --drop it"
                    )
            first += len(block.positions)

    def read(self, file: str, positions: np.ndarray, schema: Schema) -> Batch:
        """See ``Source.read``: what Arrow reads plainly, and the other rows one by one."""
        x = np.zeros([len(positions), *schema.shape], schema.dtype)
        labels = np.zeros(len(positions), np.int64)
        doubtful = np.ones(len(positions), bool)
        path = self._path(file)
        with open_csv(path) as header, open_csv(path, mapped=True) as stream:
            columns = self._columns(header, path, file)
            first, step = 0, len(positions)
            while first < len(positions):
                some = slice(first, first + step)
                block = _plain_values(lines_at(stream, positions[some]), len(positions[some]), columns, schema)
                if block is None and step > 64:
                    step = step // _FACTOR
                    continue
                if block is not None:
                    x[some], labels[some], doubtful[some] = block
                    step *= _FACTOR
                first = some.stop
        left = np.flatnonzero(doubtful)
        exact = super().read(file, positions[left], schema)
        x[left[exact.good]] = exact.x
        if exact.labels is not None:
            labels[left[exact.good]] = exact.labels
        reasons = {int(left[row]): reason for row, reason in exact.reasons.items()}
        return good_rows(x, None if schema.labels is None else labels, reasons)

    def read_rows(self, rows: pa.Table, schema: Schema) -> Batch:
        """See ``Source.read_rows``: the rows of a file are read together."""
        return Source.read_rows(self, rows, schema)

    def open(self, file: str, schema: Schema) -> Opened:
        """See ``RowSource.open``; the position is the offset of a row."""
        path = self._path(file)
        stream = open_csv(path)
        columns, index = self._columns(stream, path, file), ClassIndex(schema.labels)

        def row(position: int) -> tuple[np.ndarray, int | None]:
            stream.seek(position)
            _, cells = next(read_rows(stream, path), (0, []))
            if len(cells) != columns.width:
                raise PipelineError(f"{path} has no row of {columns.width} cells at byte {position}: it has changed")
            cells = [*cells, *columns.folders]
            x = columns.encode(cells, schema.columns or (), schema.dtype).reshape(schema.shape)
            return x, None if columns.label is None else index.of(cells[columns.label])

        return row

    def _path(self, file: str) -> str:
        return os.path.join(root_of(self.input_path), *file.split("/"))


class _Texts(NamedTuple):
    """Rows on the driver: where each begins, the cells of each column of text, and why some rows are bad."""

    positions: np.ndarray
    cells: list[list[str]]
    reasons: dict[int, str]


def _blocks(stream: BinaryIO, path: str, start: int, columns: Columns) -> Iterator[_Texts]:
    """The rows from an offset on, by blocks that shrink where a row is not plainly a line."""
    size = _LARGEST
    while True:
        stream.seek(start)
        lines = stream.read(size)
        lines += stream.readline(LONGEST_LINE + 1) if lines and not lines.endswith(b"\n") else b""
        if not lines:
            return
        block = _plain_texts(lines, start, columns)
        if block is None and size > _SMALLEST:
            size = max(_SMALLEST, size // _FACTOR)
            continue
        if block is None:
            stream.seek(start)
            block, start = _exact_texts(stream, path, start + len(lines), columns)
        else:
            start, size = start + len(lines), min(_LARGEST, size * _FACTOR)
        yield block


def _plain_texts(lines: bytes, start: int, columns: Columns) -> _Texts | None:
    starts = line_starts(lines)
    table = None if starts is None else _table(lines, columns, [], list(columns.texts))
    if starts is None or table is None or len(table) != len(starts):
        return None
    cells = [table[str(column)].to_pylist() for column in columns.texts]
    reasons: dict[int, str] = {}
    for what, column in zip(columns.texts.values(), cells, strict=True):
        if "" in column:
            for row in (row for row, cell in enumerate(column) if not cell):
                reasons.setdefault(row, _why_no_text("", what))
    return _Texts(starts + start, cells, reasons)


def _table(lines: bytes, columns: Columns, numbers: Sequence[int], texts: Sequence[int]) -> pa.Table | None:
    """See ``read_block``; with the cells that the folders say."""
    own = [[i for i in some if i < columns.width] for some in (numbers, texts)]
    table = read_block(lines, columns.width, *own)
    for i, cell in enumerate(columns.folders, columns.width):
        number = float(cell) if is_number(cell) else None
        value = pa.scalar(cell) if i in texts else pa.scalar(number, pa.float64())
        table = table and table.append_column(str(i), pa.chunked_array([pa.repeat(value, len(table))]))
    return table


def _why_no_text(cell: str, what: str) -> str:
    try:
        text(cell, what)
    except RowError as error:
        return str(error)
    return ""


def _exact_texts(stream: BinaryIO, path: str, end: int, columns: Columns) -> tuple[_Texts, int]:
    """The rows that begin before ``end``, and where the next one does."""
    block = _Texts(np.zeros(0, np.int64), [[] for _ in columns.texts], {})
    positions: list[int] = []
    for position, cells in read_rows(stream, path):
        if position >= end:
            return block._replace(positions=np.array(positions, np.int64)), position
        row = len(positions)
        positions.append(position)
        whole = len(cells) == columns.width
        if not whole:
            block.reasons[row] = f"{len(cells)} cells, expected {columns.width}"
        cells = [*cells, *columns.folders]
        for (column, what), found in zip(columns.texts.items(), block.cells, strict=True):
            cell = cells[column] if whole else ""
            found.append(cell)
            if whole and (why := _why_no_text(cell, what)):
                block.reasons.setdefault(row, why)
                found[-1] = ""
    return block._replace(positions=np.array(positions, np.int64)), stream.tell()


def _distinct(cells: Sequence[str], good: Sequence[int] | None) -> set[str]:
    return set(cells) if good is None else {cells[row] for row in good}


def _plain_values(
    lines: bytes, rows: int, columns: Columns, schema: Schema
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Observations, labels and which rows must be read exactly, of lines that are plain; else None."""
    starts = line_starts(lines)
    texts = [i for i in columns.texts if i != columns.key or i == columns.label]
    table = None if starts is None else _table(lines, columns, columns.numbers, texts)
    if starts is None or table is None or not len(table) == len(starts) == rows:
        return None
    doubtful, may_be_nan = np.zeros(rows, bool), columns.missing and schema.dtype == "float32"
    x = np.empty([rows, math.prod(schema.shape)], schema.dtype)
    at = 0
    for i, (_, categories) in zip(columns.values, schema.columns or (), strict=True):
        column = table[str(i)]
        if categories is None:
            x[:, at], wrong = _as(schema.dtype, column.to_numpy())
            doubtful |= wrong & ~column.is_null().to_numpy() if may_be_nan else wrong
        else:
            index = _indices(column, categories)
            x[:, at : at + len(categories)] = index[:, None] == np.arange(len(categories))
            doubtful |= index < 0
        at += 1 if categories is None else len(categories)
    labels = np.zeros(rows, np.int64)
    if schema.labels and columns.label is not None:
        labels = _indices(table[str(columns.label)], schema.labels)
        doubtful |= labels < 0
    return x.reshape(rows, *schema.shape), labels, doubtful


def _as(dtype: str, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers as they are stored, and which of them cannot be."""
    with np.errstate(over="ignore", invalid="ignore"):
        stored = values.astype(dtype)
        if dtype == "uint8":
            return stored, stored != values
        rounded = (stored != values) & (values == np.rint(values))  # whole, unless the cell has a point
        return stored, ~np.isfinite(stored) | rounded | (np.abs(values) >= 2.0**53)


def _indices(column: pa.ChunkedArray, names: Sequence[str]) -> np.ndarray:
    """The number of each cell among the names, -1 for none of them."""
    return pc.fill_null(pc.index_in(column, pa.array(names, pa.string())), -1).to_numpy().astype(np.int64)
