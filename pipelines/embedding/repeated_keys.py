"""Keys that came twice, over a whole output: no unit of work sees them.

The driver reads the key column of every part, which is small beside the observations, and sorts 16 bytes a key by
way of unnamed files below the output: memory stays the same however many rows there are. A later row of a key is
rejected and its part written anew under the same commit protocol: a kill between the part and its record leaves a
record that does not agree, and the unit is done again.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from .. import contract
from ..errors import Rejection
from ..formats.equals import later_of_equals, later_of_many
from ..jobs.commits import Output, Unit
from .parquet_parts import keep_rows, read_part, read_positions, read_rows

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
    done = [unit for unit in units if output.record(unit.name) is not None]
    counts: list[int] = []

    def hashes() -> Iterator[np.ndarray]:
        for unit in done:
            keys, _ = _keys(output, unit)
            counts.append(len(keys))
            yield _hashes(keys)[:, None]

    later, first = later_of_many(hashes(), sum(unit.rows for unit in done), output.file(contract.WORK))
    starts = np.cumsum([0, *counts])
    later, first = _equal_keys(output, done, starts, np.union1d(later, first))
    owners = np.searchsorted(starts, later, side="right") - 1
    places = _places(output, done, starts, first)  # before any part is written anew
    concerned = {*owners.tolist(), *(number for number, unit in enumerate(done) if _repeats(output, unit))}
    again = 0
    for owner in sorted(concerned):
        mine = np.flatnonzero(owners == owner)
        again += not _reject_in(output, done[owner], later[mine] - starts[owner], [places[i] for i in mine])
    return again


def _hashes(keys: Iterable[str]) -> np.ndarray:
    """64 bits of each key, `[N]`: Python's hash, of which nobody else knows the secret."""
    return np.fromiter(map(hash, keys), np.int64)


def _equal_keys(
    output: Output, units: Sequence[Unit], starts: np.ndarray, suspects: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Of rows whose hashes another has too, those whose keys came before, and where: 128 bits decide."""
    owners = np.searchsorted(starts, suspects, side="right") - 1
    digests = [np.zeros([0, 2], np.int64)]
    for owner in np.unique(owners):
        keys, _ = _keys(output, units[owner])
        mine = [keys[row] for row in suspects[owners == owner] - starts[owner]]
        digests.append(np.column_stack([_hashes(mine), _hashes(map("\0".__add__, mine))]))
    later, first = later_of_equals(np.concatenate(digests))
    return suspects[later], suspects[first]


def _places(output: Output, units: Sequence[Unit], starts: np.ndarray, rows: np.ndarray) -> list[str]:
    """Where rows lie, ``FILE:POSITION``, by their numbers over all units; ``starts`` has each unit's first number."""
    places = [""] * len(rows)
    owners = np.searchsorted(starts, rows, side="right") - 1
    for owner in np.unique(owners):
        _, positions = _keys(output, units[owner])
        for i in np.flatnonzero(owners == owner):
            places[i] = f"{units[owner].task['file']}:{positions[rows[i] - starts[owner]]}"
    return places


def _repeats(output: Output, unit: Unit) -> list[Rejection]:
    """The rows that a unit left out for their keys."""
    return [row for row in output.rejections(unit) if row.reason.startswith(_REASON)]


def _files(output: Output, unit: Unit) -> list[str]:
    return [entry["path"] for entry in (output.record(unit.name) or {})["files"] if entry["path"].endswith(".parquet")]


def _keys(output: Output, unit: Unit) -> tuple[list[str], np.ndarray]:
    """Of the rows of a unit that are good, or would be but for their keys, the keys and the positions in the file."""
    keys = [key for name in _files(output, unit) for key in _column(output, name)]
    left_out = _repeats(output, unit)
    positions = np.concatenate([*_written(output, unit), [row.position for row in left_out]]).astype(np.int64)
    keys += [row.key for row in left_out]
    if len(keys) != len(positions):  # of rows that are files of their own, which have no positions
        return keys, np.zeros(len(keys), np.int64)
    order = np.argsort(positions, kind="stable")
    return [keys[row] for row in order], positions[order]


def _column(output: Output, name: str) -> list[str]:
    return read_part(output, name, [contract.KEY])[contract.KEY].to_pylist()


def _written(output: Output, unit: Unit) -> list[np.ndarray]:
    """Where in the input the rows of each file of a unit lie, `[N]`: all of it but the bad ones, or as footers say."""
    found = [read_positions(output, name) for name in _files(output, unit)]
    if all(positions is not None for positions in found):
        return [positions for positions in found if positions is not None]
    bad = [row.position for row in output.rejections(unit)]
    positions = np.setdiff1d(np.arange(unit.task["first"], unit.task["first"] + unit.task["rows"]), bad)
    rows = [read_rows(output, name) for name in _files(output, unit)]
    return np.split(positions, np.cumsum(rows)[:-1])


def _reject_in(output: Output, unit: Unit, later: np.ndarray, first: Sequence[str]) -> bool:
    """Rejects rows of a unit, by their numbers among those of ``_keys``; ``first`` says where each key came first.

    False for a unit that has left out another row: it is to be done again.
    """
    old = {row.position: row for row in output.rejections(unit)}
    keys, positions = _keys(output, unit)
    repeats = {
        int(positions[row]): Rejection(keys[row], unit.task["file"], int(positions[row]), f"{_REASON}{place}")
        for row, place in zip(later, first, strict=True)
    }
    left_out = {row.position for row in _repeats(output, unit)}
    if left_out - repeats.keys():
        output.withdraw(unit)
        return False
    if all(old.get(position) == repeat for position, repeat in repeats.items()):
        return True
    record, files = output.record(unit.name) or {}, _files(output, unit)
    for name, mine in zip(files, _written(output, unit), strict=True):
        kept = ~np.isin(mine, [*repeats])
        if not kept.all():
            keep_rows(output, name, kept)
    rejected = sorted((old | repeats).values(), key=lambda rejection: rejection.position)
    output.commit(unit, unit.rows - len(rejected), rejected, record["facts"], files)
    return True
