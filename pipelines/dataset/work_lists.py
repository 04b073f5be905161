"""The rows of one unit of work, by reference: a small file that the driver writes and a worker reads."""

import dataclasses
import io
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa

from pipelines import storage
from pipelines.errors import Rejection
from pipelines.jobs.commits import Output, Unit
from pipelines.sources import Batch, Plan, Schema, Source


@dataclasses.dataclass(frozen=True)
class References:
    """Rows by name and place, in the order of the unit.

    Attributes:
        keys: The key of each row, ``[N]``.
        files: The file in which it lies, ``[N]``.
        positions: Where in that file, ``[N]``.
        reasons: Why a row is rejected unread, or None, ``[N]``.

    Example:
        >>> from pipelines.sources import make_source
        >>> output, unit = Output("out"), Unit("all", 2, (), "of the unit")
        >>> write_references(output, unit, make_source("digits", None).plan(), [3, 1], {})
        >>> read_references(output, unit).keys
        ['digits-00003', 'digits-00001']
    """

    keys: list[str]
    files: list[str]
    positions: list[int]
    reasons: list[str | None]

    def rejection(self, row: int, reason: str) -> Rejection:
        """One of the rows, rejected."""
        return Rejection(self.keys[row], self.files[row], self.positions[row], reason)

    def read(self, source: Source, schema: Schema) -> Iterator[tuple[np.ndarray, Batch]]:
        """The rows that have no reason against them, in blocks that fit into memory, each with its rows' numbers."""
        rows = np.array([row for row, reason in enumerate(self.reasons) if reason is None], np.int64)
        row_bytes = max(1, int(np.prod(schema.shape)) * np.dtype(schema.dtype).itemsize)
        step = max(1, source.block_bytes // row_bytes)
        for first in range(0, len(rows), step):
            block = rows[first : first + step]
            yield block, source.read_batch(schema, [(self.files[row], self.positions[row]) for row in block])


def write_references(
    output: Output, unit: Unit, plan: Plan, rows: Sequence[int] | np.ndarray, reasons: Mapping[int, str]
) -> None:
    """Writes which rows of a plan make a unit, and why some of them are rejected already."""
    columns = {
        "key": pa.array([plan.keys[row] for row in rows], pa.string()),
        "file": pa.array([plan.files[row] for row in rows], pa.string()).dictionary_encode(),
        "position": pa.array([plan.positions[row] for row in rows], pa.int64()),
        "reason": pa.array([reasons.get(int(row)) for row in rows] if reasons else [None] * len(rows), pa.string()),
    }
    table = pa.table(columns)
    with output.writing(f"_work/plan/{unit.name}") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def read_references(output: Output, unit: Unit) -> References:
    """What ``write_references`` wrote."""
    table = pa.ipc.open_file(io.BytesIO(storage.read(output.file("_work", "plan", unit.name)))).read_all()
    file = table.column("file").combine_chunks()
    names = file.dictionary.to_pylist()  # few, as against the rows
    reason = table.column("reason")
    return References(
        table.column("key").to_pylist(),
        [names[index] for index in file.indices.to_numpy()],
        table.column("position").to_numpy().tolist(),
        [None] * len(table) if reason.null_count == len(table) else reason.to_pylist(),
    )
