"""Lineage: which input, model and options made each part, and what a growing input has more and less than before.

A line of ``lineage.jsonl`` is a unit of work: its parts and rows, the path, SHA-256, bytes and time of each file
that it was made from, the version of the model, the options, and the generation and release that made it. The next run
knows by it what is new. A file is known by its path below the input and by its SHA-256; the SHA-256 of one whose bytes
and time of modification (in nanoseconds, two seconds old or more when it was read) are as before is not computed again.
"""

import dataclasses
import itertools
import json
import os
from collections.abc import Sequence
from typing import Any

from .. import checksums, contract, jobs, storage
from ..checksums import DamagedError
from ..errors import PipelineError
from ..formats.files import Content
from ..inputs.base import BlockReference, Rows
from ..jobs.commits import Output, Unit
from .slices import slices_of

SHA256 = "sha256"  # the fact of a unit that says the checksums of files that were not read when it was planned
SLICES = "slices"  # the fact of a unit that names the slices of one that is joined: see ``pipelines.embedding.joining``


@dataclasses.dataclass(frozen=True)
class Lineage:
    """What a generation was made from.

    Attributes:
        contents: What was in each file.
        units: The files of each unit, by its name.
        generations: In which generation each unit was made, by its name.
        number: Which generation it is; 0 for none.
        slices: Fingerprint and rows of each slice of each unit, by its name, where units are joined.
    """

    contents: dict[str, Content] = dataclasses.field(default_factory=dict)
    units: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    generations: dict[str, int] = dataclasses.field(default_factory=dict)
    number: int = 0
    slices: dict[str, list[tuple[str, int]]] = dataclasses.field(default_factory=dict)

    def groups(self) -> list[dict[str, str]]:
        """The SHA-256 of the files of each unit; of one that is joined and whose rows are files, of each slice."""
        groups = [run for name, files in self.units.items() for run in _runs(files, self.slices.get(name, []))]
        return [{file: self.contents[file].sha256 for file in files} for files in groups]

    def changes(self, rows: Rows, blocks: Sequence[BlockReference], output: str) -> "Changes":
        """What an input has more and less than this.

        Args:
            rows: The input.
            blocks: Its units of work: other files of it are not read.
            output: How the output is called.

        Raises:
            PipelineError: It has no file of this at all: it is another input.
        """
        if self.contents and not self.contents.keys() & rows.contents.keys():
            raise PipelineError(
                f"the output {output} was made from {len(self.contents)} files ({min(self.contents)}, ...), none of "
                f"which is in {rows.path}: use another folder, or --overwrite"
            )
        read = {file for block in blocks for file in rows.files_of(block)}
        known = read & self.contents.keys()
        changed = sum(rows.contents[file].sha256 != self.contents[file].sha256 for file in known)
        new = len(read) - len(known) if self.contents else 0
        return Changes(new, changed, tuple(sorted(self.contents.keys() - rows.contents.keys())))

    def made_before(self, output: Output, units: Sequence[str]) -> "Made":
        """What is to be said of units that a generation is to get; one that is made again keeps its number."""
        number = _number(output)
        earlier = self.generations if number == self.number else {}
        return Made(number, {name: earlier[name] for name in units if name in earlier})


@dataclasses.dataclass(frozen=True)
class Made:
    """What the commit records of units say of their making, in whichever generation they are then.

    Attributes:
        generation: In which they are made.
        earlier: In which one those were that are made again.
    """

    generation: int
    earlier: dict[str, int]

    def facts(self, unit: str) -> dict[str, Any]:
        """Of a unit, by its name."""
        return {"generation": self.earlier.get(unit, self.generation), "tfvae_version": jobs.version()}


@dataclasses.dataclass(frozen=True)
class Changes:
    """Of a growing input: how many files are new, how many changed, and the names of those that are gone."""

    new: int = 0
    changed: int = 0
    gone: tuple[str, ...] = ()


def read(output: Output) -> Lineage:
    """The lineage of a generation; an empty one where there is none, or it is not as it was written."""
    try:
        listed = checksums.entries(output.manifest() or {"files": []})
    except DamagedError:
        return Lineage()
    mine = [entry for entry in listed if entry["path"] == contract.LINEAGE]
    if not mine or checksums.changed(output.path, mine):
        return Lineage()
    contents: dict[str, Content] = {}
    units, generations, slices = {}, {}, {}
    with storage.open_to_read(output.file(contract.LINEAGE)) as file:
        for line in file:
            told = json.loads(line)
            inputs, generations[told["unit"]] = told["inputs"], told["generation"]
            units[told["unit"]] = tuple(entry["path"] for entry in inputs)
            if SLICES in told:
                slices[told["unit"]] = [(fingerprint, rows) for fingerprint, rows in told[SLICES]]
            for entry in inputs:
                contents[entry["path"]] = Content(entry["sha256"], entry["bytes"], entry["modified"])
    return Lineage(contents, units, generations, _number(output), slices)


def _runs(files: Sequence[str], slices: Sequence[tuple[str, int]]) -> list[Sequence[str]]:
    """The files of each slice, where each row is one; else all together."""
    ends = list(itertools.accumulate((rows for _, rows in slices), initial=0))
    if ends[-1] != len(files):
        return [files]
    return [files[first:end] for first, end in itertools.pairwise(ends)]


def write(
    output: Output, rows: Rows, units: Sequence[Unit], records: Sequence[dict[str, Any]], told: dict[str, Any]
) -> None:
    """Writes the lineage of a generation.

    Args:
        output: Its folder.
        rows: The input.
        units: The plan.
        records: The commit record of each unit.
        told: What made them all: the model and the options.
    """
    with output.writing(contract.LINEAGE) as file:
        for unit, record in zip(units, records, strict=True):
            files = dict.fromkeys(file for one in slices_of(unit) for file in rows.files_of(one))
            line = {
                "unit": unit.name,
                "parts": [entry["path"] for entry in record["files"] if entry["path"].startswith(contract.PARTS)],
                "split": unit.task["split"],
                "rows": record["rows"],
                "rejected": record["rejected"],
                "inputs": [
                    {
                        "path": name,
                        "sha256": rows.contents[name].sha256,
                        "bytes": rows.contents[name].size,
                        "modified": rows.contents[name].modified,
                    }
                    for name in files
                ],
                **told,
                **{name: fact for name, fact in record["facts"].items() if name != SHA256},
            }
            file.write(storage.to_json(line))


def _number(output: Output) -> int:
    return int(os.path.basename(output.path))
