"""What the embedding job reads: the plan of an input's blocks on the driver, a block of rows at a time in a worker.

Nothing but names and numbers crosses the runner. What a row looks like is settled between the input and the model's
signature before the job starts; a row that is not so is rejected, with its reason, and the others are kept.
"""

import abc
import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from .. import storage
from ..errors import PipelineError, Rejection, RowError
from ..formats.arrays import finite_rows
from ..formats.files import Content, FetchedOnce, Found
from ..formats.images import check_encoded
from ..formats.parquet import INTEGERS
from ..formats.standardization import REASON, Standardization
from ..sources.base import MAX_PIXELS

Writing = Callable[[str], contextlib.AbstractContextManager[BinaryIO]]  # opens a file to be written, by its name
BLOCK_BYTES = 32 << 20  # of observations; a block and its embeddings are what a worker holds in memory
BLOCK_ROWS = 65536
_IMAGE_BYTES = 32 << 10  # what an encoded image may well take


@dataclasses.dataclass(frozen=True)
class BlockReference:
    """A run of rows in one file of one split: a unit of work, or a slice of one that is joined.

    Attributes:
        split: Which split.
        file: Which file; of several the first.
        first: The position of its first row.
        rows: How many there are.
        files: Where each row is a file of its own, these.
        making: Where files are unread (see ``formats.files.Content``), what else is in its fingerprint: the fingerprint
            of the model and the options.
    """

    split: str
    file: str
    first: int
    rows: int
    files: tuple[str, ...] = ()
    making: str = ""


@dataclasses.dataclass
class Block:
    """Rows in memory, a whole unit of work or the next part of one.

    Attributes:
        file: Where they come from.
        keys: `[N]`.
        x: Observations, `[N, *event]`; encoded images as objects `[N]`.
        positions: In the file, `[N]`.
        rejected: Rows of the same run of records that are bad.
        kept: Further columns of the input that the output takes over, `[N]` each.
        files: Where each row comes from, of rows of several files.
        numbers: Each row's number in its unit, `[N]`, where that is not its position.
    """

    file: str
    keys: list[str]
    x: np.ndarray
    positions: np.ndarray
    rejected: list[Rejection]
    kept: pa.Table | None = None
    files: Sequence[str] | None = None
    numbers: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.keys)

    def rejection(self, row: int, reason: str) -> Rejection:
        """What to say of a row that turns out to be bad."""
        file = self.file if self.files is None else self.files[row]
        return Rejection(self.keys[row], file, int(self.positions[row]), reason)

    def standardized(self, by: Standardization) -> "Block":
        """The same rows in such units; those that are then not finite are rejected."""
        x = by(self.x)
        finite = finite_rows(x, missing=True)  # what is NaN came so
        bad = [self.rejection(row, REASON) for row in np.flatnonzero(~finite).tolist()]
        return dataclasses.replace(self, x=x).take(np.flatnonzero(finite), bad)

    def readable(self) -> "Block":
        """The rows whose encoded images ``pipelines.preprocess`` would take too; the others are rejected as there."""
        reasons: dict[int, str] = {}
        for row, content in enumerate(self.x.tolist()):
            try:
                check_encoded(content, MAX_PIXELS)
            except RowError as error:
                reasons[row] = str(error)
        if not reasons:
            return self
        good = np.array([row for row in range(len(self)) if row not in reasons], np.int64)
        return self.take(good, [self.rejection(row, reason) for row, reason in reasons.items()])

    def take(self, good: np.ndarray, rejected: Sequence[Rejection]) -> "Block":
        """The rows at the indices ``good``, and the others' rejections beside those that were there."""
        return dataclasses.replace(
            self,
            keys=[self.keys[row] for row in good],
            x=self.x[good],
            positions=self.positions[good],
            rejected=sorted([*self.rejected, *rejected], key=lambda row: row.position),
            kept=None if self.kept is None else self.kept.take(good),
            files=None if self.files is None else [self.files[row] for row in good],
            numbers=None if self.numbers is None else self.numbers[good],
        )


