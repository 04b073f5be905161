"""Keys that came twice, over a whole output: no unit of work sees them.

The driver reads the key column of every part, which is small beside the observations, and sorts 16 bytes a key by
way of unnamed files below the output: memory stays the same however many rows there are. A later row of a key is
rejected and its part written anew under the same commit protocol: a kill between the part and its record leaves a
record that does not agree, and the unit is done again.
"""

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from .. import contract
from ..errors import Rejection
from ..formats.equals import later_of_equals, later_of_many
from ..jobs.commits import Output, Unit
from .parquet_parts import keep_rows, read_keys
from .slices import Places

_REASON = "duplicate key, first at "
_KEYS_AT_ONCE = 1 << 16


def reject(output: Output, units: Sequence[Unit]) -> int:
    """Keeps the first row of each key, in the order of the plan, and rejects the later ones.

    A unit that was carried from another generation may have left out rows for keys that come first there no longer.
    The record of such a unit is removed, so that it is done again.

    Returns:
        How many of those there are: where there is one, do what is missing and ask again.

    Example:
        >>> import pyarrow as pa
        >>> import pyarrow.parquet as pq
        >>> output = Output("embeddings/twice")
        >>> tasks = [{"split": "all", "file": "x", "first": i, "rows": 1} for i in (0, 1)]
        >>> units = [Unit(f"all-{i}", 1, (f"{i}.parquet",), "", task) for i, task in enumerate(tasks)]
        >>> for unit in units:
        ...     with output.writing(unit.files[0]) as file:
        ...         pq.write_table(pa.table({"key": ["a"]}), file)
        ...     output.commit(unit, 1, [], {})
        >>> reject(output, units)
        0
        >>> [output.record(unit.name)["rows"] for unit in units], output.rejections(units[1])[0].reason
        ([1, 0], 'duplicate key, first at x:0')
    """
    records = output.records(units)
    done = [_Done(output, unit, record) for unit, record in zip(units, records, strict=True) if record is not None]
    counts: list[int] = []

    def hashes() -> Iterator[np.ndarray]:
        for one in done:
            keys, _ = one.keys()
            counts.append(len(keys))
            yield _hashes(_texts(keys))[:, None]

    later, first = later_of_many(hashes(), sum(one.unit.rows for one in done), output.file(contract.WORK))
    starts = np.cumsum([0, *counts])
    later, first = _equal_keys(done, starts, np.union1d(later, first))
    if not _are_in_order(done):
        later, first = _in_order(later, first, *_ranks(done, starts, np.union1d(later, first)))
    owners = np.searchsorted(starts, later, side="right") - 1
    places = _places(done, starts, first)  # before any part is written anew
    concerned = {*owners.tolist(), *(number for number, one in enumerate(done) if one.repeats())}
    again = 0
    for owner in sorted(concerned):
        mine = np.flatnonzero(owners == owner)
        again += not _reject_in(done[owner], later[mine] - starts[owner], [places[i] for i in mine])
    return again


@dataclasses.dataclass(frozen=True)
class _Done:
    """A unit that is done, and its commit record, which a store is asked for once."""

    output: Output
    unit: Unit
    record: dict[str, Any]

    @functools.cached_property
    def places(self) -> Places:
        return Places(self.unit)

    def files(self) -> list[str]:
        return [entry["path"] for entry in self.record["files"] if entry["path"].endswith(".parquet")]

    def rejections(self) -> list[Rejection]:
        return self.output.rejections(self.unit) if self.record["rejected"] else []

    def repeats(self) -> list[Rejection]:
        """The rows that it left out for their keys."""
        return [row for row in self.rejections() if row.reason.startswith(_REASON)]

    def written(self) -> tuple[list[pa.ChunkedArray], list[np.ndarray]]:
        """Of each file the keys and its rows' numbers in the unit, `[N]`: all but the bad ones, or as footers say."""
        sizes = {entry["path"]: entry["bytes"] for entry in self.record["files"]}
        found = [read_keys(self.output, name, sizes[name]) for name in self.files()]
        keys, numbers = [keys for keys, _ in found], [numbers for _, numbers in found if numbers is not None]
        if len(numbers) < len(found):
            start = self.places.starts[0]
            bad = np.array([self.places.number(row) for row in self.rejections()], np.int64) - start
            good = np.delete(np.arange(self.unit.rows), bad) + start
            numbers = np.split(good, np.cumsum([len(some) for some in keys])[:-1])
        return keys, numbers

    def keys(self) -> tuple[pa.ChunkedArray, np.ndarray]:
        """Of the rows that are good, or would be but for their keys, the keys and the numbers in the unit."""
        of_files, written = self.written()
        left_out = self.repeats()
        chunks = [chunk for some in of_files for chunk in some.chunks]
        keys = pa.chunked_array([*chunks, pa.array([row.key for row in left_out], pa.string())])
        numbers = np.concatenate([*written, np.array([self.places.number(row) for row in left_out], np.int64)])
        if len(keys) != len(numbers):  # of rows whose positions do not say where they are: each has a key of its own
            return keys, np.full(len(keys), self.places.starts[0])
        if (numbers[1:] >= numbers[:-1]).all():
            return keys, numbers
        order = np.argsort(numbers, kind="stable")
        return keys.take(pa.array(order)), numbers[order]


