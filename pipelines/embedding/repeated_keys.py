"""Keys that came twice, over a whole output: no unit of work sees them.

The driver reads the key column of every part, which is small beside the observations, and sorts eight bytes a key by
way of unnamed files below the output: memory stays the same however many rows there are. A later row of a key is
rejected and its part written anew under the same commit protocol: a kill between the part and its record leaves a
record that does not agree, and the unit is done again.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines import contract, storage
from pipelines.embedding.parquet_parts import parquet_writer, read_part
from pipelines.errors import Rejection
from pipelines.jobs.commits import Output, Unit

_HASHES = 1 << 22  # that are sorted in memory together
_MOST_FILES = 256


def reject(output: Output, units: Sequence[Unit]) -> None:
    """Keeps the first row of each key, in the order of the plan, and rejects the later ones.

    Example:
        >>> from pipelines import embed, preprocess
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
    repeated = _repeated(output, done)
    if len(repeated) == 0:
        return
    first: dict[str, str] = {}
    for unit in done:
        suspects = np.flatnonzero(np.isin(_hashes(_keys(output, unit)), repeated))
        if len(suspects):
            _reject_in(output, unit, suspects, first)


def _repeated(output: Output, units: Sequence[Unit]) -> np.ndarray:
    """The hashes that more than one row has, sorted, int64."""
    files = min(_MOST_FILES, 1 + sum(unit.rows for unit in units) // _HASHES)
    with contextlib.ExitStack() as stack:
        sorted_in = [stack.enter_context(storage.scratch(output.file(contract.WORK))) for _ in range(files)]
        for unit in units:
            hashes = _hashes(_keys(output, unit))
            for index, file in enumerate(sorted_in):
                file.write(hashes[hashes % files == index].tobytes())
        found = [_twice(np.sort(hashes)) for hashes in _read_back(sorted_in)]
    return np.sort(np.concatenate(found))


def _read_back(files: Sequence[Any]) -> Iterator[np.ndarray]:
    for file in files:
        file.seek(0)
        yield np.frombuffer(file.read(), np.int64)


def _twice(ordered: np.ndarray) -> np.ndarray:
    return np.unique(ordered[1:][ordered[1:] == ordered[:-1]])


def _keys(output: Output, unit: Unit) -> list[str]:
    return read_part(output, unit.files[0], [contract.KEY])[contract.KEY].to_pylist()


def _hashes(keys: Sequence[str]) -> np.ndarray:
    return np.fromiter(map(hash, keys), np.int64, len(keys))


def _reject_in(output: Output, unit: Unit, suspects: np.ndarray, first: dict[str, str]) -> None:
    """Rejects the suspects of a unit whose key is in ``first``, and puts the others there with their place."""
    keys, old = _keys(output, unit), output.rejections(unit)
    task = unit.task
    bad = [rejection.position for rejection in old]
    positions = np.setdiff1d(np.arange(task["first"], task["first"] + task["rows"]), bad)
    later, rejected = [], list(old)
    for row in suspects:
        place = f"{task['file']}:{positions[row]}"
        if first.setdefault(keys[row], place) != place:
            later.append(row)
            reason = f"duplicate key, first at {first[keys[row]]}"
            rejected.append(Rejection(keys[row], task["file"], int(positions[row]), reason))
    if not later:
        return
    table = read_part(output, unit.files[0])
    table = table.take(pa.array(np.delete(np.arange(len(keys)), later)))
    with output.writing(unit.files[0]) as file, parquet_writer(file, table.schema) as writer:
        writer.write_table(table)
    rejected.sort(key=lambda rejection: rejection.position)
    output.commit(unit, len(table), rejected, {})