@dataclasses.dataclass(frozen=True)
class Rows(abc.ABC):
    """An input. Holds plain values only, because it travels to the workers.

    Attributes:
        path: Where the input lies, as it was given.
        shape: An observation's shape, without the batch; None where the signature decides.
        dtype: An observation's dtype: uint8, float32, or string for encoded images.
        signature: The signature that such rows are for, unless another is named.
        contents: What is in each file of the input.
        missing: Whether values may be missing, which are NaN then.
        stored: An observation's dtype where it lies, if it is taken as another.
    """

    path: str
    shape: tuple[int, ...] | None
    dtype: str
    signature: str
    contents: dict[str, Content] = dataclasses.field(hash=False)
    missing: bool = dataclasses.field(default=False, kw_only=True)
    stored: str | None = dataclasses.field(default=None, kw_only=True)

    @abc.abstractmethod
    def blocks(self, split: str | None) -> list[BlockReference]:
        """The units of work of a split; ``"all"`` is every row, None what such an input is mostly embedded for.

        They depend on the input alone.

        Raises:
            PipelineError: No such split.
        """

    @abc.abstractmethod
    def read(self, block: BlockReference) -> Iterator[Block]:
        """The rows of one unit, each checked, in parts of bounded size.

        Raises:
            PipelineError: The file is truncated or damaged.
        """

    def files_of(self, block: BlockReference) -> Sequence[str]:
        """The files that make the rows of a unit."""
        return [block.file]

    def digest(self, block: BlockReference) -> Any:
        """Plain values that change with the rows of a unit, and with nothing else."""
        return [self.contents[block.file].sha256, block.first, block.rows]

    def is_unread(self, block: BlockReference) -> bool:
        """Whether the digest of a unit is not known before its rows are read."""
        return self.is_far and any(self.contents[file].is_unread for file in self.files_of(block))

    def read_as(self, sha256: Mapping[str, str]) -> "Rows":
        """The same rows, of files that are read now and have these checksums, empty ones where they could not be."""
        unknown = Content("", size=None)
        read = {file: self.contents.get(file, unknown)._replace(sha256=one) for file, one in sha256.items()}
        contents = {file: content if content.sha256 else unknown for file, content in read.items()}
        return dataclasses.replace(self, contents={**self.contents, **contents})

    def fetched_once(self, sha256: dict[str, str]) -> "Rows":
        """The same rows, of files that are unread: their checksums are told to ``sha256`` when they are read."""
        return self

    def continuing(self, earlier: Iterable[Mapping[str, str]]) -> "Rows":
        """The same rows, in the units of an earlier run where those may stay: the SHA-256 of each one's files."""
        return self

    @property
    def is_far(self) -> bool:
        """Whether the files lie in a store, and two units of work may be read at a time."""
        return storage.is_address(self.path)

    @property
    def rejected(self) -> Sequence[Rejection]:
        """Rows that were found bad before any unit is read; they belong to none."""
        return ()

    @property
    def hidden(self) -> int:
        """How many files were passed over: see ``formats.files.is_hidden``."""
        return 0

    @property
    def is_standardized(self) -> bool:
        """Whether the columns were standardized before they were written."""
        return False

    @property
    def columns_sha256(self) -> str | None:
        """See ``checksums.columns_sha256``; None where rows have no columns with names."""
        return None

    @property
    def unread(self) -> tuple[str, ...]:
        """What else lies there: see ``formats.files.Found``."""
        return ()

    def listed_in(self, folder: str) -> "Rows":
        """The same rows, where a worker finds what ``write_lists`` wrote below this folder."""
        return self

    def write_lists(self, writing: Writing, folder: str, blocks: Sequence[BlockReference]) -> None:  # noqa: B027
        """Writes what a worker must know of the blocks' rows beyond their numbers, to files below that folder."""

    def to_travel(self) -> "Rows":
        """The same rows, for workers, who have no use for what the driver knows of the files."""
        return dataclasses.replace(self, contents={})

    def may_be(self, dtype: str) -> bool:
        """Whether the rows may be taken as a dtype: bytes as the numbers that they are, of which 1 is then the most."""
        return self.dtype == dtype or (self.dtype, dtype) == ("uint8", "float32")

    def fitted(self, shape: Sequence[int | None], dtype: str) -> "Rows":
        """The same rows as a signature takes them.

        Raises:
            PipelineError: They cannot be taken so.
        """
        own = self.shape or ()
        same = len(shape) == len(own) and all(a in (b, None) for a, b in zip(shape, own, strict=True))
        if not same or not self.may_be(dtype):
            raise PipelineError(
                f"the signature takes {dtype} {list(shape)}, the rows are {self.dtype} {list(own)}: "
                "embed with a model that was trained on this dataset"
            )
        return dataclasses.replace(self, dtype=dtype, stored=self.dtype)


