"""Running a planned job: the same steps for every pipeline.

Claim the output, run the units that are pending, hold what was written against the plan, write the
manifest. While Beam runs, a thread counts commit records, which is progress that means the same on every
runner.

    with claimed(output, KIND, fingerprint, units, overwrite, beam_args, progress) as job:
        if job.is_finished:
            return job.summary()
        if job.pending:
            job.run_units(units, steps)
        return job.finish(entries, files, job.verify())
"""

import contextlib
import dataclasses
import importlib.metadata
import os
import re
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions

from .. import checksums, contract
from ..errors import HandedOver, PipelineError, Rejection, in_a_line
from . import beam_habits, metrics, options
from .calls import Call
from .commits import MANIFEST, REJECTED, Output, Unit
from .progress import Progress, State

EXIT_COMPLETE, EXIT_ERROR, EXIT_REJECTED = 0, 1, 3
_NAMES = 10  # that a line of the summary names
_POLL_SECONDS = 0.5
_ERRNO = re.compile(r"(?:\w+: )+\[Errno (\d+)\] (.*?)(?:: '(.*)')?")  # as Python writes an OSError
_WHERE = re.compile(r" \[while running '.*'\]$")  # as Beam goes on
_UNVERIFIED = "the manifest is of an earlier release, without a checksum of its own"


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a job did whose output is whole; one that is not raises.

    Attributes:
        output: The output directory.
        rows: Good rows in the output by split.
        rejected: Rows in ``rejected/``.
        units: Units of work in the plan.
        units_done: How many of them this run did; the others were done before.
        rows_written: Good rows of the units that this run did.
        rows_rejected: Bad rows of those units; ``rejected`` counts the plan's and earlier runs' too.
        seconds: Wall time of this run.
        manifest: Path of ``manifest.json``.
        latency: How long the model's calls took; None without a model, or where the runner keeps no metrics.
        hidden: Files of the input that were passed over because their names say that they are no data.
        unread: What else the input holds that made no part of a row: files of other kinds, columns, arrays.
        new, changed: Files of the input that the output was not made from before, or of which it knew other bytes; of
            an output that was made before.
        gone: Files of the input that the output was made from before, and that are not there now.
        damaged: Files of an earlier run that were not as it had written them, and were made again.
        hint: What the person might have meant otherwise.
        is_verified: Whether the manifest has a checksum of its own; one of an earlier release has none.
    """

    output: str
    rows: dict[str, int]
    rejected: int
    units: int
    units_done: int
    rows_written: int
    rows_rejected: int
    seconds: float
    manifest: str
    latency: metrics.Latency | None = None
    hidden: int = 0
    unread: Sequence[str] = ()
    new: int = 0
    changed: int = 0
    gone: Sequence[str] = ()
    damaged: Sequence[str] = ()
    hint: str = ""
    is_verified: bool = True

    @property
    def rows_read(self) -> int:
        """Rows read by this run, good and rejected."""
        return self.rows_written + self.rows_rejected

    @property
    def rows_per_second(self) -> float:
        """Rows read by this run in a second of its wall time, planning and verification included."""
        return self.rows_read / max(self.seconds, 1e-9)

    @property
    def exit_code(self) -> int:
        """0 when complete, 3 when complete with rejected rows."""
        return EXIT_REJECTED if self.rejected else EXIT_COMPLETE

    @property
    def _earlier(self) -> str:
        """How many rows were rejected before this run read any: when it was planned, or by a run before it."""
        earlier = self.rejected - self.rows_rejected
        return f" ({earlier:,} of them when planned, or earlier)" if earlier else ""

    def table(self) -> str:
        """The summary for a terminal, a line an entry."""
        reasons = f", see {os.path.dirname(self.manifest)}/{REJECTED}" if self.rejected else ""
        lines = [(f"rows in {split}", f"{count:,}") for split, count in self.rows.items()]
        lines += [
            ("rows rejected", f"{self.rejected:,}{reasons}{self._earlier}"),
            *([("hidden files", f"{self.hidden:,} passed over")] if self.hidden else []),
            *([("not read", _named(self.unread))] if self.unread else []),
            *([("input files", f"{self.new:,} new, {self.changed:,} changed")] if self.new or self.changed else []),
            *([("gone", f"{_named(self.gone)}: the output has no rows of them any more")] if self.gone else []),
            *([("made again", f"{', '.join(self.damaged)}: damaged since they were written")] if self.damaged else []),
            *([] if self.is_verified else [("not verified", _UNVERIFIED)]),
            ("units done now", f"{self.units_done:,} of {self.units:,}"),
            (
                "rows read now",
                f"{self.rows_read:,} ({self.rows_written:,} written, {self.rows_rejected:,} rejected)",
            ),
            ("seconds", f"{self.seconds:.1f} ({self.rows_per_second:,.0f} rows/s)"),
            *([("model calls", str(self.latency))] if self.latency else []),
            *([("hint", self.hint)] if self.hint else []),
            ("manifest", self.manifest),
        ]
        return "\n".join(f"{name:<16} {value}" for name, value in lines)


def _named(names: Sequence[str]) -> str:
    """The first of some names, which are the data's own, and how many there are more."""
    shown = [name if name.isprintable() else ascii(name) for name in names[:_NAMES]]
    more = [f"{len(names) - _NAMES:,} more"] if len(names) > _NAMES else []
    return ", ".join([*shown, *more])


