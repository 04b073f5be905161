"""From a unit of work to its rows, a block at a time, checked and numbered."""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.transforms.window import GlobalWindows

from .. import contract, jobs
from ..errors import PipelineError
from ..formats.standardization import Standardization
from ..inputs.base import Block, BlockReference, Rows, block_rows
from ..inputs.gathered import gathered
from ..jobs import metrics
from ..jobs.commits import Output, Unit
from .beside import ReadAhead
from .handler import UnitBlock
from .lineage import SHA256
from .planning import as_read, is_unread
from .slices import Places, slices_of


class ReadUnit(beam.DoFn):
    """From a unit to its blocks of rows, in their order; from a store while the model works on those of the last one.

    Args:
        output: Where the units are committed.
        dataset: The rows.
        standardize: The units of their columns, if they are to be changed.
        as_told: Whether the user named the signature: bytes of nothing but 0 and 1 are then what it takes them for.
    """

    def __init__(
        self, output: Output, dataset: Rows, standardize: Standardization | None = None, as_told: bool = False
    ):
        self._output, self._dataset, self._standardize, self._as_told = output, dataset, standardize, as_told
        self._ahead: tuple[Unit, ReadAhead[tuple[int, Block]], dict[str, str]] | None = None
        self._rows_read = metrics.counter("rows_read")

    def process(self, unit: Unit) -> Iterator[UnitBlock]:
        """Reads a block at a time; a file that is broken as a whole fails the job. A unit that is done stays."""
        if self._is_done(unit):
            return
        sha256: dict[str, str] = {}
        blocks = self._blocks(unit, sha256)
        if not self._dataset.is_far:
            yield from self._checked(unit, blocks, sha256)
            return
        last, self._ahead = self._ahead, (unit, ReadAhead(blocks), sha256)
        if last:
            yield from self._checked(*last)

    def start_bundle(self) -> None:
        """See ``beam.DoFn``: what a bundle that failed had read is dropped."""
        if self._ahead:
            self._ahead[1].abandon()
        self._ahead = None

    def finish_bundle(self) -> Iterator[Any]:
        """See ``beam.DoFn``: the rows of the last unit."""
        last, self._ahead = self._ahead, None
        if last:
            yield from map(GlobalWindows.windowed_value, self._checked(*last))

    def _is_done(self, unit: Unit) -> bool:
        if is_unread(unit):
            if (record := self._output.record(unit.name)) is None:
                return False
            unit = as_read(unit, self._dataset, record["facts"].get(SHA256, {}))
        return self._output.is_done(unit)

    def _blocks(self, unit: Unit, sha256: dict[str, str]) -> Iterator[tuple[int, Block]]:
        """As they are read, each with the number of its slice; files that are unread are told to ``sha256``."""
        once = self._dataset.fetched_once(sha256)
        for index, one in enumerate(slices_of(unit)):
            for block in (once if one.making else self._dataset).read(one):
                yield index, block

    def _checked(self, unit: Unit, blocks: Iterable[tuple[int, Block]], sha256: dict[str, str]) -> Iterator[UnitBlock]:
        """The last block has the unit with its own fingerprint, if that was not known before."""
        left, places = unit.rows, Places(unit)
        with jobs.reporting(self._output, unit):
            rows: Iterable[Block] = self._rows(places, blocks)
            if len(places.slices) > 1:
                rows = gathered(rows, block_rows(self._dataset.shape or (), self._dataset.dtype))
            for index, block in enumerate(rows):
                left -= len(block) + len(block.rejected)
                is_last = left == 0
                yield UnitBlock(block, as_read(unit, self._dataset, sha256) if is_last else unit, index, is_last)
            if left:
                raise PipelineError(f"{places} gave {unit.rows - left} of {unit.rows} rows: it has changed")

    def _rows(self, places: Places, blocks: Iterable[tuple[int, Block]]) -> Iterator[Block]:
        """Those of each slice; of several, numbered."""
        for index, group in itertools.groupby(blocks, key=lambda pair: pair[0]):
            rows = self._of_slice(places.slices[index], (block for _, block in group))
            yield from places.numbered(index, rows) if len(places.slices) > 1 else rows

    def _of_slice(self, one: BlockReference, blocks: Iterable[Block]) -> Iterator[Block]:
        left, highest = one.rows, 0
        for block in blocks:
            rows = len(block) + len(block.rejected)
            left -= rows
            self._rows_read.inc(rows)
            if block.x.dtype == np.uint8:
                highest = max(highest, int(block.x.max(initial=0)))
                block = self._numbers(block, highest, is_last=left == 0)
            if self._dataset.dtype == "string":
                block = block.readable()
            yield block.standardized(self._standardize) if self._standardize else block
        if left:
            raise PipelineError(f"{one.file} gave {one.rows - left} of {one.rows} rows: it has changed")

    def _numbers(self, block: Block, highest: int, is_last: bool) -> Block:
        """Bytes as the signature takes them; of nothing but 0 and 1 the user says what they are, as for ``fit``."""
        if self._dataset.dtype == "float32":
            if highest > 1:
                raise PipelineError(
                    f"{block.file} holds uint8 up to {highest}, the signature takes float32, scaled as in training: "
                    f"leave it out, so that bytes go to {contract.signature(contract.EMBED, 'uint8')}, or prepare rows "
                    "with --dtype float32, and name that dataset by --prepared-with"
                )
            return dataclasses.replace(block, x=block.x.astype(np.float32))
        if is_last and highest == 1 and not self._as_told:
            floats, levels = (contract.signature(contract.EMBED, dtype) for dtype in ("float32", "uint8"))
            raise PipelineError(
                f"{block.file} holds uint8 of nothing but 0 and 1, of which a picture's white is 255: write "
                f"--signature {floats} if 1 is white, --signature {levels} if it is the darkest grey "
                "or a count"
            )
        return block
