"""An output that grows: whole states of it, one beside the other, of which readers see one.

    OUTPUT/parts, manifest.json, ...      links to the same below ``current``
    OUTPUT/current                        a link to the generation to read: the one thing that is switched
    OUTPUT/generations/000002/            a folder under the commit protocol (see ``pipelines.jobs.commits``)
    OUTPUT/generations/000001/            the one before, for whoever has it open
    OUTPUT/_work/job.json                 first: the folder is ours, and what was asked for

A run that finds other inputs, or another version of the model, than the current generation was made from makes the next
one. Units that are done already, by their fingerprints, are carried into it: hard links, which cost neither time nor
room, and which are held against their checksums like all the others. When it is whole the link is switched, by one
rename. So a run that is killed leaves the current generation as it is, and the next run goes on with the one that was
being made. The generation before the current one stays until the next switch.

In an object store, which has no links, ``current`` is a small file that holds the same text, and readers follow it.
"""

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Sequence
from typing import Any

from .. import contract, storage
from ..checksums import DamagedError
from ..errors import PipelineError
from . import options
from .calls import Call
from .commits import JOB, REJECTED, Output, Unit
from .execution import Job
from .progress import Progress

LINKS = (contract.PARTS, REJECTED, contract.MANIFEST, contract.LINEAGE)  # what readers open


@dataclasses.dataclass(frozen=True)
class Generations:
    """An output directory that holds generations. See the module's docstring.

    Example:
        >>> grown = Generations("grown")
        >>> for number in (1, 2):
        ...     output = grown.generation(number)
        ...     with output.writing("parts/rows.txt") as file:
        ...         _ = file.write(f"of generation {number}".encode())
        ...     grown.switch(number)
        >>> storage.read("grown/parts/rows.txt"), grown.current()
        (b'of generation 2', 2)
    """

    path: str

    @property
    def _root(self) -> Output:
        return Output(self.path)

    def file(self, *parts: str) -> str:
        """The path of a file inside the output directory."""
        return self._root.file(*parts)

    def generation(self, number: int) -> Output:
        """The folder of a generation, which need not be there."""
        return Output(self.file(*_folder(number).split("/")))

    def shown(self, name: str, output: Output) -> str:
        """Where readers find a file of a generation that is current: by a link, or where it lies."""
        return self.file(name) if storage.has_links(self.path) else output.file(name)

    def _numbers(self) -> list[int]:
        numbers = map(contract.version_number, storage.names(self.file(contract.GENERATIONS)))
        return sorted(number for number in numbers if number is not None)

    def current(self) -> int:
        """The number of the generation that readers see, 0 where there is none yet.

        Without the link, of a folder that was copied by a program that has none, it is the newest one that is whole.
        """
        pointed = storage.pointed_at(self.file(contract.CURRENT))
        number = contract.version_number(str(pointed).rpartition("/")[2])
        if number in self._numbers() and pointed == _folder(number or 0):
            return number or 0
        whole = [n for n in self._numbers() if storage.exists(self.generation(n).file(contract.MANIFEST))]
        return max(whole, default=0)

    def claim(self, kind: str, asked: dict[str, Any], overwrite: bool) -> list[str]:
        """Makes the directory ours, or finds it to be ours and made with the same options; see ``Output.claim``.

        Args:
            kind: What it holds.
            asked: The options by name, in plain JSON values.
            overwrite: Other options may take the place of the earlier ones.
        """
        job, damaged = {"kind": kind, "options": asked}, []
        try:
            old = self._root.read_record(JOB)
        except DamagedError:
            damaged, old = [JOB], self._job_of_current(kind)
        if old is not None:
            self._refuse_other(old, job, overwrite)
        self._refuse_copies()
        if damaged or old is None or old.get("options") != asked:
            self._root.write_record(JOB, job)
        return damaged

    def _job_of_current(self, kind: str) -> dict[str, Any] | None:
        with contextlib.suppress(DamagedError):
            if manifest := self.generation(self.current()).manifest():
                return {"kind": kind, "options": manifest["options"]}
        return None

    def _refuse_other(self, old: dict[str, Any], job: dict[str, Any], overwrite: bool) -> None:
        if old.get("kind") != job["kind"]:
            raise PipelineError(
                f"the output {self.path} holds {old.get('kind')}, expected {job['kind']}: choose another folder"
            )
        if "options" not in old:  # of one generation, right in the folder
            if not overwrite:
                raise PipelineError(
                    f"the output {self.path} was begun by another release, which lays its files out otherwise: use "
                    "another folder, or --overwrite"
                )
            self._root.clear(old)
        elif not overwrite and (differing := _differences(old["options"], job["options"])) and not self._is_unmade():
            raise PipelineError(
                f"the output {self.path} was made with other options ({', '.join(differing)}): give the same ones, or "
                "use another folder, or --overwrite"
            )

    def _is_unmade(self) -> bool:
        return all(self.generation(number).is_unmade() for number in self._numbers())

    def _refuse_copies(self) -> None:
        copies = [name for name in (contract.CURRENT, *LINKS) if _is_copy(self.file(name))]
        if copies:
            raise PipelineError(
                f"{self.file(copies[0])} is no link, as it was before {self.path} was copied without its links: remove "
                f"{', '.join(copies)} there, and nothing in {contract.GENERATIONS}, and run the same command again"
            )

    def choose(self, fingerprint: str, units: Sequence[Unit], overwrite: bool, call: Call | None = None) -> int:
        """The generation to work on: the current one where it is of this very job, else the next."""
        current = self.current()
        before, coming = self.generation(current), self.generation(current + 1)
        is_same = current > 0 and not overwrite and before.is_for(fingerprint)
        if call:
            call.refuse_other(is_same, self.path)
        if is_same:
            return current
        if overwrite:
            storage.remove_folder(coming.path)
        elif not coming.is_for(fingerprint):
            coming.forget_job(units)
        if current and not overwrite:
            coming.carry(before, units)
        return current + 1

    def switch(self, number: int) -> None:
        """Shows readers that generation, and removes all but it and the one before."""
        temporary = self.file(contract.WORK, "temporary")
        storage.make_folder(self.generation(number).file(REJECTED))  # programs that copy stumble over links to nothing
        for name in LINKS if storage.has_links(self.path) else ():
            if storage.pointed_at(self.file(name)) is None:
                storage.point(self.file(name), f"{contract.CURRENT}/{name}", temporary)
        if storage.pointed_at(self.file(contract.CURRENT)) != _folder(number):
            storage.point(self.file(contract.CURRENT), _folder(number), temporary)
        self._root.sweep("temporary", "plan")
        for other in self._numbers():
            if other not in (number, number - 1):
                storage.remove_folder(self.generation(other).path)


