"""Small units of work that follow one another, joined, so that the files of an output have about the wanted size.

A unit that is joined has several slices (see ``pipelines.embedding.slices``), each of which would else be a unit. Its
commit record, and so its line of the lineage, has their fingerprints: a later run joins what is not done, and leaves a
unit as it is of which every slice is as it was. One of which a slice has changed or is gone is none any more, and its
other slices are joined with what is new.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from .. import storage
from ..formats.files import folder_values
from ..jobs.commits import Output, Unit
from .lineage import SLICES, Lineage
from .parquet_parts import Layout
from .slices import slices_of

MOST_ROWS = 1 << 22  # of a unit, whose keys the driver holds, to find those that come twice
_MOST_SLICES = 1 << 13  # a unit must be small enough to cross any runner
_TEXT_BYTES = 24  # of a key, or of a value of a column that is kept, about
_FOLDERS = 16  # among which the rows of a unit are thought to be spread, where their columns and not its files say it


@dataclasses.dataclass(frozen=True)
class Joining:
    """How units are joined.

    Attributes:
        partition_by: Columns that are folders of the output.
        rows: How many rows a file may have, about.
    """

    partition_by: tuple[str, ...]
    rows: int

    @classmethod
    def of(cls, layout: Layout, numbers: int, texts: int) -> "Joining":
        """For rows that have so many numbers of 32 bits, and so many keys and other columns."""
        bytes_a_row = 4 * numbers + _TEXT_BYTES * texts
        return cls(layout.partition_by, (layout.file_bytes or 0) // bytes_a_row)

    def joined(self, units: Sequence[Unit], earlier: Iterable[Sequence[str]] = ()) -> list[Unit]:
        """The same slices in fewer units, in the order of their first ones.

        Args:
            units: The plan: a unit a slice.
            earlier: The fingerprints of the slices of each unit that was made before.

        Example:
            >>> task = lambda i: {"split": "all", "file": f"{i}.csv", "first": 0, "rows": 10}
            >>> units = [Unit(f"all-{i}", 10, (f"parts/all-{i}.parquet",), f"of {i}", task(i)) for i in range(5)]
            >>> by_name = lambda units: {unit.name: unit.rows for unit in units}
            >>> by_name(Joining((), rows=20).joined(units))
            {'all-0-and-1-more': 20, 'all-2-and-1-more': 20, 'all-4': 10}
            >>> by_name(Joining((), rows=20).joined(units, earlier=[["of 1"], ["of 0", "of another"]]))
            {'all-0-and-1-more': 20, 'all-1': 10, 'all-3-and-1-more': 20}
        """
        left = {unit.fingerprint: (order, unit) for order, unit in enumerate(units)}
        groups = []
        for fingerprints in earlier:
            if all(one in left for one in fingerprints):
                groups.append([left.pop(one) for one in fingerprints])
        groups += self._packed(list(left.values()))
        return [_as_one(group) for group in sorted(groups, key=lambda group: group[0][0])]

    def _packed(self, slices: Sequence[tuple[int, Unit]]) -> Iterator[list[tuple[int, Unit]]]:
        """Runs of slices that lie in one folder and have few enough rows; a slice of more is one by itself."""
        group: list[tuple[int, Unit]] = []
        rows, folder = 0, None
        for order, unit in slices:
            mine = self._folder(unit)
            is_full = rows + unit.rows > self._most_rows(mine[1]) or len(group) == _MOST_SLICES
            if group and (is_full or mine != folder):
                yield group
                group, rows = [], 0
            group.append((order, unit))
            rows, folder = rows + unit.rows, mine
        if group:
            yield group

    def _folder(self, unit: Unit) -> tuple[str, tuple[Any, ...]]:
        """The split of a slice, and what the folders of its file say of those of the output; None what they do not."""
        values = folder_values(unit.task["file"])
        return unit.task["split"], tuple((name, values[name]) if name in values else None for name in self.partition_by)

    def _most_rows(self, folder: tuple[Any, ...]) -> int:
        return min(self.rows * (_FOLDERS if None in folder else 1), MOST_ROWS)


def _as_one(group: Sequence[tuple[int, Unit]]) -> Unit:
    """A unit of some slices, called after its first; it remembers which they are, and their places in the plan."""
    units = [unit for _, unit in group]
    task = {
        "split": units[0].task["split"],
        "slices": [unit.task for unit in units],
        "fingerprints": [unit.fingerprint for unit in units],
        "order": [order for order, _ in group],
    }
    if len(units) == 1:
        return dataclasses.replace(units[0], task=task)
    name = f"{units[0].name}-and-{len(units) - 1}-more"
    files = tuple(file.replace(units[0].name, name) for file in units[0].files)
    return Unit(name, sum(unit.rows for unit in units), files, storage.fingerprint(task["fingerprints"]), task)


def facts(unit: Unit) -> dict[str, Any]:
    """What the commit record of a unit says of its slices, if units are joined: their fingerprints and rows."""
    if "fingerprints" not in unit.task:
        return {}
    rows = [one.rows for one in slices_of(unit)]
    return {SLICES: [list(pair) for pair in zip(unit.task["fingerprints"], rows, strict=True)]}


def earlier(output: Output, before: Lineage) -> list[list[str]]:
    """Of each unit of a generation the fingerprints of its slices: as its lineage says, or else the commit records.

    A unit that another release made is a slice.
    """
    records = storage.map_files(output.record, sorted(output.committed() - before.slices.keys()))
    told = [record["facts"].get(SLICES, [[record["fingerprint"]]]) for record in records if record is not None]
    return [[one[0] for one in slices] for slices in (*before.slices.values(), *told)]
