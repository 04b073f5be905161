"""What a source is: the plan of an input's rows, and how to read one of them, or many together."""

import abc
import bisect
import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from pipelines import storage
from pipelines.errors import PipelineError, Rejection, RowError
from pipelines.formats.arrays import finite_rows

MAX_PIXELS = 1 << 26
MAX_CLASSES = 1 << 16


class Row(NamedTuple):
    """A good row: ``x`` of the plan's shape and dtype, and its class index where the source has labels."""

    x: np.ndarray
    label: int | None


class Input(NamedTuple):
    """A file that was read, as manifests list it; the path is relative to the input, never absolute."""

    path: str
    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Schema:
    """What every row looks like: shape and dtype of ``x``, and the names of the labels or None."""

    shape: tuple[int, ...]
    dtype: str
    labels: tuple[str, ...] | None


@dataclasses.dataclass(frozen=True)
class Fields:
    """How the fields of a row are called and what its observation looks like; None is each source's own default.

    Attributes:
        key: Column or feature with the key.
        column: Column or feature with the observation.
        label: Column or feature with the class.
        shape: An observation's shape.
        dtype: What an observation that is raw bytes holds, ``uint8`` or ``float32``.
    """

    key: str | None = None
    column: str | None = None
    label: str | None = None
    shape: tuple[int, ...] | None = None
    dtype: str | None = None

    def given(self) -> dict[str, Any]:
        """Those that are not None, by name.

        Example:
            >>> Fields(key="id").given()
            {'key': 'id'}
        """
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}


@dataclasses.dataclass(frozen=True)
class Plan:
    """All rows of an input, as columns in the order of the source.

    Attributes:
        schema: What every row looks like.
        keys: Stable names, `[N]`.
        splits: The source's own split of each row, or None where the format has none, `[N]`.
        files: Where each row lies, `[N]`; what ``Source.open`` takes.
        positions: Where in that file, `[N]`.
        inputs: Every file that can change the result.
        rejected: What was found bad already.
    """

    schema: Schema
    keys: list[str]
    splits: list[str | None]
    files: list[str]
    positions: list[int]
    inputs: list[Input]
    rejected: list[Rejection] = dataclasses.field(default_factory=list)

    def place(self, row: int) -> str:
        """Where a row lies, as reasons say it: ``FILE:POSITION``."""
        return f"{self.files[row]}:{self.positions[row]}"


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


Opened = Callable[[int], tuple[np.ndarray, int | None]]


class Source(abc.ABC):
    """A raw format. Holds plain values only, because it travels to the workers.

    Args:
        kind: As on the command line; ``tfds:NAME`` carries its argument here.
        input_path: A file, a folder or a pattern; None for a source that needs none.
        max_pixels: Images with more pixels (height times width) are rejected before they are decoded.
        fields: Names and layout of the fields, for the sources that ``takes`` them.

    Attributes:
        takes: Which of the ``Fields`` mean something to this source.
        block_bytes: How much a worker reads, counts and writes together; more where a file has no random access.

    Example:
        >>> from pipelines.sources import make_source
        >>> source = make_source("digits", None)
        >>> plan = source.plan()
        >>> rows = list(source.read(plan.schema, zip(plan.files, plan.positions)))
        >>> len(rows), rows[0].x.shape, rows[0].label
        (1797, (8, 8, 1), 0)
    """

    needs_input = True
    takes: tuple[str, ...] = ()
    block_bytes = 8 << 20

    def __init__(self, kind: str, input_path: str | None, max_pixels: int = MAX_PIXELS, fields: Fields | None = None):
        if self.needs_input and not input_path:
            raise PipelineError(f"source {kind} reads files: say where with --input")
        self.kind, self.input_path, self.max_pixels = kind, input_path or "", max_pixels
        self.fields = fields or Fields()
        for name in self.fields.given():
            if name not in self.takes:
                raise PipelineError(f"source {kind} has no use for --{name}: leave it out")

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
    def open(self, file: str, schema: Schema) -> Opened:
        """A function from a position in ``file`` to ``(x, label)``; it raises RowError for a bad row."""

    def read(self, schema: Schema, references: Iterable[tuple[str, int]]) -> Iterator[Row | RowError]:
        """Rows by reference, in the order of the references; for a bad row, why it is bad.

        Raises:
            PipelineError: A file is broken as a whole.
        """
        current, opened = None, None
        for file, position in references:
            try:
                if opened is None or file != current:
                    current, opened = file, self.open(file, schema)
                x, label = opened(position)
                yield _checked(x, label, schema)
            except RowError as error:
                yield error

    def read_batch(self, schema: Schema, references: Sequence[tuple[str, int]]) -> Batch:
        """The same rows as ``read``, together. They are read in the order of the files, whatever their own is."""
        x = np.empty([len(references), *schema.shape], schema.dtype)
        labels = None if schema.labels is None else np.zeros(len(references), np.int64)
        reasons: dict[int, str] = {}
        order = sorted(range(len(references)), key=references.__getitem__)
        for i, row in zip(order, self.read(schema, [references[i] for i in order]), strict=True):
            if isinstance(row, Row):
                x[i] = row.x
                if labels is not None and row.label is not None:
                    labels[i] = row.label
            else:
                reasons[i] = str(row)
        return _batch(x, labels, reasons)


