"""What a source is: the plan of an input's rows, and how to read those of one file together."""

import abc
import dataclasses
import itertools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pyarrow as pa

from ..errors import PipelineError, RowError
from ..formats.arrays import finite_rows
from .plan import Column, Plan, Schema, texts

MAX_PIXELS = 1 << 26


@dataclasses.dataclass(frozen=True)
class Fields:
    """How the fields of a row are called and what its observation looks like; None is each source's own default.

    Attributes:
        key: Column or feature with the key.
        column: Column or feature with the observation.
        label: Column or feature with the class.
        shape: An observation's shape.
        dtype: What an observation that is raw bytes holds, ``uint8`` or ``float32``.
        no_header: True where a table has no names of columns.
        drop: Columns that are no part of the observation.
        categories: Columns of words that are.
        columns: The columns that the table must have: see ``Schema.columns``.
        resize: Height and width that pictures get: see ``formats.resizing``.
        crop: True where they are cut to these proportions before.
        missing: True where values may be missing, which are NaN then.
    """

    key: str | None = None
    column: str | None = None
    label: str | None = None
    shape: tuple[int, ...] | None = None
    dtype: str | None = None
    no_header: bool | None = None
    drop: tuple[str, ...] | None = None
    categories: tuple[str, ...] | None = None
    columns: tuple[Column, ...] | None = None
    resize: tuple[int, int] | None = None
    crop: bool | None = None
    missing: bool | None = None

    def over(self, other: "Fields") -> "Fields":
        """These, and what they leave open as in ``other``."""
        return dataclasses.replace(other, **self.given())

    def given(self) -> dict[str, Any]:
        """Those that are not None, by name.

        Example:
            >>> Fields(key="id").given()
            {'key': 'id'}
        """
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}


@dataclasses.dataclass(frozen=True)
class Batch:
    """Rows that were read together.

    Attributes:
        good: Which of the references are good rows, as indices, `[M]`.
        x: Their observations, `[M, *shape]`.
        labels: Their class indices, `[M]`, where the source has labels.
        reasons: Why the others are bad, by index.
    """

    good: np.ndarray
    x: np.ndarray
    labels: np.ndarray | None
    reasons: dict[int, str]


class Source(abc.ABC):
    """A raw format. Holds plain values only, because it travels to the workers.

    Args:
        kind: As on the command line; ``tfds:NAME`` carries its argument here.
        input_path: A file, a folder or a pattern; None for a source that needs none.
        max_pixels: Images with more pixels (height times width) are rejected before they are decoded.
        fields: Names and layout of the fields, for the sources that ``takes`` them.

    Attributes:
        takes: Which of the ``Fields`` mean something to this source.
        looks_below: Whether it looks into the sub-folders of a folder.
        block_bytes: How much a worker reads, counts and writes together; more where a file has no random access.

    Example:
        >>> from tfvae.pipelines.sources import make_source
        >>> source = make_source("digits", None)
        >>> plan = source.plan()
        >>> batch = source.read_rows(plan.rows.slice(0, 3), plan.schema)
        >>> batch.x.shape, batch.labels.tolist()
        ((3, 8, 8, 1), [0, 1, 2])
    """

    needs_input = True
    takes: tuple[str, ...] = ()
    looks_below = True
    block_bytes = 8 << 20

    def __init__(self, kind: str, input_path: str | None, max_pixels: int = MAX_PIXELS, fields: Fields | None = None):
        if self.needs_input and not input_path:
            raise PipelineError(f"source {kind} reads files: say where with --input")
        self.kind, self.input_path, self.max_pixels = kind, input_path or "", max_pixels
        self.fields = fields or Fields()
        for name in self.fields.given():
            if name not in self.takes:
                raise PipelineError(f"source {kind} has no use for --{name.replace('_', '-')}: leave it out")

    @property
    def missing(self) -> bool:
        """Whether values may be missing, which are NaN then."""
        return bool(self.fields.missing)

    @property
    def name(self) -> str:
        """The dataset's name: a TFDS identifier."""
        return self.kind

    @abc.abstractmethod
    def plan(self) -> Plan:
        """The rows of the input. Called on the driver.

        Raises:
            PipelineError: A file is broken as a whole, or there are no rows.
        """

    @abc.abstractmethod
    def read(self, file: str, positions: np.ndarray, schema: Schema) -> Batch:
        """The rows of one file of the plan at these positions, int64 `[N]`, none before its predecessor.

        Raises:
            PipelineError: The file is broken as a whole.
        """

    def read_rows(self, rows: pa.Table, schema: Schema) -> Batch:
        """Rows of a plan in any order: a file after the other, each from its front to its end."""
        x, labels = _empty_rows(len(rows), schema)
        reasons: dict[int, str] = {}
        names, numbers, positions, order = _in_order(rows)
        for members in np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1) if len(order) else ():
            batch = self.read(names[numbers[members[0]]], positions[members], schema)
            x[members[batch.good]] = batch.x
            if labels is not None and batch.labels is not None:
                labels[members[batch.good]] = batch.labels
            reasons |= {int(members[i]): reason for i, reason in batch.reasons.items()}
        return good_rows(x, labels, reasons)


