"""The slices of a unit of work: a run of rows of a file, or some that are written to one part, one after another.

A row has a number in its unit: in a unit of one slice its position in the file; in one that is joined the numbers of a
slice go on from those of the slice before.
"""

import dataclasses
from collections.abc import Iterable, Iterator

import numpy as np

from ..errors import Rejection
from ..inputs.base import Block, BlockReference
from ..jobs.commits import Unit


def slices_of(unit: Unit) -> list[BlockReference]:
    """The slices of a unit, in the order of its rows."""
    return [BlockReference(**one) for one in unit.task.get("slices", [unit.task])]


class Places:
    """Where the rows of a unit lie in the input, by their numbers.

    Example:
        >>> slices = [{"split": "all", "file": file, "first": 0, "rows": 2} for file in "ab"]
        >>> places = Places(Unit("a-and-1-more", 4, (), "", {"split": "all", "slices": slices}))
        >>> places.place(3), places.number(Rejection("k", "b", 1, "it is odd"))
        (('b', 1), 3)
    """

    def __init__(self, unit: Unit):
        self.slices = slices_of(unit)
        rows = [one.rows for one in self.slices]
        self.starts = self.slices[0].first + np.cumsum([0, *rows[:-1]])
        self._runs: dict[str, list[tuple[int, int, int]]] = {}  # of a file: first position, rows, first number
        for one, start in zip(self.slices, self.starts.tolist(), strict=True):
            for file, *run in _runs(one, start):
                self._runs.setdefault(file, []).append((run[0], run[1], run[2]))

    def __str__(self) -> str:
        more = len(self.slices) - 1
        return self.slices[0].file + (f" and {more:,} more" if more else "")

    def owners(self, numbers: np.ndarray) -> np.ndarray:
        """Which slices rows lie in, `[N]`."""
        return np.maximum(np.searchsorted(self.starts, numbers, side="right") - 1, 0)

    def place(self, number: int) -> tuple[str, int]:
        """File and position of a row."""
        owner = int(self.owners(np.array([number]))[0])
        one, within = self.slices[owner], number - int(self.starts[owner])
        return (one.files[within], 0) if one.files else (one.file, one.first + within)

    def number(self, row: Rejection) -> int:
        """The number of a row; of one whose position does not say it, as in a table with empty lines, the first."""
        runs = self._runs.get(row.source, [(0, 0, int(self.starts[0]))])
        within = (start + row.position - first for first, rows, start in runs if first <= row.position < first + rows)
        return next(within, runs[0][2])

    def order(self, row: Rejection) -> tuple[int, int]:
        """By what the rejected rows of a unit are in the order of its slices."""
        return self._runs.get(row.source, [(0, 0, 0)])[0][2], row.position

    def numbered(self, slice_of_unit: int, blocks: Iterable[Block]) -> Iterator[Block]:
        """The blocks of a slice, their rows numbered."""
        one, start = self.slices[slice_of_unit], int(self.starts[slice_of_unit])
        for block in blocks:
            if one.files:
                numbers = np.array([self._runs[key][0][2] for key in block.keys], np.int64)
            else:
                numbers = block.positions + (start - one.first)
            yield dataclasses.replace(block, numbers=numbers)


def _runs(one: BlockReference, start: int) -> Iterator[tuple[str, int, int, int]]:
    if not one.files:
        yield one.file, one.first, one.rows, start
    for index, file in enumerate(one.files):
        yield file, 0, 1, start + index