def _batch(x: np.ndarray, labels: np.ndarray | None, reasons: dict[int, str]) -> Batch:
    """A batch of the rows that have no reason against them."""
    if not reasons:
        return Batch(np.arange(len(x)), x, labels, reasons)
    good = np.array([i for i in range(len(x)) if i not in reasons], np.int64)
    return Batch(good, x[good], None if labels is None else labels[good], reasons)


class ArraySource(Source):
    """A source whose files are arrays of rows: read by slices."""

    @abc.abstractmethod
    def arrays(self, file: str) -> tuple[np.ndarray, np.ndarray | None]:
        """The rows of a file, `[N, ...]`, and their labels `[N]`; cheap to ask for again.

        Raises:
            PipelineError: The file is broken as a whole.
        """

    def open(self, file: str, schema: Schema) -> Opened:
        """See ``Source.open``."""
        x, labels = self.arrays(file)
        return lambda position: (_cast(x[position], schema), None if labels is None else int(labels[position]))

    def read_batch(self, schema: Schema, references: Sequence[tuple[str, int]]) -> Batch:
        """See ``Source.read_batch``. A row that looks bad is read by itself, to say why."""
        files = list(dict.fromkeys(file for file, _ in references))
        x = np.empty([len(references), *schema.shape], schema.dtype)
        labels = None if schema.labels is None else np.empty(len(references), np.int64)
        for file in files:
            rows, own_labels = self.arrays(file)
            members = np.array([i for i, (name, _) in enumerate(references) if name == file])
            positions = np.array([references[i][1] for i in members])
            x[members] = _cast(rows[positions], schema, len(members))
            if labels is not None and own_labels is not None:
                labels[members] = own_labels[positions]
        doubtful = np.zeros(len(references), bool)
        if labels is not None:
            doubtful |= (labels < 0) | (labels >= len(schema.labels or ()))
        if x.dtype.kind == "f":
            doubtful |= ~finite_rows(x)
        bad = np.flatnonzero(doubtful)
        reasons = {
            int(i): str(why) for i, why in zip(bad, self.read(schema, [references[int(i)] for i in bad]), strict=True)
        }
        return _batch(x, labels, reasons)


