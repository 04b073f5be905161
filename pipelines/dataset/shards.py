"""The shards of a prepared dataset: which rows make one, and how a worker writes it.

By the hash of its key alone a row gets its split (where the source has none), its shard and its place in it, so that
the dataset is the same whoever writes which shard when, and a row stays where it is when others come.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa

from .. import contract, storage
from ..errors import PipelineError, Rejection
from ..formats import tfrecords
from ..formats.standardization import Standardization
from ..jobs import metrics, reporting
from ..jobs.commits import Output, Unit
from ..sources import Plan, Schema, Source
from ..sources.work_lists import read_work_list
from . import shard_summary, thumbnails
from .standardize import standardized


@dataclasses.dataclass(frozen=True)
class Shard:
    """Which rows make one shard of one split.

    Attributes:
        split: Name of the split.
        index: Number of the shard within its split, from 0.
        count: How many shards the split has.
        first: How many rows of the split lie in the shards before.
        rows: Indices into the source's plan, ``[N]``.
    """

    split: str
    index: int
    count: int
    first: int
    rows: np.ndarray


def plan_shards(plan: Plan, test_fraction: float, validation_fraction: float, rows_per_shard: int) -> list[Shard]:
    """The shards of all splits, in the order in which they are listed.

    Args:
        plan: The rows, each key once.
        test_fraction: Share of the rows for the test split, where the source has none of its own.
        validation_fraction: The same for the validation split.
        rows_per_shard: Most rows in one shard.

    Raises:
        PipelineError: A split would be empty.

    Example:
        >>> from tfvae.pipelines.sources import make_source
        >>> shards = plan_shards(make_source("digits", None).plan(), 0.1, 0.0, 1000)
        >>> [(shard.split, shard.index, len(shard.rows)) for shard in shards]
        [('train', 0, 804), ('train', 1, 803), ('test', 0, 190)]
    """
    order, draws = plan.digests.T  # independent: one orders the rows, the other draws the split
    splits = _splits(plan, draws, test_fraction, validation_fraction)
    shards = []
    for split in sorted(set(splits.tolist()), key=lambda name: ((*contract.SPLITS, name).index(name), name)):
        members = np.flatnonzero(splits == split)
        members = members[np.lexsort((draws[members], order[members]))]  # 128 bits: no two keys tie
        count = -(-len(members) // rows_per_shard)
        first = 0
        for index, rows in enumerate(np.array_split(members, count)):
            shards.append(Shard(split, index, count, first, rows))
            first += len(rows)
    return shards


def _splits(plan: Plan, draws: np.ndarray, test_fraction: float, validation_fraction: float) -> np.ndarray:
    """The split of each row, `[N]`: the source's own, and by hash what the source does not have."""
    own = plan.splits
    own = np.where(own == "", contract.TRAIN, own)
    u = draws / 2.0**64
    test = 0.0 if (own == contract.TEST).any() else test_fraction
    validation = 0.0 if (own == contract.VALIDATION).any() else validation_fraction
    drawn = np.where(u < test + validation, contract.VALIDATION, contract.TRAIN)
    drawn = np.where(u < test, contract.TEST, drawn)
    wanted = [name for name, fraction in ((contract.TEST, test), (contract.VALIDATION, validation)) if fraction > 0]
    splits = np.where(own == contract.TRAIN, drawn, own)
    for split in [contract.TRAIN, *wanted]:
        if (own == contract.TRAIN).any() and not (splits == split).any():
            rows = f"{len(own):,} rows"
            if plan.rejected:
                first = plan.rejected[0]
                rows += (
                    f" that can be taken, {len(plan.rejected):,} cannot, the first is {first.source}:{first.position}"
                )
                rows += f" ({first.reason})"
            raise PipelineError(
                f"split {split!r} would get none of the {rows}: change --test-fraction {test_fraction} or "
                f"--validation-fraction {validation_fraction}, or give more rows, each with a key of its own"
            )
    return splits


def shard_unit(source: Source, plan: Plan, shard: Shard, job_fingerprint: str) -> Unit:
    """The unit of work that writes a shard; its ``task`` holds the split and how many first rows are shown."""
    shown = thumbnails.limit(plan.schema.shape, plan.schema.dtype) - shard.first
    return Unit(
        name=f"{shard.split}-{shard.index:05d}-of-{shard.count:05d}",
        rows=len(shard.rows),
        files=(f"{source.name}-{shard.split}.tfrecord-{shard.index:05d}-of-{shard.count:05d}",),
        fingerprint=storage.fingerprint(
            [shard_summary.VERSION, job_fingerprint, plan.rows["key"].take(pa.array(shard.rows)).to_pylist()]
        ),
        task={"split": shard.split, "shown": max(0, shown)},
    )


class WriteShard(beam.DoFn):
    """Decodes the rows of one unit, writes its shard and commits it. Yields the unit's name."""

    def __init__(self, output: Output, source: Source, schema: Schema, standardize: Standardization | None = None):
        self._output, self._source, self._schema, self._standardize = output, source, schema, standardize
        self._read, self._written, self._rejected = map(metrics.counter, ("rows_read", "rows_written", "rows_rejected"))

    def process(self, unit: Unit) -> Iterator[str]:
        """Does one unit; see the class. One that is done stays."""
        if self._output.is_done(unit):
            yield unit.name
            return
        with reporting(self._output, unit):
            described: dict[str, dict[str, Any]] = {}
            rows, rejected, facts = self._write(unit, described)
            self._output.commit(unit, rows, rejected, facts, described=described)
        self._read.inc(unit.rows)
        self._written.inc(rows)
        self._rejected.inc(len(rejected))
        yield unit.name

    def _write(self, unit: Unit, described: dict[str, dict[str, Any]]) -> tuple[int, list[Rejection], dict[str, Any]]:
        work = read_work_list(self._output.file("_work", "plan", unit.name))
        tally = shard_summary.Tally(self._schema, unit.task["shown"])
        reasons: dict[int, str] = {}
        with self._output.writing(unit.files[0], described) as shard:
            for rows, batch in work.read(self._source, self._schema):
                batch = standardized(batch, self._standardize)
                tally.add(batch, rows)
                shard.write(tfrecords.framed(work.keys(rows[batch.good]), batch.x, batch.labels))
                reasons |= {int(rows[i]): reason for i, reason in batch.reasons.items()}
        return tally.rows, work.rejections(reasons), tally.facts()