def _in_order(rows: pa.Table) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray]:
    """Files of a plan's rows, which of them each row has, its position, and the order by file and position."""
    names, numbers = texts(rows["file"])
    positions = rows["position"].to_numpy()
    return names, numbers, positions, np.lexsort((positions, np.argsort(np.argsort(names))[numbers]))


def _empty_rows(count: int, schema: Schema) -> tuple[np.ndarray, np.ndarray | None]:
    """Room for so many observations and, where rows have labels, for these."""
    labels = None if schema.labels is None else np.zeros(count, np.int64)
    return np.empty([count, *schema.shape], schema.dtype), labels


def good_rows(x: np.ndarray, labels: np.ndarray | None, reasons: dict[int, str]) -> Batch:
    """A batch of the rows that have no reason against them."""
    if not reasons:
        return Batch(np.arange(len(x)), x, labels, reasons)
    good = np.array([i for i in range(len(x)) if i not in reasons], np.int64)
    return Batch(good, x[good], None if labels is None else labels[good], reasons)


Opened = Callable[[int], tuple[np.ndarray, int | None]]


class RowSource(Source):
    """A source whose rows are read one by one."""

    @abc.abstractmethod
    def open(self, file: str, schema: Schema) -> Opened:
        """A function from a position in ``file`` to ``(x, label)``; it raises RowError for a bad row."""

    def read(self, file: str, positions: np.ndarray, schema: Schema) -> Batch:
        """See ``Source.read``."""
        places = zip(range(len(positions)), itertools.repeat(file), positions.tolist())
        return self._read_each(places, len(positions), schema)

    def read_rows(self, rows: pa.Table, schema: Schema) -> Batch:
        """See ``Source.read_rows``; where each file holds one row, a batch for each would cost more than to read it."""
        names, numbers, positions, order = _in_order(rows)
        files = map(names.__getitem__, numbers[order].tolist())
        return self._read_each(zip(order.tolist(), files, positions[order].tolist(), strict=True), len(rows), schema)

    def _read_each(self, places: Iterable[tuple[int, str, int]], count: int, schema: Schema) -> Batch:
        """Rows by their number, file and position, a file's together."""
        x, labels = _empty_rows(count, schema)
        reasons: dict[int, str] = {}
        current = None
        for i, file, position in places:
            if file != current:
                current, opened = file, self.open(file, schema)
            try:
                row, label = opened(position)
                _check(row, label, schema, self.missing)
            except RowError as error:
                reasons[i] = str(error)
                continue
            x[i] = row
            if labels is not None and label is not None:
                labels[i] = label
        return good_rows(x, labels, reasons)


class ArraySource(Source):
    """A source whose files are arrays of rows: read by slices."""

    @abc.abstractmethod
    def arrays(self, file: str) -> tuple[np.ndarray, np.ndarray | None]:
        """The rows of a file, `[N, ...]`, and their labels `[N]`; cheap to ask for again.

        Raises:
            PipelineError: The file is broken as a whole.
        """

    def read(self, file: str, positions: np.ndarray, schema: Schema) -> Batch:
        """See ``Source.read``."""
        rows, own_labels = self.arrays(file)
        with np.errstate(over="ignore"):  # a float64 beyond float32 becomes inf, which is rejected
            x = np.asarray(rows[positions], schema.dtype).reshape(-1, *schema.shape)
        labels = None if own_labels is None else own_labels[positions].astype(np.int64)
        bad = np.zeros(len(positions), bool) if x.dtype.kind != "f" else ~finite_rows(x, self.missing)
        if labels is not None:
            bad |= (labels < 0) | (labels >= len(schema.labels or ()))
        reasons: dict[int, str] = {}
        for i in np.flatnonzero(bad).tolist():
            try:
                _check(x[i], None if labels is None else int(labels[i]), schema, self.missing)
            except RowError as error:
                reasons[i] = str(error)
        return good_rows(x, labels, reasons)


def _check(x: np.ndarray, label: int | None, schema: Schema, missing: bool) -> None:
    if x.shape != schema.shape:
        raise RowError(f"shape {list(x.shape)}, expected {list(schema.shape)}")
    if x.dtype != schema.dtype:
        raise RowError(f"dtype {x.dtype}, expected {schema.dtype}")
    if x.dtype.kind == "f" and not (good := np.isfinite(x) | (missing & np.isnan(x))).all():
        raise RowError(f"{int((~good).sum())} of {x.size} values are not finite")
    if label is not None and not 0 <= label < len(schema.labels or ()):
        raise RowError(f"label {label}, expected a class from 0 to {len(schema.labels or ()) - 1}")
