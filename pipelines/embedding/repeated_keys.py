"""Keys that came twice, over a whole output: no unit of work sees them.

The driver reads the key column of every part, which is small beside the observations, and sorts 16 bytes a key by
way of unnamed files below the output: memory stays the same however many rows there are. A later row of a key is
rejected and its part written anew under the same commit protocol: a kill between the part and its record leaves a
record that does not agree, and the unit is done again.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from .. import contract
from ..errors import Rejection
from ..formats.equals import later_of_equals, later_of_many
from ..jobs.commits import Output, Unit
from .parquet_parts import keep_rows, read_keys

_REASON = "duplicate key, first at "


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
        >>> units = [Unit(f"all-{i}", 1, (f"{i}.parquet",), "", {"file": "x", "first": i, "rows": 1}) for i in (0, 1)]
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
            yield _hashes(keys)[:, None]

    later, first = later_of_many(hashes(), sum(one.unit.rows for one in done), output.file(contract.WORK))
    starts = np.cumsum([0, *counts])
    later, first = _equal_keys(done, starts, np.union1d(later, first))
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

    def files(self) -> list[str]:
        return [entry["path"] for entry in self.record["files"] if entry["path"].endswith(".parquet")]

    def rejections(self) -> list[Rejection]:
        return self.output.rejections(self.unit) if self.record["rejected"] else []

    def repeats(self) -> list[Rejection]:
        """The rows that it left out for their keys."""
        return [row for row in self.rejections() if row.reason.startswith(_REASON)]

    def written(self) -> tuple[list[list[str]], list[np.ndarray]]:
        """Of each file the keys and where in the input its rows lie, `[N]`: all but the bad ones, or as footers say."""
        sizes = {entry["path"]: entry["bytes"] for entry in self.record["files"]}
        found = [read_keys(self.output, name, sizes[name]) for name in self.files()]
        keys, positions = [keys for keys, _ in found], [positions for _, positions in found if positions is not None]
        if len(positions) < len(found):
            first = self.unit.task["first"]
            good = np.setdiff1d(
                np.arange(first, first + self.unit.task["rows"]), [row.position for row in self.rejections()]
            )
            positions = np.split(good, np.cumsum([len(some) for some in keys])[:-1])
        return keys, positions

    def keys(self) -> tuple[list[str], np.ndarray]:
        """Of the rows that are good, or would be but for their keys, the keys and the positions in the file."""
        of_files, written = self.written()
        left_out = self.repeats()
        positions = np.concatenate([*written, [row.position for row in left_out]]).astype(np.int64)
        keys = [key for some in of_files for key in some] + [row.key for row in left_out]
        if len(keys) != len(positions):  # of rows that are files of their own, which have no positions
            return keys, np.zeros(len(keys), np.int64)
        order = np.argsort(positions, kind="stable")
        return [keys[row] for row in order], positions[order]


def _hashes(keys: Iterable[str]) -> np.ndarray:
    """64 bits of each key, `[N]`: Python's hash, of which nobody else knows the secret."""
    return np.fromiter(map(hash, keys), np.int64)


def _equal_keys(done: Sequence[_Done], starts: np.ndarray, suspects: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of rows whose hashes another has too, those whose keys came before, and where: 128 bits decide."""
    owners = np.searchsorted(starts, suspects, side="right") - 1
    digests = [np.zeros([0, 2], np.int64)]
    for owner in np.unique(owners):
        keys, _ = done[owner].keys()
        mine = [keys[row] for row in suspects[owners == owner] - starts[owner]]
        digests.append(np.column_stack([_hashes(mine), _hashes(map("\0".__add__, mine))]))
    later, first = later_of_equals(np.concatenate(digests))
    return suspects[later], suspects[first]


def _places(done: Sequence[_Done], starts: np.ndarray, rows: np.ndarray) -> list[str]:
    """Where rows lie, ``FILE:POSITION``, by their numbers over all units; ``starts`` has each unit's first number."""
    places = [""] * len(rows)
    owners = np.searchsorted(starts, rows, side="right") - 1
    for owner in np.unique(owners):
        _, positions = done[owner].keys()
        for i in np.flatnonzero(owners == owner):
            places[i] = f"{done[owner].unit.task['file']}:{positions[rows[i] - starts[owner]]}"
    return places


def _reject_in(one: _Done, later: np.ndarray, first: Sequence[str]) -> bool:
    """Rejects rows of a unit, by their numbers among those of ``keys``; ``first`` says where each key came first.

    False for a unit that has left out another row: it is to be done again.
    """
    unit, old = one.unit, {row.position: row for row in one.rejections()}
    keys, positions = one.keys()
    repeats = {
        int(positions[row]): Rejection(keys[row], unit.task["file"], int(positions[row]), f"{_REASON}{place}")
        for row, place in zip(later, first, strict=True)
    }
    left_out = {row.position for row in one.repeats()}
    if left_out - repeats.keys():
        one.output.withdraw(unit)
        return False
    if all(old.get(position) == repeat for position, repeat in repeats.items()):
        return True
    described = {entry["path"]: entry for entry in one.record["files"] if entry["path"] in one.files()}
    for name, mine in zip(one.files(), one.written()[1], strict=True):
        kept = ~np.isin(mine, [*repeats])
        if not kept.all():
            described |= keep_rows(one.output, name, kept)
    rejected = sorted((old | repeats).values(), key=lambda rejection: rejection.position)
    one.output.commit(unit, unit.rows - len(rejected), rejected, one.record["facts"], one.files(), described)
    return True
