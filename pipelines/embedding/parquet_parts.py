"""Parquet parts: what an embedding job writes, one for each unit of work."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .. import contract, storage
from ..errors import PipelineError, Rejection
from ..jobs.commits import Output, Unit
from ..jobs.generations import Generations
from .handler import Embedded

KIND = "embeddings"


class ParquetPart:
    """A Parquet part that is being written, one row group a block."""

    def __init__(self, output: Output, unit: Unit):
        self.unit, self.rows, self.blocks = unit, 0, 0
        self.rejected: list[Rejection] = []
        self._stack = contextlib.ExitStack()
        self._file = self._stack.enter_context(output.writing(unit.files[0]))
        self._writer: pq.ParquetWriter | None = None

    def add(self, embedded: Embedded) -> None:
        """Writes the rows of a block, and remembers which of them are bad."""
        block = embedded.rows.block
        table = part_table(block.keys, embedded.outputs, block.kept)
        if self._writer is None:
            self._writer = parquet_writer(self._file, table.schema)
        self._writer.write_table(table)
        self.blocks += 1
        self.rows += len(block)
        self.rejected += block.rejected

    def close(self) -> None:
        """Gives the part its final name."""
        assert self._writer is not None, "a unit has a block"
        self._writer.close()
        self._stack.close()

    def abandon(self) -> None:
        """Removes the draft."""
        error = PipelineError(f"unit {self.unit.name} was not finished")
        with contextlib.suppress(PipelineError):
            self._stack.__exit__(PipelineError, error, None)


def parquet_writer(file: Any, schema: pa.Schema) -> pq.ParquetWriter:
    """Neither compression nor a dictionary makes floats and distinct keys much smaller, and both cost time."""
    return pq.ParquetWriter(file, schema, compression="none", use_dictionary=False)


def complete_parts(folder: str) -> tuple[dict[str, Any], Iterator[pa.Table]]:
    """The manifest of a complete output of ``tfvae embed``, and its parts one after another, in the order of the plan.

    Raises:
        PipelineError: The output is not complete.
    """
    grown = Generations(storage.absolute(folder))
    output = grown.generation(grown.current()) if grown.current() else Output(grown.path)
    manifest = output.manifest()
    if manifest is None or manifest.get("kind") != KIND:
        raise PipelineError(f"{folder} is not a complete output of tfvae embed: run the same command again")
    names = [entry["path"] for entry in manifest["files"] if entry["path"].endswith(".parquet")]
    return manifest, (read_part(output, name) for name in names)


def read_part(output: Output, name: str, columns: Sequence[str] | None = None) -> pa.Table:
    """A part of an output, or some of its columns."""
    with storage.open_to_read(output.file(name)) as file:
        return pq.read_table(file, columns=columns)


def part_table(keys: Sequence[str], outputs: dict[str, np.ndarray], kept: pa.Table | None = None) -> pa.Table:
    """The columns of a part: the key, each output and what is kept.

    An output ``[N, D]`` is a column of fixed-size lists of float32, one of ``[N]`` a column of float32.

    Example:
        >>> part_table(["a"], {"embedding": np.zeros([1, 2], np.float32)}).schema.names
        ['key', 'embedding']
    """
    columns: dict[str, pa.Array] = {contract.KEY: pa.array(keys, pa.string())}
    for name, array in outputs.items():
        flat = pa.array(np.ascontiguousarray(array).ravel())
        columns[name] = flat if array.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, array.shape[1])
    return pa.table(columns | (dict(zip(kept.column_names, kept.columns, strict=True)) if kept is not None else {}))