def version() -> str:
    """The version of the installed package that wrote an artifact."""
    try:
        return importlib.metadata.version("tfvae")
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


@dataclasses.dataclass
class Job:
    """A job that holds its output; see ``claimed``.

    Attributes:
        output: The directory, which is locked.
        kind: What the output holds, ``"prepared"`` or ``"embeddings"``.
        fingerprint: The job's own, from its inputs and options.
        units: The whole plan, each unit's ``task`` holding its ``split``.
        pending: The units that were still to do when the output was claimed.
        is_finished: Whether an earlier run completed this very job, and every file is as it was written.
        damaged: The files that are not, of whatever earlier runs did.
        started: When planning began, by the monotonic clock.
        latency: How long the model's calls took, where there is a model and the runner tells.
    """

    output: Output
    kind: str
    fingerprint: str
    units: Sequence[Unit]
    pending: Sequence[Unit]
    is_finished: bool
    damaged: Sequence[str]
    started: float
    beam_options: PipelineOptions
    progress: Progress | None
    latency: metrics.Latency | None = None
    done: set[str] = dataclasses.field(default_factory=set)  # names of units that this run did

    def run_units(self, units: Sequence[Unit], steps: beam.PTransform) -> None:
        """Does those of the units that are not done yet.

        Args:
            units: The job's own, or others that must be done before.
            steps: A Beam transform from units to anything: it does and commits each unit.

        Raises:
            PipelineError: A unit failed.
            HandedOver: The job was only described, for Dataflow to do it.
        """
        if left := self.output.pending(units):
            with _watching(self.output, units, self.progress):
                self.latency = metrics.latency(_run(self.output, left, steps, self.beam_options))
            self.done |= {unit.name for unit in left}

    def replan(self, fingerprint: str, units: Sequence[Unit]) -> None:
        """Goes on with the same units by the fingerprints that they turned out to have."""
        self.fingerprint, self.units = fingerprint, units
        self.output.rename_job(self.kind, fingerprint, units)

    def verify(self) -> list[dict[str, Any]]:
        """The commit records, in the order of the units, of an output that holds what was planned.

        Raises:
            PipelineError: Something is missing or differs from its record, or a split has no good row.
        """
        records = self.output.verify(self.units)
        for split, rows in self._rows(records).items():  # is no result, and TFDS cannot read it
            if rows == 0:
                rejected = self.output.file(REJECTED)
                raise PipelineError(f"no row of split {split!r} is good: the reasons are in {rejected}")
        return records

    def finish(
        self,
        entries: dict[str, Any],
        files: Sequence[str],
        records: Sequence[dict[str, Any]],
        rejected: Sequence[Rejection] = (),
    ) -> Summary:
        """Writes the manifest, with which the output is complete.

        Args:
            entries: What this kind of job says in its manifest, beside what every job says.
            files: Names of the files that lie beside those of the units.
            records: What ``verify`` returned.
            rejected: Rows that the plan already rejected; they belong to no unit.
        """
        manifest = {
            "kind": self.kind,
            "tfvae_version": version(),
            "fingerprint": self.fingerprint,
            "rows": self._rows(records),
            "rejected": sum(record["rejected"] for record in records) + len(rejected),
            "units": len(self.units),
        }
        files = [*files, *self.output.reject_planned(rejected)]
        self.output.finish(manifest | entries, files, records)
        return self.summary(records)

    def summary(self, records: Sequence[dict[str, Any]] | None = None) -> Summary:
        """What this run did of a job that is complete; ``records`` are what ``verify`` returned, where it was asked."""
        if records is None:
            records = [record for record in self.output.records(self.units) if record is not None]
        manifest = self.output.manifest() or {}
        names = {unit.name for unit in self.units} & (self.done | {unit.name for unit in self.pending})
        mine = [record for record in records if record["unit"] in names]
        return Summary(
            output=self.output.path,
            rows=self._rows(records),
            rejected=manifest["rejected"],
            units=len(self.units),
            units_done=len(names),
            rows_written=sum(record["rows"] for record in mine),
            rows_rejected=sum(record["rejected"] for record in mine),
            seconds=time.monotonic() - self.started,
            manifest=self.output.file(MANIFEST),
            latency=self.latency,
            damaged=self.damaged,
            is_verified=checksums.is_sealed(manifest),
        )

    def _rows(self, records: Sequence[dict[str, Any]]) -> dict[str, int]:
        """Good rows by split."""
        rows: dict[str, int] = {}
        for unit, record in zip(self.units, records, strict=True):
            rows[unit.task["split"]] = rows.get(unit.task["split"], 0) + record["rows"]
        return rows


