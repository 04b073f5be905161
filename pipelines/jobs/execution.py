"""Running a planned job: the same steps for every pipeline.

claim the output, run the units that are pending, hold what was written against the plan, write the
manifest. While Beam runs, a thread counts commit records, which is progress that means the same on every
runner.
"""

import contextlib
import dataclasses
import importlib.metadata
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import apache_beam as beam

from pipelines.errors import PipelineError, Rejection
from pipelines.jobs import metrics, options
from pipelines.jobs.commits import MANIFEST, Output, Unit
from pipelines.jobs.progress import Progress, State

EXIT_COMPLETE, EXIT_ERROR, EXIT_REJECTED = 0, 1, 3
_POLL_SECONDS = 0.5

Do = Callable[[Sequence[Unit], beam.PTransform], list[dict[str, Any]]]


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a job did.

    Attributes:
        output: The output directory.
        rows: Good rows in the output by split.
        rejected: Rows in ``rejected/``.
        units: Units of work in the plan.
        units_done: How many of them this run did; the others were done before.
        rows_written: Good rows of the units that this run did.
        rows_rejected: Bad rows of those units; ``rejected`` counts the plan's and earlier runs' too.
        seconds: Wall time of this run.
        complete: Whether the output is whole; always true, since a job that is not raises.
        manifest: Path of ``manifest.json``.
        latency: Of the model's calls in this run, where there is a model and the runner tells.
    """

    output: str
    rows: dict[str, int]
    rejected: int
    units: int
    units_done: int
    rows_written: int
    rows_rejected: int
    seconds: float
    complete: bool
    manifest: str
    latency: metrics.Latency | None = None

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

    def table(self) -> str:
        """The summary for a terminal, a line an entry."""
        lines = [(f"rows in {split}", f"{count:,}") for split, count in self.rows.items()]
        lines += [
            (
                "rows rejected",
                f"{self.rejected:,}" + (f", see {self.output}/rejected" if self.rejected else ""),
            ),
            ("units done now", f"{self.units_done:,} of {self.units:,}"),
            (
                "rows read now",
                f"{self.rows_read:,} ({self.rows_written:,} written, {self.rows_rejected:,} rejected)",
            ),
            ("seconds", f"{self.seconds:.1f} ({self.rows_per_second:,.0f} rows/s)"),
            *([("model calls", str(self.latency))] if self.latency else []),
            ("manifest", self.manifest),
        ]
        return "\n".join(f"{name:<16} {value}" for name, value in lines)


@dataclasses.dataclass(frozen=True)
class Job:
    """A planned job.

    Attributes:
        kind: Of the output, ``"prepared"`` or ``"embeddings"``.
        output: Where to.
        fingerprint: Of inputs and options.
        units: The whole plan, each unit's ``task`` holding its ``split``.
        steps: A Beam transform from units to anything: it does and commits each unit.
        conclude: From the commit records to the manifest's own entries and the further files it wrote.
        prepare: Makes ready what the units need, when there are units to do. It is given ``do(units, steps)``, which
            does those units before, where they are not done yet, and returns their commit records.
        settle: After the units, mends what only the whole shows.
        rejected: Rows that the plan already rejected; they belong to no unit.
        started: When planning began, by the monotonic clock.
    """

    kind: str
    output: Output
    fingerprint: str
    units: Sequence[Unit]
    steps: beam.PTransform
    conclude: Callable[[list[dict[str, Any]]], tuple[dict[str, Any], list[str]]]
    prepare: Callable[[Do], None] = lambda do: None
    settle: Callable[[], None] = lambda: None
    rejected: Sequence[Rejection] = ()
    started: float = dataclasses.field(default_factory=time.monotonic)


def version() -> str:
    """The version of the installed package that wrote an artifact."""
    try:
        return importlib.metadata.version("tfvae")
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def execute(job: Job, overwrite: bool, beam_args: Sequence[str], progress: Progress | None) -> Summary:
    """Does what is missing of a job and completes its output.

    Raises:
        PipelineError: The output belongs to another job, a unit failed, or what was written is not what was
        planned.
    """
    pipeline_options = options.beam_options(beam_args)

    def do(units: Sequence[Unit], steps: beam.PTransform) -> list[dict[str, Any]]:
        if left := job.output.pending(units):
            with _watching(job.output, units, progress):
                _run(job.output, left, steps, pipeline_options)
        return job.output.verify(units)

    with job.output.lock():
        job.output.claim(job.kind, job.fingerprint, job.units, overwrite)
        if job.output.finished(job.fingerprint, job.units) is not None:
            records = [record for unit in job.units if (record := job.output.record(unit.name)) is not None]
            return _summary(job, records, [])
        pending, latency = job.output.pending(job.units), None
        if pending:
            job.prepare(do)
            with _watching(job.output, job.units, progress):
                latency = metrics.latency(_run(job.output, pending, job.steps, pipeline_options))
        job.settle()
        records = job.output.verify(job.units)
        _refuse_nothing(job, records)
        manifest, files = job.conclude(records)
        files += job.output.reject_planned(job.rejected)
        job.output.finish(_manifest(job, records) | manifest, files, records)
        return _summary(job, records, pending, latency)


def _run(output: Output, pending: Sequence[Unit], steps: beam.PTransform, pipeline_options: Any) -> Any:
    """Does the pending units and returns Beam's result."""
    output.sweep("failures")
    pipeline = beam.Pipeline(options=pipeline_options)
    _ = pipeline | "Plan" >> beam.Create(list(pending)) | "Spread" >> beam.Reshuffle() | steps
    try:
        result = pipeline.run()
        state = result.wait_until_finish()
    except Exception as error:
        raise PipelineError(_reason(output, error)) from error
    if output.failures():
        raise PipelineError(_reason(output, RuntimeError(f"the runner ended in state {state}")))
    return result


