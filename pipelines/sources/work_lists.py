"""The rows of one unit of work, by reference: a small file that the driver writes and a worker reads."""

import dataclasses
import io
from collections.abc import Iterator, Mapping
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from .. import storage
from ..errors import Rejection
from .base import Batch, Source
from .plan import Plan, Schema


@dataclasses.dataclass(frozen=True)
class WorkList:
    """Rows by name and place, in the order of the unit.

    Attributes:
        rows: ``key``, ``file`` and ``position`` of each, and as ``reason`` why it is rejected unread, or null.

    Example:
        >>> from tfvae.pipelines.sources import make_source
        >>> source = make_source("digits", None)
        >>> plan = source.plan()
        >>> with open("list.arrow", "wb") as file:
        ...     write_work_list(file, plan, np.array([3, 1]), {3: "a duplicate"})
        >>> work = read_work_list("list.arrow")
        >>> [(rows.tolist(), batch.labels.tolist()) for rows, batch in work.read(source, plan.schema)]
        [([1], [1])]
        >>> work.rejections({})[0].reason, work.keys(np.array([1]))
        ('a duplicate', ['digits-00001'])
    """

    rows: pa.Table

    def __len__(self) -> int:
        return self.rows.num_rows

    def read(self, source: Source, schema: Schema) -> Iterator[tuple[np.ndarray, Batch]]:
        """The rows that have no reason against them, in blocks that fit into memory, each with its rows' numbers."""
        rows = np.flatnonzero(self.rows["reason"].is_null().to_numpy())
        row_bytes = max(1, int(np.prod(schema.shape)) * np.dtype(schema.dtype).itemsize)
        step = max(1, source.block_bytes // row_bytes)
        for first in range(0, len(rows), step):
            block = rows[first : first + step]
            yield block, source.read_rows(self.rows.take(pa.array(block)), schema)

    def keys(self, rows: np.ndarray) -> list[str]:
        """The keys of some rows, by their numbers."""
        return self.rows["key"].take(pa.array(rows)).to_pylist()

    def rejections(self, reasons: Mapping[int, str]) -> list[Rejection]:
        """The rows that are rejected: those that were before, and those with these reasons, by their numbers."""
        before = np.flatnonzero(self.rows["reason"].is_valid().to_numpy()).tolist()
        rows = sorted({*before, *reasons})
        table = self.rows.take(pa.array(rows, pa.int64())).to_pylist()
        return [
            Rejection(row["key"], row["file"], row["position"], reasons.get(number) or row["reason"])
            for number, row in zip(rows, table, strict=True)
        ]


def write_work_list(file: BinaryIO, plan: Plan, rows: np.ndarray, reasons: Mapping[int, str]) -> None:
    """Writes which rows of a plan make a unit, by their numbers, and why some of them are rejected already."""
    table = plan.rows.select(["key", "file", "position"]).take(pa.array(rows)).combine_chunks()
    files = table["file"].cast(pa.string()).dictionary_encode()  # of these rows alone: each image is a file of its own
    table = table.set_column(1, "file", files)
    why = (
        pa.array([reasons.get(int(row)) for row in rows], pa.string()) if reasons else pa.nulls(len(rows), pa.string())
    )
    table = table.append_column("reason", why)
    with pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def read_work_list(path: str) -> WorkList:
    """What ``write_work_list`` wrote."""
    return WorkList(pa.ipc.open_file(io.BytesIO(storage.read(path))).read_all())
