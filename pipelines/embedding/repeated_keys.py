"""Keys that came twice, over a whole output: no unit of work sees them.

The driver reads the key column of every part, which is small beside the observations, and sorts 16 bytes a key by
way of unnamed files below the output: memory stays the same however many rows there are. A later row of a key is
rejected and its part written anew under the same commit protocol: a kill between the part and its record leaves a
record that does not agree, and the unit is done again.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa

from .. import contract
from ..errors import Rejection
from ..formats.equals import later_of_equals, later_of_many
from ..jobs.commits import Output, Unit
from .parquet_parts import parquet_writer, read_part


def reject(output: Output, units: Sequence[Unit]) -> None:
    """Keeps the first row of each key, in the order of the plan, and rejects the later ones.

    Example:
        >>> import pyarrow.parquet as pq
        >>> output = Output("embeddings/twice")
        >>> units = [Unit(f"all-{i}", 1, (f"{i}.parquet",), "", {"file": "x", "first": i, "rows": 1}) for i in (0, 1)]
        >>> for unit in units:
        ...     with output.writing(unit.files[0]) as file:
        ...         pq.write_table(pa.table({"key": ["a"]}), file)
        ...     output.commit(unit, 1, [], {})
        >>> reject(output, units)
        >>> [output.record(unit.name)["rows"] for unit in units], output.rejections(units[1])[0].reason
        ([1, 0], 'duplicate key, first at x:0')
    """
    done = [unit for unit in units if output.record(unit.name) is not None]
    counts: list[int] = []

    def hashes() -> Iterator[np.ndarray]:
        for unit in done:
            keys = _keys(output, unit)
            counts.append(len(keys))
            yield _hashes(keys)[:, None]

    later, first = later_of_many(hashes(), sum(unit.rows for unit in done), output.file(contract.WORK))
    starts = np.cumsum([0, *counts])
    later, first = _equal_keys(output, done, starts, np.union1d(later, first))
    owners = np.searchsorted(starts, later, side="right") - 1
    places = _places(output, done, starts, first)  # before any part is written anew
    for owner in np.unique(owners):
        mine = np.flatnonzero(owners == owner)
        _reject_in(output, done[owner], later[mine] - starts[owner], [places[i] for i in mine])


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
        keys = _keys(output, units[owner])
        mine = [keys[row] for row in suspects[owners == owner] - starts[owner]]
        digests.append(np.column_stack([_hashes(mine), _hashes(map("\0".__add__, mine))]))
    later, first = later_of_equals(np.concatenate(digests))
    return suspects[later], suspects[first]


def _places(output: Output, units: Sequence[Unit], starts: np.ndarray, rows: np.ndarray) -> list[str]:
    """Where rows lie, ``FILE:POSITION``, by their numbers over all units; ``starts`` has each unit's first number."""
    places = [""] * len(rows)
    owners = np.searchsorted(starts, rows, side="right") - 1
    for owner in np.unique(owners):
        positions = _positions(units[owner], output.rejections(units[owner]))
        for i in np.flatnonzero(owners == owner):
            places[i] = f"{units[owner].task['file']}:{positions[rows[i] - starts[owner]]}"
    return places


def _positions(unit: Unit, rejected: Sequence[Rejection]) -> np.ndarray:
    """Where in the file the good rows of a unit lie, `[N]`."""
    task = unit.task
    bad = [rejection.position for rejection in rejected]
    return np.setdiff1d(np.arange(task["first"], task["first"] + task["rows"]), bad)


def _keys(output: Output, unit: Unit) -> list[str]:
    return read_part(output, unit.files[0], [contract.KEY])[contract.KEY].to_pylist()


def _reject_in(output: Output, unit: Unit, later: np.ndarray, first: Sequence[str]) -> None:
    """Rejects rows of a unit, by their numbers in its part; ``first`` says where each key came first."""
    old = output.rejections(unit)
    positions = _positions(unit, old)
    table = read_part(output, unit.files[0])
    keys = table[contract.KEY].take(pa.array(later)).to_pylist()
    rejected = [
        Rejection(key, unit.task["file"], int(positions[row]), f"duplicate key, first at {place}")
        for key, row, place in zip(keys, later, first, strict=True)
    ]
    table = table.take(pa.array(np.delete(np.arange(len(table)), later)))
    with output.writing(unit.files[0]) as file, parquet_writer(file, table.schema) as writer:
        writer.write_table(table)
    output.commit(unit, len(table), sorted([*old, *rejected], key=lambda rejection: rejection.position), {})