@contextlib.contextmanager
def claimed(
    output: Output,
    kind: str,
    fingerprint: str,
    units: Sequence[Unit],
    overwrite: bool,
    beam_args: Sequence[str] = (),
    progress: Progress | None = None,
    started: float | None = None,
    call: Call | None = None,
) -> Iterator[Job]:
    """A planned job, alone with its output directory until the block ends.

    Args:
        output: Where to.
        kind: What the output will hold, ``"prepared"`` or ``"embeddings"``.
        fingerprint: Hash of inputs and options.
        units: The whole plan, each unit's ``task`` holding its ``split``.
        overwrite: Remove what earlier jobs wrote to the output.
        beam_args: Beam's own command-line options.
        progress: Called with a ``State`` while units are done.
        started: When planning began, by the monotonic clock; by default now.
        call: What was asked for, which is kept for when a file is damaged later.

    Raises:
        PipelineError: The output belongs to another job, or another process writes to it.

    Example:
        >>> class Write(beam.DoFn):
        ...     def process(self, unit):
        ...         with Output("out").writing(unit.files[0]) as file:
        ...             file.write(b"two rows")
        ...         Output("out").commit(unit, rows=2, rejected=[], facts={})
        >>> units = [Unit("part", 2, ("part.txt",), "of the unit", {"split": "all"})]
        >>> with claimed(Output("out"), "prepared", "of the job", units, overwrite=False) as job:
        ...     job.run_units(units, beam.ParDo(Write()))
        ...     job.finish({}, [], job.verify()).rows
        {'all': 2}
    """
    started = time.monotonic() if started is None else started
    beam_options = options.beam_options(beam_args)
    with output.lock():
        if call:
            call.refuse_other(output.is_known(fingerprint, units), output.path)
        damaged = output.claim(kind, fingerprint, units, overwrite)
        pending, is_finished, lost = output.survey(fingerprint, units)
        damaged += [*lost, *output.damaged_records(contract.COMMAND)]
        yield Job(output, kind, fingerprint, units, pending, is_finished, damaged, started, beam_options, progress)
        if call:
            call.remember(output, kind, has_made=bool(pending))


def _run(output: Output, pending: Sequence[Unit], steps: beam.PTransform, pipeline_options: Any) -> Any:
    """Does the pending units and returns Beam's result."""
    output.sweep("failures")
    pipeline = beam.Pipeline(options=pipeline_options)
    with beam_habits.steps_named_as_they_are():
        _ = pipeline | "Plan" >> beam.Create(list(pending)) | "Spread" >> beam.Reshuffle() | steps
    try:
        with beam_habits.failures_told_once(), beam_habits.workers_that_end():
            result = pipeline.run()
            state = result.wait_until_finish()
    except Exception as error:
        raise PipelineError(_reason(output, error)) from error
    if output.failures():
        raise PipelineError(_reason(output, RuntimeError(f"the runner ended in state {state}")))
    if not getattr(result, "has_job", True):  # as Dataflow's runner says of one that it only described
        template = pipeline_options.view_as(GoogleCloudOptions).template_location
        raise HandedOver(
            f"the job lies in {template} and is not done yet: once Dataflow has done it, give the same command again "
            "without --template_location, which checks what was written against the plan and completes the output"
        )
    return result


def _reason(output: Output, error: Exception) -> str:
    """What the failed unit said of itself, else the last line of the runner's report, which knows no remedy."""
    if said := output.failures():
        return said[0]
    lines = [line for line in str(error).splitlines() if any(map(str.isalnum, line))] or [type(error).__name__]
    line = _WHERE.sub("", lines[-1].strip())
    if of_the_system := _ERRNO.fullmatch(line):
        return in_a_line(OSError(int(of_the_system[1]), of_the_system[2], of_the_system[3]))
    return f"{line}: run the same command again to do what is missing"


@contextlib.contextmanager
def _watching(output: Output, units: Sequence[Unit], progress: Progress | None) -> Iterator[None]:
    """Calls ``progress(state)`` at once, while the block runs, and once at its end."""
    if progress is None:
        yield
        return
    names, planned = {unit.name for unit in units}, sum(unit.rows for unit in units)
    seen: dict[str, tuple[int, int]] = {}
    ended = threading.Event()

    def report() -> None:
        for name in (output.committed() & names) - seen.keys():
            if record := output.record(name):
                seen[name] = record["rows"] + record["rejected"], record["rejected"]
        rows, rejected = (sum(counts) for counts in zip((0, 0), *seen.values(), strict=True))
        progress(State(len(seen), len(units), rows, planned, rejected))

    def watch() -> None:
        while not ended.wait(_POLL_SECONDS):
            report()

    report()  # what earlier runs did is no part of this run's rate
    watcher = threading.Thread(target=watch, name="pipelines-progress", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
        report()


@contextlib.contextmanager
def reporting(output: Output, unit: Unit) -> Iterator[None]:
    """Leaves the reason where the driver finds it when the block, a worker's, fails."""
    try:
        yield
    except Exception as error:
        output.fail(unit, error)
        raise
