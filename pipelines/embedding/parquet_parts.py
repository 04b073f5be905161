"""Parquet parts: what an embedding job writes, a file for each unit of work, or some where folders or sizes part them.

In folders (see ``pipelines.embedding.folders``) the rows of a unit lie in another order than in the input: the footer
of each file holds their positions there, and what the columns of the folders hold.
"""

import base64
import contextlib
import dataclasses
import io
import json
import math
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .. import contract, storage
from ..errors import PipelineError, Rejection
from ..jobs.commits import Output, Unit
from ..jobs.generations import Generations
from . import folders
from .handler import Embedded
from .slices import Places

KIND = "embeddings"
_MOST_FOLDERS = 400  # of a slice of a unit, and open files
_SPARE = 0.25  # by how much of its size a file of a unit that is joined may be larger, before it is cut
_AT_ONCE = 16 << 20  # bytes of a file that a store gives in one piece rather than in two that are asked for in turn
_POSITIONS, _KINDS = b"tfvae.positions", b"tfvae.folders"


@dataclasses.dataclass(frozen=True)
class Layout:
    """How the rows of a unit lie in files.

    Attributes:
        partition_by: Columns that are folders.
        file_bytes: How large a file may be, about; None for any size.
    """

    partition_by: tuple[str, ...] = ()
    file_bytes: int | None = None