def _texts(keys: pa.ChunkedArray) -> Iterator[str]:
    for first in range(0, len(keys), _KEYS_AT_ONCE):
        yield from keys[first : first + _KEYS_AT_ONCE].to_pylist()


def _hashes(keys: Iterable[str]) -> np.ndarray:
    """64 bits of each key, `[N]`: Python's hash, of which nobody else knows the secret."""
    return np.fromiter(map(hash, keys), np.int64)


def _equal_keys(done: Sequence[_Done], starts: np.ndarray, suspects: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of rows whose hashes another has too, those whose keys came before, and where: 128 bits decide."""
    owners = np.searchsorted(starts, suspects, side="right") - 1
    digests = [np.zeros([0, 2], np.int64)]
    for owner in np.unique(owners):
        keys, _ = done[owner].keys()
        mine = keys.take(pa.array(suspects[owners == owner] - starts[owner])).to_pylist()
        digests.append(np.column_stack([_hashes(mine), _hashes(map("\0".__add__, mine))]))
    later, first = later_of_equals(np.concatenate(digests))
    return suspects[later], suspects[first]


def _are_in_order(done: Sequence[_Done]) -> bool:
    """Whether no unit has rows that lie, in the plan, between those of another; of units that are joined some may."""
    places = [place for one in done for place in one.unit.task.get("order", ())]
    return places == sorted(places)


def _ranks(done: Sequence[_Done], starts: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows, by their numbers over all units, and theirs in the order of the plan: of the slice, and in it."""
    ranks = np.zeros([len(rows), 2], np.int64)
    owners = np.searchsorted(starts, rows, side="right") - 1
    for owner in np.unique(owners):
        mine, one = owners == owner, done[owner]
        numbers = one.keys()[1][rows[mine] - starts[owner]]
        ranks[mine] = np.column_stack([np.array(one.unit.task["order"])[one.places.owners(numbers)], numbers])
    return rows, ranks


def _in_order(
    later: np.ndarray, first: np.ndarray, rows: np.ndarray, ranks: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The same rows of equal keys, of which that is the first that is so in the plan."""
    group = rows.copy()
    group[np.searchsorted(rows, later)] = first
    order = np.lexsort([ranks[:, 1], ranks[:, 0], group])
    begins = np.r_[True, np.diff(group[order]) != 0][: len(order)]
    firsts = order[np.maximum.accumulate(np.where(begins, np.arange(len(order)), 0))]
    later, first = rows[order[~begins]], rows[firsts[~begins]]
    by_number = np.argsort(later)
    return later[by_number], first[by_number]


def _places(done: Sequence[_Done], starts: np.ndarray, rows: np.ndarray) -> list[str]:
    """Where rows lie, ``FILE:POSITION``, by their numbers over all units; ``starts`` has each unit's first number."""
    places = [""] * len(rows)
    owners = np.searchsorted(starts, rows, side="right") - 1
    for owner in np.unique(owners):
        _, numbers = done[owner].keys()
        for i in np.flatnonzero(owners == owner):
            file, position = done[owner].places.place(int(numbers[rows[i] - starts[owner]]))
            places[i] = f"{file}:{position}"
    return places


def _reject_in(one: _Done, later: np.ndarray, first: Sequence[str]) -> bool:
    """Rejects rows of a unit, by their numbers among those of ``keys``; ``first`` says where each key came first.

    False for a unit that has left out another row: it is to be done again.
    """
    unit, places = one.unit, one.places
    old = {places.number(row): row for row in one.rejections()}
    keys, numbers = one.keys()
    repeats = {
        int(numbers[row]): Rejection(keys[row].as_py(), *places.place(int(numbers[row])), f"{_REASON}{place}")
        for row, place in zip(later.tolist(), first, strict=True)
    }
    left_out = {places.number(row) for row in one.repeats()}
    if left_out - repeats.keys():
        one.output.withdraw(unit)
        return False
    if all(old.get(number) == repeat for number, repeat in repeats.items()):
        return True
    described = {entry["path"]: entry for entry in one.record["files"] if entry["path"] in one.files()}
    for name, mine in zip(one.files(), one.written()[1], strict=True):
        kept = ~np.isin(mine, [*repeats])
        if not kept.all():
            described |= keep_rows(one.output, name, kept, by_row_groups=len(places.slices) > 1)
    rejected = [row for _, row in sorted((old | repeats).items())]
    one.output.commit(unit, unit.rows - len(rejected), rejected, one.record["facts"], one.files(), described)
    return True
