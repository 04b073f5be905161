"""Rows of equal content under different keys: found by a hash of each observation.

Units of work of their own read the rows, in runs of the plan, and record 32 bytes for each: the SHA-256 of dtype,
shape and bytes of ``x``, for an image those of its decoded pixels. The driver then knows, before a shard is written,
which row of equal ones is the first of the plan; the others are rejected by the unit that would have written them. So
the result follows from the plan and the rows alone, whatever runner did what when; and the units are committed like all
others (see ``pipelines.jobs.commits``), so that a killed job does not hash again what it has hashed.

It costs a second pass over the data, each row being read and decoded twice, and 32 bytes a row on the disk and on the
driver. No observation crosses the runner.
"""

import hashlib
from collections.abc import Iterator

import apache_beam as beam
import numpy as np
import pyarrow as pa

from .. import jobs, storage
from ..formats.equals import later_of_equals
from ..jobs.commits import Output, Unit
from ..sources import Batch, Plan, Schema, Source
from ..sources.work_lists import read_work_list, write_work_list

FOLDER = "content"  # below _work
_BYTES = 32  # of a hash; a row that cannot be read has zeros
_LAYOUT = np.dtype((np.uint64, 4))


def find_duplicates(job: jobs.Job, source: Source, plan: Plan, rows_per_unit: int) -> dict[int, str]:
    """Which rows of a plan have the content of an earlier one, and what to say of them, by their number.

    Args:
        job: The job that will write the rows.
        source: What reads them.
        plan: Where they lie.
        rows_per_unit: Most rows that are hashed by one unit.

    Raises:
        PipelineError: A unit failed.
    """
    count = -(-len(plan) // rows_per_unit)
    runs = np.array_split(np.arange(len(plan)), count)
    units = [_unit(plan, run, index, count, job.fingerprint) for index, run in enumerate(runs)]
    for unit, run in zip(units, runs, strict=True):
        with job.output.writing(f"_work/plan/{unit.name}") as file:
            write_work_list(file, plan, run, {})
    job.run_units(units, beam.ParDo(HashRows(job.output, source, plan.schema)))
    job.output.verify(units)
    raw = b"".join(storage.read(job.output.file(*unit.files[0].split("/"))) for unit in units)
    hashes = np.frombuffer(raw, _LAYOUT)
    good = np.flatnonzero(hashes.any(axis=1))
    pairs = zip(*later_of_equals(hashes[good]), strict=True)
    return {int(good[row]): f"duplicate content, first at {plan.place(int(good[first]))}" for row, first in pairs}


def _unit(plan: Plan, run: np.ndarray, index: int, count: int, job_fingerprint: str) -> Unit:
    name = f"content-hashes-{index:05d}-of-{count:05d}"
    fingerprint = storage.fingerprint([job_fingerprint, plan.rows["key"].take(pa.array(run)).to_pylist()])
    return Unit(name, len(run), (f"_work/{FOLDER}/{name}",), fingerprint)


class HashRows(beam.DoFn):
    """Hashes the rows of one unit and commits it. Yields the unit's name."""

    def __init__(self, output: Output, source: Source, schema: Schema):
        self._output, self._source, self._schema = output, source, schema

    def process(self, unit: Unit) -> Iterator[str]:
        """Does one unit; see the class. One that is done stays."""
        if self._output.is_done(unit):
            yield unit.name
            return
        with jobs.reporting(self._output, unit):
            with self._output.writing(unit.files[0]) as file:
                work = read_work_list(self._output.file("_work", "plan", unit.name))
                for rows, batch in work.read(self._source, self._schema):
                    file.write(content_hashes(batch, len(rows)))
            self._output.commit(unit, unit.rows, [], {})
        yield unit.name


def content_hashes(batch: Batch, rows: int) -> bytes:
    """The hashes of so many rows that were read together, 32 bytes each; zeros for the bad ones.

    Example:
        >>> batch = Batch(np.array([0, 2]), np.uint8([[1, 2], [1, 2]]), None, {1: "bad"})
        >>> later_of_equals(np.frombuffer(content_hashes(batch, 3), (np.uint64, 4)))
        (array([2]), array([0]))
    """
    hashes = np.zeros([rows, _BYTES], np.uint8)
    layout = f"{batch.x.dtype.name} {list(batch.x.shape[1:])} ".encode()
    for row, x in zip(batch.good, np.ascontiguousarray(batch.x), strict=True):
        hashes[row] = np.frombuffer(hashlib.sha256(layout + x.tobytes()).digest(), np.uint8)
    return hashes.tobytes()
