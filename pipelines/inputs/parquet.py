"""Parquet files as the embedding job's input: a key, one column of observations, and columns to take over.

The column is a tensor (fixed-size binary, fixed-size or variable lists of numbers, Arrow's fixed-shape
tensor) or bytes: of encoded images, or raw values where a signature for such is named. A unit of work is
a run of whole row groups, read in parts: a row group of a million rows costs no more memory than a small one.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa

from .. import contract
from ..errors import Rejection
from ..formats.files import Content, Found
from ..formats.parquet import check_columns, narrow, one_array, open_columns, open_reader, tensors, text_keys
from .base import BLOCK_ROWS, Block, BlockReference, ColumnRows, block_rows


@dataclasses.dataclass(frozen=True)
class Parquet(ColumnRows):
    """Parquet files that have the same columns.

    Attributes:
        groups: How many rows each row group of a file has, by file.

    Example:
        >>> import pyarrow.parquet as pq
        >>> rows = pa.table({"key": ["a", "b"], "x": pa.array([b"\\0\\1", b"\\2\\3"], pa.binary(2))})
        >>> pq.write_table(rows, "rows.parquet")
        >>> from tfvae.pipelines.inputs import open_input
        >>> dataset = open_input("rows.parquet").fitted([2], "uint8")
        >>> [block] = dataset.read(dataset.blocks("all")[0])
        >>> block.keys, block.x.tolist()
        (['a', 'b'], [[0, 1], [2, 3]])
    """

    groups: dict[str, tuple[int, ...]] = dataclasses.field(hash=False)

    def units(self) -> list[BlockReference]:
        """See ``WholeRows.units``."""
        return [unit for file, groups in self.groups.items() for unit in _units(file, groups)]

    def read(self, block: BlockReference) -> Iterator[Block]:
        """See ``Rows.read``."""
        columns = list(dict.fromkeys(name for name in (self.key, self.column, *self.keep) if name))
        with open_reader(self.found, block.file, columns) as reader:
            groups = _groups_of(self.groups[block.file], block)
            step, position = block_rows(self.shape or (), self.dtype), block.first
            for table in reader.pieces(step, groups):
                yield self._block(block.file, position, table.combine_chunks())
                position += len(table)

    def _block(self, file: str, first: int, table: pa.Table) -> Block:
        reasons: dict[int, str] = {}
        numbers = range(first, first + len(table))
        keys = text_keys(table.column(self.key), reasons) if self.key else [f"{file}:{row}" for row in numbers]
        column, dtype = one_array(table.column(self.column)), self.stored or self.dtype
        good, x = tensors(column, self.shape or (), dtype, reasons, self.missing)
        bad_key = np.array([row in reasons for row in good], bool) if reasons else np.zeros(len(good), bool)
        good, x = good[~bad_key], x[~bad_key]
        rejected = [
            Rejection(f"{file}:{first + row}" if keys[row] is None else keys[row], file, first + row, reasons[row])
            for row in sorted(reasons)
        ]
        whole = len(good) == len(keys)
        kept = _narrow(table.select(self.keep)) if self.keep else None
        return Block(
            file,
            keys if whole else [keys[row] for row in good],
            x,
            good + first,
            rejected,
            kept if whole or kept is None else kept.take(good),
        )


def open_parquet(
    path: str,
    found: Found,
    key: str,
    column: str,
    keep: tuple[str, ...],
    known: Mapping[str, Content],
    later: bool = False,
) -> Parquet:
    """Parquet files, each hashed but those that are known; their footers say what the columns hold.

    Those that are a unit of work each may be hashed ``later``: see ``Found.contents``.

    Raises:
        PipelineError: They hold no rows, or a column is absent or of no use.
    """
    needed = () if key == contract.KEY else (key,)  # what the user did not name may be absent
    columns = open_columns(path, found, lambda file: (*needed, *({key} & {*file.names} - {*needed}), column, *keep))
    own = key if key in columns.kinds else None
    described = check_columns(path, columns, column, own)
    found = found.beside(columns.names, (own, column, *keep, contract.LABEL))
    one_unit = [file for file, groups in columns.groups.items() if len(_units(file, groups)) == 1] if later else []
    contents = found.contents(known, later=one_unit)
    return Parquet(path, *described, contents, found, own, column, keep, columns.groups)


def _units(file: str, groups: Sequence[int]) -> list[BlockReference]:
    """A unit of work is a run of row groups of a file."""
    units = []
    first = rows = 0
    for count in groups:
        if rows and rows + count > BLOCK_ROWS:
            units.append(BlockReference("all", file, first, rows))
            first, rows = first + rows, 0
        rows += count
    if rows:
        units.append(BlockReference("all", file, first, rows))
    return units


def _narrow(table: pa.Table) -> pa.Table:
    """The same for all files, of which one may have a column as string and another as large_string."""
    return table.cast(pa.schema([field.with_type(narrow(field.type)) for field in table.schema]))


def _groups_of(groups: Sequence[int], block: BlockReference) -> list[int]:
    """The numbers of the row groups that make a unit."""
    starts = np.cumsum([0, *groups[:-1]])
    return [i for i, start in enumerate(starts) if block.first <= start < block.first + block.rows and groups[i]]
