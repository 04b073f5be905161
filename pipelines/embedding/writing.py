"""From the embedded rows of a unit of work to its Parquet parts and its commit record."""

import functools
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
from apache_beam.transforms.window import GlobalWindows

from .. import jobs, storage
from ..errors import PipelineError
from ..jobs import metrics
from ..jobs.commits import Output
from . import joining, lineage, planning
from .beside import OneBehind
from .handler import Embedded
from .parquet_parts import Layout, ParquetPart


class WriteUnit(beam.DoFn):
    """From the embedded blocks of a unit to a Parquet part and a commit record. Yields the unit's name.

    The blocks of a unit follow one another through a fused stage. A runner that would put anything between
    them is found out by their numbers, and the job fails.
    """

    def __init__(self, output: Output, made: lineage.Made, layout: Layout):
        self._output, self._made, self._layout = output, made, layout
        self._rows_written, self._rows_rejected = map(metrics.counter, ("rows_written", "rows_rejected"))
        self._part: ParquetPart | None = None
        self._behind: OneBehind[tuple[str, int, int]] | None = None

    def start_bundle(self) -> None:
        """See ``beam.DoFn``: into a store a part is sent while the model works on the rows of the next one."""
        self.teardown()  # of a try that failed half way
        self._behind = OneBehind() if storage.is_address(self._output.path) else None

    def process(self, embedded: Embedded) -> Iterator[str]:
        """Writes one block, also when no row of it is left: a part says what its columns are."""
        rows, unit = embedded.rows, embedded.rows.unit
        with jobs.reporting(self._output, unit):
            if rows.index == 0:
                self._abandon()  # of a try that failed half way
                self._part = ParquetPart(self._output, unit, self._layout)
            if self._part is None or (unit.name, rows.index) != (self._part.unit.name, self._part.blocks):
                raise PipelineError(f"block {rows.index} of unit {unit.name} came out of turn: the runner parts them")
            self._part.add(embedded)
        if rows.is_last:
            self._part.unit = unit
            commit = functools.partial(self._commit, self._part)
            self._part = None
            yield from self._told(self._behind.call(commit) if self._behind else [commit()])

    def finish_bundle(self) -> Iterator[Any]:
        """See ``beam.DoFn``: a bundle is done when its last unit is committed."""
        if self._behind:
            yield from map(GlobalWindows.windowed_value, self._told(self._behind.wait()))

    def _commit(self, part: ParquetPart) -> tuple[str, int, int]:
        facts = self._made.facts(part.unit.name) | joining.facts(part.unit) | planning.facts(part.unit)
        with jobs.reporting(self._output, part.unit):
            part.close()
            self._output.commit(part.unit, part.rows, part.rejected, facts, part.files, part.described)
        return part.unit.name, part.rows, len(part.rejected)

    def _told(self, committed: Iterable[tuple[str, int, int]]) -> Iterator[str]:
        for name, written, rejected in committed:
            self._rows_written.inc(written)
            self._rows_rejected.inc(rejected)
            yield name

    def teardown(self) -> None:
        """See ``beam.DoFn``: drops what was not finished."""
        self._abandon()
        if self._behind:
            self._behind.end()

    def _abandon(self) -> None:
        if self._part is not None:
            self._part.abandon()
        self._part = None
