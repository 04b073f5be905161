"""Small blocks of rows as larger ones, so that the model and the writer get many rows at a time of many small files."""

import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa

from . import base
from .base import Block


def gathered(blocks: Iterable[Block], most_rows: int) -> Iterator[Block]:
    """The same rows in the same order: blocks that follow one another are one, as far as memory is bounded.

    Args:
        blocks: Blocks of one input, which have ``numbers``.
        most_rows: See ``pipelines.inputs.base.block_rows``.

    Example:
        >>> a, b = (Block(f, [f], np.zeros([1, 2]), np.zeros(1, int), [], numbers=np.arange(1)) for f in "ab")
        >>> [block] = gathered([a, b], most_rows=4096)
        >>> block.keys, block.files, block.rejection(1, "it is odd").source
        (['a', 'b'], ['a', 'b'], 'b')
    """
    waiting: list[Block] = []
    rows = size = 0
    for block in blocks:
        more, bytes_more = len(block) + len(block.rejected), _bytes(block.x)
        is_full = rows + more > most_rows or size + bytes_more > base.BLOCK_BYTES
        if waiting and (is_full or not _are_alike(waiting[-1], block)):
            yield _as_one(waiting)
            waiting, rows, size = [], 0, 0
        waiting.append(block)
        rows, size = rows + more, size + bytes_more
    if waiting:
        yield _as_one(waiting)


def _bytes(x: np.ndarray) -> int:
    """Of encoded images what they take, not their pointers."""
    return sum(map(len, x)) if x.dtype == object else x.nbytes


def _are_alike(one: Block, other: Block) -> bool:
    """Whether the columns that are kept are of the same types, which files may store otherwise."""
    return one.kept is None or other.kept is None or one.kept.schema.equals(other.kept.schema)


def _as_one(blocks: Sequence[Block]) -> Block:
    kept = [block.kept for block in blocks if block.kept is not None]
    return Block(
        blocks[0].file,
        [key for block in blocks for key in block.keys],
        np.concatenate([block.x for block in blocks]),
        np.concatenate([block.positions for block in blocks]),
        [row for block in blocks for row in block.rejected],
        pa.concat_tables(kept).combine_chunks() if kept else None,
        [file for block in blocks for file in _files(block)],
        np.concatenate([block.numbers for block in blocks if block.numbers is not None]),
    )


def _files(block: Block) -> Iterable[str]:
    return itertools.repeat(block.file, len(block)) if block.files is None else block.files