class BlockSource(Source):
    """A source whose files are read by blocks of rows, because one row costs nearly as much as a block of them."""

    block_bytes = 64 << 20

    @abc.abstractmethod
    def gather(self, file: str, positions: np.ndarray, schema: Schema) -> Batch:
        """The rows of one file at these positions, int64 `[N]` in rising order.

        Raises:
            PipelineError: The file is broken as a whole.
        """

    def open(self, file: str, schema: Schema) -> Opened:
        """See ``Source.open``."""

        def row(position: int) -> tuple[np.ndarray, int | None]:
            batch = self.gather(file, np.array([position]), schema)
            if batch.reasons:
                raise RowError(batch.reasons[0])
            return batch.x[0], None if batch.labels is None else int(batch.labels[0])

        return row

    def read(self, schema: Schema, references: Iterable[tuple[str, int]]) -> Iterator[Row | RowError]:
        """See ``Source.read``."""
        wanted = list(references)
        batch = self.read_batch(schema, wanted)
        labels = [None] * len(batch.good) if batch.labels is None else batch.labels.tolist()
        rows = dict(zip(batch.good.tolist(), map(Row, batch.x, labels), strict=True))
        for i in range(len(wanted)):
            yield rows[i] if i in rows else RowError(batch.reasons[i])

    def read_batch(self, schema: Schema, references: Sequence[tuple[str, int]]) -> Batch:
        """See ``Source.read_batch``: a file after the other, each from its front to its end."""
        x = np.empty([len(references), *schema.shape], schema.dtype)
        labels = None if schema.labels is None else np.zeros(len(references), np.int64)
        reasons: dict[int, str] = {}
        order = np.array(sorted(range(len(references)), key=references.__getitem__), np.int64)
        names = [references[i][0] for i in order]
        for file in dict.fromkeys(names):
            members = order[bisect.bisect_left(names, file) : bisect.bisect_right(names, file)]
            batch = self.gather(file, np.array([references[i][1] for i in members]), schema)
            x[members[batch.good]] = batch.x
            if labels is not None and batch.labels is not None:
                labels[members[batch.good]] = batch.labels
            reasons |= {int(members[i]): reason for i, reason in batch.reasons.items()}
        return _batch(x, labels, reasons)


def _cast(x: np.ndarray, schema: Schema, *count: int) -> np.ndarray:
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes inf, which is rejected
        return np.asarray(x, schema.dtype).reshape(*count, *schema.shape)


def _checked(x: np.ndarray, label: int | None, schema: Schema) -> Row:
    if x.shape != schema.shape:
        raise RowError(f"shape {list(x.shape)}, expected {list(schema.shape)}")
    if x.dtype != schema.dtype:
        raise RowError(f"dtype {x.dtype}, expected {schema.dtype}")
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        raise RowError(f"{int((~np.isfinite(x)).sum())} of {x.size} values are not finite")
    if label is not None and not 0 <= label < len(schema.labels or ()):
        raise RowError(f"label {label}, expected a class from 0 to {len(schema.labels or ()) - 1}")
    return Row(x, label)


def numbered(prefix: str, count: int) -> list[str]:
    """Keys of rows that have none of their own."""
    return [f"{prefix}-{index:05d}" for index in range(count)]


def describe(path: str, root: str) -> Input:
    """What a manifest says of an input file, its path relative to ``root``."""
    return Input(os.path.relpath(path, root).replace(os.sep, "/"), storage.identify(path).size, storage.sha256(path))


def class_names(labels: Sequence[np.ndarray]) -> tuple[str, ...]:
    """Names of the classes 0 to the largest label found.

    Raises:
        PipelineError: That one is too large for a class.
    """
    largest = max(int(array.max()) for array in labels)
    if largest >= MAX_CLASSES:
        raise PipelineError(f"the largest label is {largest}, expected classes from 0 to at most {MAX_CLASSES - 1}")
    return tuple(str(index) for index in range(largest + 1))


def concatenated(schema: Schema, parts: Sequence[tuple[str, str, str | None, int]], inputs: list[Input]) -> Plan:
    """A plan of array files, each part ``(file, key prefix, split, rows)``."""
    keys: list[str] = []
    splits: list[str | None] = []
    files: list[str] = []
    positions: list[int] = []
    for file, prefix, split, rows in parts:
        keys += numbered(prefix, rows)
        splits += [split] * rows
        files += [file] * rows
        positions += range(rows)
    return Plan(schema, keys, splits, files, positions, inputs)
