"""What a source finds on the driver: which rows there are, where each lies, and what all of them look like."""

import dataclasses
import functools
import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from .. import storage
from ..errors import PipelineError, Rejection
from ..formats.equals import later_of_equals

MAX_CLASSES = 1 << 16
_BLOCK = 1 << 16  # keys that are spelt out at once


class Input(NamedTuple):
    """A file that was read, as manifests list it; the path is relative to the input, never absolute."""

    path: str
    bytes: int
    sha256: str


Column = tuple[str, tuple[str, ...] | None]


@dataclasses.dataclass(frozen=True)
class Schema:
    """What every row looks like.

    Attributes:
        shape: The shape of ``x``.
        dtype: The dtype of ``x``.
        labels: The names of the classes, or None.
        columns: The columns of a table that make ``x``: a name, and None for numbers or the categories of a column of
            words, which is one number for each of them, 1 for the row's own.
    """

    shape: tuple[int, ...]
    dtype: str
    labels: tuple[str, ...] | None
    columns: tuple[Column, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values; ``columns`` where there are such."""
        value = dataclasses.asdict(self)
        return value if self.columns is not None else {name: value[name] for name in ("shape", "dtype", "labels")}


@dataclasses.dataclass(frozen=True)
class Plan:
    """All rows of an input, in the order of the source.

    Attributes:
        schema: What every row looks like.
        rows: A table: ``key``, a row's stable name; ``split``, the source's own, null where it has none; ``file`` and
            ``position``, where the row lies: what ``Source.read`` takes.
        inputs: Every file that can change the result.
        rejected: What was found bad already.
        hidden: How many files or members of archives were passed over: see ``formats.files.is_hidden``.
        unread: See ``formats.files.Found``.
        lost: The source's own splits that have no row any more, since each one's key had come before.
        were_integers: Whether the float32 of ``x`` are stored as integers, which might be bytes.

    Example:
        >>> rows = pa.concat_tables([located(["a", "b"], "x.csv", [0, 9]), located(["a"], "y.csv", [4])])
        >>> plan = Plan(Schema((2,), "float32", None), rows, [])
        >>> len(plan), plan.place(2), plan.without_repeated_keys().rejected[0].reason
        (3, 'y.csv:4', 'duplicate key, first at x.csv:0')
    """

    schema: Schema
    rows: pa.Table
    inputs: list[Input]
    rejected: list[Rejection] = dataclasses.field(default_factory=list)
    hidden: int = 0
    unread: tuple[str, ...] = ()
    were_integers: bool = False
    lost: tuple[str, ...] = ()

    def __len__(self) -> int:
        return self.rows.num_rows

    def place(self, row: int) -> str:
        """Where a row lies, as reasons say it: ``FILE:POSITION``."""
        return f"{self.rows['file'][row]}:{self.rows['position'][row]}"

    @functools.cached_property
    def digests(self) -> np.ndarray:
        """The first 128 bits of the SHA-256 of each key, as two numbers, uint64 `[N, 2]`."""
        blocks = (b"".join([hashlib.sha256(key).digest() for key in keys]) for keys in self._keys())
        return np.frombuffer(b"".join(blocks), ">u8").reshape(-1, 4)[:, :2].astype(np.uint64)

    @property
    def splits(self) -> np.ndarray:
        """The split of each row, `[N]`, where the source has none an empty text."""
        names, numbers = texts(self.rows["split"])
        return np.array([*names, ""])[numbers]

    def _keys(self) -> Iterator[list[bytes]]:
        for block in self.rows.select(["key"]).to_batches(_BLOCK):
            yield block.column(0).cast(pa.large_binary()).to_pylist()

    def without_repeated_keys(self) -> "Plan":
        """The first row of each key; the later ones are rejected."""
        later, first = later_of_equals(self.digests)
        if len(later) == 0:
            return self
        keys, files, positions = (self.rows[name].take(pa.array(later)).to_pylist() for name in _REFERENCE)
        rejected = [
            Rejection(key, file, position, f"duplicate key, first at {self.place(int(earlier))}")
            for key, file, position, earlier in zip(keys, files, positions, first, strict=True)
        ]
        kept = np.ones(len(self), bool)
        kept[later] = False
        lost = sorted({*self.splits[later]} - {*self.splits[kept]})
        rows, rejected = self.rows.filter(pa.array(kept)), self.rejected + rejected
        return dataclasses.replace(self, rows=rows, rejected=rejected, lost=tuple(map(str, lost)))


_REFERENCE = ("key", "file", "position")


def located(
    keys: Sequence[str], file: str, positions: Sequence[int] | np.ndarray, split: str | None = None
) -> pa.Table:
    """Rows of a plan that lie in one file and have one split."""
    return pa.table(
        {
            "key": pa.array(keys, pa.large_string()),
            "split": _repeated(split, len(keys)),
            "file": _repeated(file, len(keys)),
            "position": pa.array(positions, pa.int64()),
        }
    )


def _repeated(value: str | None, count: int) -> pa.Array:
    indices = pa.nulls(count, pa.int32()) if value is None else pa.array(np.zeros(count, np.int32))
    return pa.DictionaryArray.from_arrays(indices, pa.array([] if value is None else [value], pa.string()))


def texts(column: pa.ChunkedArray) -> tuple[list[str], np.ndarray]:
    """The different texts of a column of a plan and, int64 `[N]`, which of them each row has; -1 for null.

    Example:
        >>> texts(located(["a", "b"], "x.csv", [0, 9])["file"])
        (['x.csv'], array([0, 0]))
    """
    array = column.combine_chunks()
    return array.dictionary.to_pylist(), array.indices.fill_null(-1).to_numpy().astype(np.int64)


def together(tables: Sequence[pa.Table]) -> pa.Table:
    """Rows of a plan one after another, with one list of the files' names."""
    return pa.concat_tables(tables).unify_dictionaries().combine_chunks()


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


def by_number(path: str, names: tuple[str, ...]) -> tuple[str, ...]:
    """Names of classes, where they are whole numbers those from 0 to the largest; other numbers by their size.

    Raises:
        PipelineError: Whole numbers were written as floats: 2.0 is class 2 to who wrote it, and a name of its own here.
            Or see ``refuse_blanks``.

    Example:
        >>> by_number("pets", ("10", "2")) == tuple(map(str, range(11))), by_number("pets", ("2", "cat"))
        (True, ('2', 'cat'))
    """
    refuse_blanks(f"labels of {path}", names)
    numbers = [int(name) for name in names if name.isascii() and name.isdigit() and len(name) < 10]
    if sorted(map(str, numbers)) == sorted(names) and max(numbers) < MAX_CLASSES:
        return class_names([np.array(numbers)])
    if not all(re.fullmatch(r"[+-]?[0-9]+(\.[0-9]*)?", name) for name in names):
        return names
    floats = [name for name in names if name.rstrip("0").endswith(".")]
    if floats and all(name in floats or "." not in name for name in names):
        raise PipelineError(
            f"labels of {path} are numbers, and {floats[0]!r} is a whole one that was written as a float: write it "
            f"{floats[0].split('.')[0]!r} (pandas: astype('Int64')), so that it is a class by its number"
        )
    return tuple(sorted(names, key=float))


def refuse_blanks(what: str, names: Iterable[str]) -> None:
    """Raise PipelineError where blanks beside words make others of them: ``" 2"`` is no number and ``"cat "`` no cat.

    Example:
        >>> refuse_blanks("labels of pets", ["cat", "dog", "cat "])  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        tfvae.pipelines.errors.PipelineError: labels of pets have 'cat ', which is another one than 'cat': take off ...
    """
    bare = {name: name.strip() for name in names}
    for name, meant in bare.items():
        if name != meant and (meant in bare or re.fullmatch(r"[+-]?[0-9]+(\.[0-9]*)?", meant)):
            raise PipelineError(
                f"{what} have {name!r}, which is another one than {meant!r}: take off the blanks (pandas: "
                "skipinitialspace=True, or .str.strip())"
            )


def concatenated(
    schema: Schema,
    parts: Sequence[tuple[str, str, str | None, int]],
    inputs: list[Input],
    unread: Sequence[str] = (),
) -> Plan:
    """A plan of array files, each part ``(file, key prefix, split, rows)``."""
    rows = [located(numbered(prefix, count), file, np.arange(count), split) for file, prefix, split, count in parts]
    return Plan(schema, together(rows), inputs, unread=tuple(unread))