def _reason(output: Output, error: Exception) -> str:
    """What the failed unit said of itself, else the last line of the runner's report, which knows no remedy."""
    if said := output.failures():
        return said[0]
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return f"{lines[-1]}: run the same command again to do what is missing"


def _refuse_nothing(job: Job, records: Sequence[dict[str, Any]]) -> None:
    """A split without a single good row is not a result, and TFDS cannot read one."""
    for split, rows in _rows(job, records).items():
        if rows == 0:
            raise PipelineError(f"no row of split {split!r} is good: the reasons are in {job.output.file('rejected')}")


def _rows(job: Job, records: Sequence[dict[str, Any]]) -> dict[str, int]:
    rows: dict[str, int] = {}
    for unit, record in zip(job.units, records, strict=True):
        rows[unit.task["split"]] = rows.get(unit.task["split"], 0) + record["rows"]
    return rows


def _manifest(job: Job, records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        "kind": job.kind,
        "tfvae_version": version(),
        "fingerprint": job.fingerprint,
        "rows": _rows(job, records),
        "rejected": sum(record["rejected"] for record in records) + len(job.rejected),
        "units": len(job.units),
    }


def _summary(
    job: Job, records: Sequence[dict[str, Any]], done: Sequence[Unit], latency: metrics.Latency | None = None
) -> Summary:
    manifest = job.output.manifest() or {}
    names = {unit.name for unit in done}
    mine = [record for record in records if record["unit"] in names]
    return Summary(
        output=job.output.path,
        rows=_rows(job, records),
        rejected=manifest["rejected"],
        units=len(job.units),
        units_done=len(done),
        rows_written=sum(record["rows"] for record in mine),
        rows_rejected=sum(record["rejected"] for record in mine),
        seconds=time.monotonic() - job.started,
        complete=True,
        manifest=job.output.file(MANIFEST),
        latency=latency,
    )


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