class ParquetPart:
    """The part of a unit that is being written, one row group a block; ``files`` are the names of its files."""

    def __init__(self, output: Output, unit: Unit, layout: Layout = Layout()):  # it is frozen
        self.unit, self.rows, self.blocks = unit, 0, 0
        self.rejected: list[Rejection] = []
        self.files: list[str] = []
        self.described: dict[str, dict[str, Any]] = {}  # of those that are closed
        self._output, self._layout, self._most_rows, self._places = output, layout, 0, Places(unit)
        self._open: dict[str, _File] = {}  # the one that was written last is last
        self._files_in: dict[str, int] = {}
        self._kinds: dict[str, str] = {}

    def add(self, embedded: Embedded) -> None:
        """Writes the rows of a block, and remembers which of them are bad."""
        block, outputs = embedded.rows.block, embedded.outputs
        if self._layout.partition_by:
            good, block = folders.with_folders(block, self._layout.partition_by)
            outputs = {name: array[good] for name, array in outputs.items()}
        table = part_table(block.keys, outputs, block.kept)
        if self._layout.file_bytes and len(table) and not self._most_rows:
            self._most_rows = self._rows_of_a_file(table, self._layout.file_bytes)
        self._kinds = folders.kinds(table.schema, self._layout.partition_by)
        for folder, rows in folders.by_folder(table, self._layout.partition_by):
            mine = table if rows is None else table.take(pa.array(rows)).drop_columns([*self._layout.partition_by])
            numbers = block.positions if block.numbers is None else block.numbers
            self._write(folder, mine, None if rows is None else numbers[rows])
        self.blocks += 1
        self.rows += len(block)
        self.rejected += block.rejected

    def _rows_of_a_file(self, table: pa.Table, file_bytes: int) -> int:
        """As many as it takes, by the first ones; of a unit that is joined, in one folder, the same in each file."""
        if len(self._places.slices) == 1 or self._layout.partition_by:
            return max(1, file_bytes * len(table) // table.nbytes)
        files = max(1, math.ceil(self.unit.rows * table.nbytes / len(table) / file_bytes - _SPARE))
        return math.ceil(self.unit.rows / files)

    def _write(self, folder: str, table: pa.Table, positions: np.ndarray | None) -> None:
        """The rows that belong to a folder, in as many files as it takes."""
        first = 0
        while first < len(table) or first == 0:
            file = self._open.get(folder)
            is_full = file is not None and len(table) and 0 < self._most_rows <= file.rows
            if file is None or is_full or not file.schema.equals(table.schema):
                file = self._next_file(folder, table.schema)
            self._open[folder] = self._open.pop(folder)
            room = max(1, self._most_rows - file.rows) if self._most_rows else max(1, len(table))
            some = slice(first, first + room)
            file.write(table[some], None if positions is None else positions[some])
            first += room

    def _next_file(self, folder: str, schema: pa.Schema) -> "_File":
        if folder in self._open:
            self._open.pop(folder).close()
        most = _MOST_FOLDERS * len(self._places.slices)
        if folder not in self._files_in and len(self._files_in) == most:
            raise PipelineError(
                f"{', '.join(self._layout.partition_by)} makes more than {most} folders of the rows of "
                f"{self._places}: name columns of fewer values with --partition-by"
            )
        if len(self._open) == _MOST_FOLDERS:
            self._open.pop(next(iter(self._open))).close()
        number = self._files_in.get(folder, 0)
        self._files_in[folder] = number + 1
        name = f"{contract.PARTS}{folder}/{self.unit.name}{f'.{number}' if number else ''}.parquet"
        self.files.append(name)
        self._open[folder] = _File(self._output, name, schema, self._kinds, self.described)
        return self._open[folder]

    def close(self) -> None:
        """Gives the files their final names; where one fails the drafts of the others are removed."""
        if len(self._places.slices) > 1:
            self.rejected.sort(key=self._places.order)
        try:
            while self._open:
                self._open.popitem()[1].close()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Removes the drafts."""
        error = PipelineError(f"unit {self.unit.name} was not finished")
        while self._open:
            self._open.popitem()[1].abandon(error)


class _File:
    """A file that is being written."""

    def __init__(
        self,
        output: Output,
        name: str,
        schema: pa.Schema,
        kinds: dict[str, str],
        described: dict[str, dict[str, Any]],
    ):
        self.rows, self.schema, self._kinds = 0, schema, kinds
        self._positions: list[np.ndarray] = []
        self._stack = contextlib.ExitStack()
        self._writer = parquet_writer(self._stack.enter_context(output.writing(name, described)), schema)

    def write(self, table: pa.Table, positions: np.ndarray | None) -> None:
        self._writer.write_table(table)
        self.rows += len(table)
        if positions is not None:
            self._positions.append(positions)

    def close(self) -> None:
        if self._positions:
            differences = np.diff(np.concatenate(self._positions), prepend=0).astype("<i8")
            packed = base64.b85encode(zlib.compress(differences.tobytes())).decode()
            self._writer.add_key_value_metadata({_POSITIONS.decode(): packed, _KINDS.decode(): json.dumps(self._kinds)})
        self._writer.close()
        self._stack.close()

    def abandon(self, error: Exception) -> None:
        with contextlib.suppress(Exception):  # the disk may be full
            self._writer.close()
        with contextlib.suppress(PipelineError):
            self._stack.__exit__(type(error), error, None)


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
        raise PipelineError(
            f"{folder} is not a complete output of tfvae embed: expected the folder that its --output names; where its "
            "job stopped early, run that again"
        )
    names = [entry["path"] for entry in manifest["files"] if entry["path"].endswith(".parquet")]
    return manifest, (folders.with_columns(read_part(output, name), name, _read_kinds(output, name)) for name in names)


def read_part(output: Output, name: str, columns: Sequence[str] | None = None) -> pa.Table:
    """A file of an output, or some of its columns; not those that its folder says."""
    with storage.open_to_read(output.file(*name.split("/"))) as file:
        return pq.read_table(file, columns=columns)


def read_keys(output: Output, name: str, size: int) -> tuple[pa.ChunkedArray, np.ndarray | None]:
    """The keys of a file of so many bytes, and the positions of its rows in the input, `[N]`, where its footer says."""
    path = output.file(*name.split("/"))
    at_once = storage.is_address(path) and size <= _AT_ONCE
    opened = io.BytesIO(storage.read(path)) if at_once else storage.open_to_read(path)
    with opened as file, pq.ParquetFile(file) as parquet:
        keys = parquet.read([contract.KEY])[contract.KEY]
        return keys, _positions(parquet.metadata.metadata or {})


def _positions(footer: dict[bytes, bytes]) -> np.ndarray | None:
    packed = footer.get(_POSITIONS)
    return None if packed is None else np.frombuffer(zlib.decompress(base64.b85decode(packed)), "<i8").cumsum()


def _read_kinds(output: Output, name: str) -> dict[str, str]:
    return json.loads(_footer(output, name).get(_KINDS, b"{}"))


def _footer(output: Output, name: str) -> dict[bytes, bytes]:
    with storage.open_to_read(output.file(*name.split("/"))) as file:
        return pq.read_metadata(file).metadata or {}


def keep_rows(output: Output, name: str, kept: np.ndarray, by_row_groups: bool = False) -> dict[str, dict[str, Any]]:
    """Writes a file anew, with those of its rows alone, booleans `[N]`, and describes it by its name.

    By row groups it is never held as a whole.
    """
    described: dict[str, dict[str, Any]] = {}
    positions, first = _positions(_footer(output, name)), 0
    with storage.open_to_read(output.file(*name.split("/"))) as raw, pq.ParquetFile(raw) as parquet:
        file = _File(output, name, parquet.schema_arrow.remove_metadata(), _read_kinds(output, name), described)
        groups = range(parquet.num_row_groups)
        for table in map(parquet.read_row_group, groups) if by_row_groups else [parquet.read()]:
            mine = slice(first, first + len(table))
            some = table.filter(pa.array(kept[mine])).replace_schema_metadata()
            file.write(some, None if positions is None else positions[mine][kept[mine]])
            first += len(table)
    file.close()
    return described


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