@dataclasses.dataclass(frozen=True)
class WholeRows(Rows):
    """Files that were not prepared: they have no splits.

    Attributes:
        found: Where the files lie.
    """

    found: Found

    @property
    def hidden(self) -> int:
        """See ``Rows.hidden``."""
        return self.found.hidden

    @property
    def unread(self) -> tuple[str, ...]:
        """See ``Rows.unread``."""
        return self.found.unread

    def fetched_once(self, sha256: dict[str, str]) -> "WholeRows":
        """See ``Rows.fetched_once``."""
        found = FetchedOnce(self.found.root, self.found.files, sha256=sha256)
        return dataclasses.replace(self, found=found)

    @abc.abstractmethod
    def units(self) -> list[BlockReference]:
        """The units of work."""

    def blocks(self, split: str | None) -> list[BlockReference]:
        """See ``Rows.blocks``."""
        if split not in (None, "all"):
            raise PipelineError(
                f"{self.path} has no split {split!r}: files that were not prepared are embedded whole, leave it out"
            )
        return self.units()


@dataclasses.dataclass(frozen=True)
class ColumnRows(WholeRows):
    """Files whose columns are named by the user; ``dtype`` is ``bytes`` or ``integers`` where a signature decides.

    Attributes:
        key: Name of the column that holds the key (text or integers); None where rows are called ``FILE:NUMBER``.
        column: Name of the column that holds the observation.
        keep: Names of the columns that the output takes over.
    """

    key: str | None
    column: str
    keep: tuple[str, ...]

    def fitted(self, shape: Sequence[int | None], dtype: str) -> "ColumnRows":
        """See ``Rows.fitted``: flat values take the signature's shape, bytes its dtype."""
        known = tuple(size for size in shape if size is not None)
        width = np.dtype(dtype).itemsize if self.dtype == "bytes" and dtype != "string" else 1
        fits = self.shape is None or is_row_of(self.shape, (*known, width))
        taken = self.may_be(dtype) or self.dtype == "bytes" or (self.dtype == INTEGERS and dtype != "string")
        if not fits or len(known) < len(shape) or not taken:
            raise PipelineError(
                f"the signature takes {dtype} {list(shape)}, column {self.column!r} holds {self.dtype} "
                f"{'of any length' if self.shape is None else list(self.shape)}: name another --column or --signature"
            )
        stored = self.dtype if self.dtype == "uint8" else dtype
        return dataclasses.replace(self, shape=known, dtype=dtype, stored=stored)


def is_row_of(own: Sequence[int], wanted: Sequence[int]) -> bool:
    """Whether a row of one shape may be taken as one of the other: flat on either side, or equal but for sizes of 1.

    Of the same number of values, axes in another order would be read as others.

    Example:
        >>> is_row_of([192], [8, 8, 3]), is_row_of([8, 8], [8, 8, 1]), is_row_of([3, 8, 8], [8, 8, 3])
        (True, True, False)
    """
    one, other = ([size for size in shape if size != 1] for shape in (own, wanted))
    return one == other or (min(len(one), len(other)) <= 1 and math.prod(own) == math.prod(wanted))


def block_rows(shape: Sequence[int], dtype: str) -> int:
    """How many rows of this kind are held in memory at once.

    Example:
        >>> block_rows([28, 28, 1], "uint8")
        42799
    """
    row_bytes = _IMAGE_BYTES if dtype == "string" else int(np.prod(shape)) * np.dtype(dtype).itemsize
    return max(1, min(BLOCK_ROWS, BLOCK_BYTES // max(1, row_bytes)))


def bisect(
    rows: Sequence[int], work: Callable[[Sequence[int]], None], reject: Callable[[int, Exception], None]
) -> None:
    """Does ``work`` on rows; where it raises, on halves of them, down to the rows that fail by themselves.

    Args:
        rows: Any sequence that can be sliced.
        work: Does some rows at once, or raises having done nothing that a second try would not do again.
        reject: Told each row that fails by itself, and its error.

    Example:
        >>> def work(rows):
        ...     if 2 in rows:
        ...         raise ValueError("a bad row")
        >>> bisect(range(4), work, lambda row, error: print(row, error))
        2 a bad row
    """
    if len(rows) == 0:
        return
    try:
        work(rows)
    except Exception as error:  # whatever a model or a parser raises
        if len(rows) == 1:
            reject(rows[0], error)
            return
        middle = len(rows) // 2
        bisect(rows[:middle], work, reject)
        bisect(rows[middle:], work, reject)


def unknown_split(path: str, split: str, splits: Any) -> PipelineError:
    """The error for a split that the input does not have."""
    return PipelineError(f"{path} has no split {split!r}, expected one of {list(splits)} or 'all'")