def _folder(number: int) -> str:
    return f"{contract.GENERATIONS}/{number:06d}"


def _is_copy(path: str) -> bool:
    return storage.has_links(path) and storage.exists(path) and not storage.is_link(path)


def _differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Which options differ, and how, in as many letters as a line may take.

    Example:
        >>> _differences({"stddev": False, "split": None}, {"stddev": True, "split": "test"})
        ['stddev was false, is true', 'split was not given, is "test"']
    """

    def says(value: Any) -> str:
        return "not given" if value is None else storage.to_json(value).decode().strip()[:80]

    return [
        f"{name} was {says(old.get(name))}, is {says(new.get(name))}"
        for name in {**old, **new}
        if (name in old, old.get(name)) != (name in new, new.get(name))
    ]


@contextlib.contextmanager
def growing(
    path: str,
    kind: str,
    asked: dict[str, Any],
    fingerprint: str,
    units: Sequence[Unit],
    overwrite: bool,
    beam_args: Sequence[str] = (),
    progress: Progress | None = None,
    started: float | None = None,
    call: Call | None = None,
) -> Iterator[Job]:
    """A planned job, alone with its output until the block ends, when readers see what it made.

    Args:
        path: Where to.
        kind: What the output will hold.
        asked: The options that must stay the same from run to run.
        fingerprint: Hash of inputs, model and options.
        units: The whole plan, each unit's ``task`` holding its ``split``; a fingerprint says all that the unit is
            made from, for one that is done is never done again.
        overwrite: Make everything anew, whatever was asked for before.
        beam_args, progress, started, call: See ``claimed``.

    Raises:
        PipelineError: The output belongs to another job, or another process writes to it.

    Example:
        >>> units = [Unit("part", 2, ("parts/rows.txt",), "of the unit", {"split": "all"})]
        >>> with growing("out", "embeddings", {}, "of the job", units, overwrite=False) as job:
        ...     for unit in job.pending:
        ...         with job.output.writing(unit.files[0]) as file:
        ...             _ = file.write(b"two rows")
        ...         job.output.commit(unit, rows=2, rejected=[], facts={})
        ...     job.finish({}, [], job.verify()).rows
        {'all': 2}
        >>> storage.read("out/parts/rows.txt")
        b'two rows'
    """
    started = time.monotonic() if started is None else started
    beam_options = options.beam_options(beam_args)
    grown = Generations(path)
    with Output(path).lock():
        damaged = grown.claim(kind, asked, overwrite)
        number = grown.choose(fingerprint, units, overwrite, call)
        output = grown.generation(number)
        lost = output.claim(kind, fingerprint, units, overwrite=False)
        pending, is_finished, more = output.survey(fingerprint, units)
        more += output.damaged_records(contract.COMMAND)
        damaged += [f"{_folder(number)}/{name}" for name in [*lost, *more]]
        yield Job(output, kind, fingerprint, units, pending, is_finished, damaged, started, beam_options, progress)
        if call:
            call.remember(output, kind, has_made=bool(pending))
        grown.switch(number)
