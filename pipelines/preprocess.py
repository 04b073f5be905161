"""Raw files to a prepared dataset: a TFDS directory, the same byte for byte on any runner.

The driver plans: it asks the source for the rows, hashes each key, and by that hash alone decides the split
(where the source has none), the shard and the place within it. Each shard is a unit of work whose list of
references is written to a small file; a worker reads it, decodes those rows, writes the shard and commits
it (see ``pipelines.jobs.commits``). At the end the driver holds counts and checksums against the plan and writes
the metadata that ``tfds.builder_from_directory`` reads, ``statistics.json``, ``report.html`` and the manifest.

    python -m pipelines.preprocess --source idx --input data/mnist --output prepared/mnist
"""

import dataclasses
import functools
import hashlib
import itertools
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import apache_beam as beam
import numpy as np

from pipelines import content, contract, facts, jobs, report, samples, storage
from pipelines.errors import PipelineError, Rejection
from pipelines.formats import tfrecords
from pipelines.jobs import metrics, options
from pipelines.jobs.commits import Output, Unit
from pipelines.references import read_references, write_references
from pipelines.sources import KINDS, MAX_PIXELS, Fields, Plan, Schema, Source, make_source

KIND = "prepared"
_DATASET_VERSION = "1.0.0"  # of the TFDS metadata; the format's own version is in the manifest


# The plan: from keys to shards.


@dataclasses.dataclass(frozen=True)
class _Shard:
    """Which rows, as indices into the source's plan, make one shard of one split."""

    split: str
    index: int
    count: int
    first: int  # how many rows of the split lie in the shards before
    rows: np.ndarray


def _hashes(keys: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Two independent 64-bit hashes of each key, `[N]`: one orders the rows, the other draws the split."""
    digests = b"".join(hashlib.sha256(key.encode()).digest()[:16] for key in keys)
    words = np.frombuffer(digests, ">u8").reshape(-1, 2)
    return words[:, 0], words[:, 1]


def _splits(plan: Plan, draws: np.ndarray, test_fraction: float, validation_fraction: float) -> np.ndarray:
    """The split of each row, `[N]`: the source's own, and by hash what the source does not have."""
    own = np.array([split or contract.TRAIN for split in plan.splits])
    u = draws / 2.0**64
    test = 0.0 if (own == contract.TEST).any() else test_fraction
    validation = 0.0 if (own == contract.VALIDATION).any() else validation_fraction
    drawn = np.where(u < test + validation, contract.VALIDATION, contract.TRAIN)
    drawn = np.where(u < test, contract.TEST, drawn)
    wanted = [name for name, fraction in ((contract.TEST, test), (contract.VALIDATION, validation)) if fraction > 0]
    splits = np.where(own == contract.TRAIN, drawn, own)
    for split in [contract.TRAIN, *wanted]:
        if (own == contract.TRAIN).any() and not (splits == split).any():
            raise PipelineError(
                f"split {split!r} would get none of the {len(own)} rows: change --test-fraction "
                f"{test_fraction} or --validation-fraction {validation_fraction}, or give more rows"
            )
    return splits


def _shards(splits: np.ndarray, order: np.ndarray, draws: np.ndarray, rows_per_shard: int) -> list[_Shard]:
    shards = []
    for split in sorted(set(splits.tolist()), key=lambda name: ((*contract.SPLITS, name).index(name), name)):
        members = np.flatnonzero(splits == split)
        members = members[np.lexsort((draws[members], order[members]))]  # 128 bits: no two keys tie
        count = -(-len(members) // rows_per_shard)
        first = 0
        for index, rows in enumerate(np.array_split(members, count)):
            shards.append(_Shard(split, index, count, first, rows))
            first += len(rows)
    return shards


def _without_duplicates(plan: Plan) -> Plan:
    """The first row of each key; the later ones are rejected."""
    first: dict[str, int] = {}
    twice = [row for row, key in enumerate(plan.keys) if first.setdefault(key, row) != row]
    if not twice:
        return plan
    rejected = [
        Rejection(key, plan.files[row], plan.positions[row], f"duplicate key, first at {plan.place(first[key])}")
        for row in twice
        for key in [plan.keys[row]]
    ]
    kept = sorted(set(range(len(plan.keys))) - set(twice))
    columns = {name: [getattr(plan, name)[row] for row in kept] for name in ("keys", "splits", "files", "positions")}
    return dataclasses.replace(plan, **columns, rejected=plan.rejected + rejected)  # type: ignore[arg-type]


# The units: a shard each.


def _unit(source: Source, plan: Plan, shard: _Shard, job_fingerprint: str) -> Unit:
    shown = samples.limit(plan.schema.shape, plan.schema.dtype) - shard.first
    return Unit(
        name=f"{shard.split}-{shard.index:05d}-of-{shard.count:05d}",
        rows=len(shard.rows),
        files=(f"{source.name}-{shard.split}.tfrecord-{shard.index:05d}-of-{shard.count:05d}",),
        fingerprint=storage.fingerprint([facts.VERSION, job_fingerprint, [plan.keys[row] for row in shard.rows]]),
        task={"split": shard.split, "shown": max(0, shown)},
    )


# A worker: one shard.


class WriteShard(beam.DoFn):
    """Decodes the rows of one unit, writes its shard and commits it. Yields the unit's name."""

    def __init__(self, output: Output, source: Source, schema: Schema):
        self._output, self._source, self._schema = output, source, schema
        self._read, self._written, self._rejected = map(metrics.counter, ("rows_read", "rows_written", "rows_rejected"))

    def process(self, unit: Unit) -> Iterator[str]:
        """Does one unit; see the class. One that is done stays."""
        if self._output.is_done(unit):
            yield unit.name
            return
        with jobs.reporting(self._output, unit):
            rows, rejected, told = self._write(unit)
            self._output.commit(unit, rows, rejected, told)
        self._read.inc(unit.rows)
        self._written.inc(rows)
        self._rejected.inc(len(rejected))
        yield unit.name

    def _write(self, unit: Unit) -> tuple[int, list[Rejection], dict[str, Any]]:
        references = read_references(self._output, unit)
        tally = facts.Tally(self._schema, unit.task["shown"])
        reasons = {row: reason for row, reason in enumerate(references.reasons) if reason is not None}
        with self._output.writing(unit.files[0]) as shard:
            for rows, batch in references.read(self._source, self._schema):
                tally.add(batch, rows)
                shard.write(tfrecords.framed([references.keys[row] for row in rows[batch.good]], batch.x, batch.labels))
                reasons |= {int(rows[i]): reason for i, reason in batch.reasons.items()}
        rejected = [references.rejection(row, reason) for row, reason in sorted(reasons.items())]
        return tally.rows, rejected, tally.facts()


# The end: metadata, statistics, manifest.


def _write_tfds_metadata(
    output: Output, name: str, schema: Schema, units: Sequence[Unit], commits: Sequence[dict[str, Any]]
) -> list[str]:
    """Writes what ``tfds.builder_from_directory`` reads and returns the names of the files."""
    import tensorflow_datasets as tfds

    feature = tfds.features
    x = feature.Tensor(shape=schema.shape, dtype=np.dtype(schema.dtype), encoding=feature.Encoding.BYTES)
    features: dict[str, Any] = {contract.KEY: feature.Text(), contract.X: x}
    if schema.labels:
        features[contract.LABEL] = feature.ClassLabel(names=list(schema.labels))
    lengths: dict[str, list[int]] = {}
    sizes: dict[str, int] = {}
    for unit, commit in zip(units, commits, strict=True):
        lengths.setdefault(unit.task["split"], []).append(commit["rows"])
        sizes[unit.task["split"]] = sizes.get(unit.task["split"], 0) + commit["files"][0]["bytes"]
    template = tfds.core.ShardedFileTemplate(
        data_dir=output.path,
        template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        dataset_name=name,
        filetype_suffix="tfrecord",
    )
    tfds.folder_dataset.write_metadata(
        data_dir=output.path,
        features=feature.FeaturesDict(features),
        split_infos=[
            tfds.core.SplitInfo(split, lengths[split], sizes[split], filename_template=template) for split in lengths
        ],
        version=_DATASET_VERSION,
        filename_template=template,
        check_data=False,  # counts and checksums are verified already, and it would load TensorFlow
    )
    return [contract.DATASET_INFO, contract.FEATURES, *([f"{contract.LABEL}.labels.txt"] if schema.labels else [])]


# Together.


def run(
    source: str,
    input: str | None,
    output: str,
    *,
    test_fraction: float = 0.1,
    validation_fraction: float = 0.0,
    rows_per_shard: int = 8192,
    max_pixels: int = MAX_PIXELS,
    key: str | None = None,
    column: str | None = None,
    label: str | None = None,
    shape: Sequence[int] | None = None,
    dtype: str | None = None,
    deduplicate: bool = False,
    overwrite: bool = False,
    beam_args: Sequence[str] = (),
    progress: jobs.Progress | None = None,
) -> jobs.Summary:
    """Prepares a dataset, or what is missing of it.

    Args:
        source: Kind of the input: a name in ``pipelines.sources.SOURCES``, or ``tfds:NAME``.
        input: File, folder or pattern; None for a source that needs none.
        output: Folder to make. A complete one for the same input and options is left as it is.
        test_fraction: Share of the rows for the test split, where the source has none of its own.
        validation_fraction: Share of the rows for a validation split, where the source has none of its own.
        rows_per_shard: Most rows in one shard, which is also the unit of work.
        max_pixels: Images with more pixels are rejected before they are decoded.
        key, column, label: Of sources with named fields, those with the key, the observation and the class.
        shape, dtype: Of an observation that is stored as raw bytes or as a list.
        deduplicate: Of rows with equal observations keep the first in the order of the source, whatever its key and its
            split. Every row is read twice for it; see ``pipelines.content``.
        overwrite: Replace what another job, or this one, wrote to ``output``.
        beam_args: Beam's own command-line options.
        progress: Called with a ``pipelines.jobs.progress.State`` while the job runs.

    Raises:
        PipelineError: An input is broken as a whole, an option makes no sense, or the output is not ours.

    Example:
        >>> run("digits", None, "prepared/digits").rows
        {'train': 1607, 'test': 190}
    """
    started = time.monotonic()
    _check_options(test_fraction, validation_fraction, rows_per_shard, max_pixels)
    fields = Fields(key, column, label, None if shape is None else tuple(shape), dtype)
    reader = make_source(source, storage.absolute(input) if input else None, max_pixels, fields)
    plan = _without_duplicates(reader.plan())
    listing = [list(entry) for entry in sorted(plan.inputs)]
    settings = {
        "source": source,
        "test_fraction": test_fraction,
        "validation_fraction": validation_fraction,
        "rows_per_shard": rows_per_shard,
        "max_pixels": max_pixels,
        **fields.given(),
        **({"deduplicate": True} if deduplicate else {}),
    }
    bad = [dataclasses.asdict(row) for row in plan.rejected]
    fingerprint = storage.fingerprint([KIND, listing, settings, dataclasses.asdict(plan.schema), bad])
    order, draws = _hashes(plan.keys)
    shards = _shards(_splits(plan, draws, test_fraction, validation_fraction), order, draws, rows_per_shard)
    units = [_unit(reader, plan, shard, fingerprint) for shard in shards]
    target = Output(storage.absolute(output))

    def prepare(do: jobs.Do) -> None:
        reasons: dict[int, str] = {}
        if deduplicate:
            reasons = content.find_duplicates(target, reader, plan, rows_per_shard, fingerprint, do)
        for unit, shard in zip(units, shards, strict=True):
            write_references(target, unit, plan, shard.rows, reasons)

    job = jobs.Job(
        kind=KIND,
        output=target,
        fingerprint=fingerprint,
        units=units,
        steps=beam.ParDo(WriteShard(target, reader, plan.schema)),
        prepare=prepare,
        conclude=functools.partial(_conclude, target, reader.name, plan, units, settings),
        rejected=plan.rejected,
        started=started,
    )
    return jobs.execute(job, overwrite, beam_args, progress)


def _check_options(test_fraction: float, validation_fraction: float, rows_per_shard: int, max_pixels: int) -> None:
    for name, fraction in (("test_fraction", test_fraction), ("validation_fraction", validation_fraction)):
        if not 0 <= fraction < 1:
            raise PipelineError(f"{name} is {fraction}, expected a share from 0 to below 1")
    if test_fraction + validation_fraction >= 1:
        raise PipelineError(
            f"test_fraction {test_fraction} + validation_fraction {validation_fraction} leave no row to train"
        )
    for name, count in (("rows_per_shard", rows_per_shard), ("max_pixels", max_pixels)):
        if count < 1:
            raise PipelineError(f"{name} is {count}, expected 1 or more")


def _conclude(
    output: Output,
    name: str,
    plan: Plan,
    units: Sequence[Unit],
    settings: dict[str, Any],
    commits: list[dict[str, Any]],
) -> tuple[dict[str, Any], list[str]]:
    """Writes what lies beside the shards; returns the manifest's own entries and the names of those files."""
    files = _write_tfds_metadata(output, name, plan.schema, units, commits)
    statistics = facts.statistics(plan.schema, units, commits)
    pictures = facts.pictures(plan.schema, units, commits)
    output.write_json(contract.STATISTICS, statistics)
    rejections = itertools.chain(plan.rejected, itertools.chain.from_iterable(map(output.rejections, units)))
    with output.writing(contract.REPORT) as file:
        file.write(report.render(name, statistics, pictures, rejections))
    with output.writing(contract.INPUTS) as file:
        file.writelines(storage.to_json(entry._asdict()) for entry in sorted(plan.inputs))
    inputs = {
        "files": len(plan.inputs),
        "bytes": sum(entry.bytes for entry in plan.inputs),
        "listing": contract.INPUTS,
    }
    return {"options": settings, "inputs": inputs}, [*files, contract.STATISTICS, contract.REPORT, contract.INPUTS]


def parser() -> options.Parser:
    """The command line's own options."""
    own = options.Parser(
        prog="python -m pipelines.preprocess",
        description="Prepare a dataset: raw files to a TFDS directory.",
        epilog="example: python -m pipelines.preprocess --source idx --input data/mnist "
        "--output prepared/mnist. " + options.BEAM_HELP,
    )
    own.add_argument("--source", required=True, help=KINDS)
    own.add_argument("--input", help="file, folder or pattern")
    own.add_argument("--output", required=True, help="folder to make")
    own.add_argument("--test-fraction", type=float, default=0.1, help="test rows, where the source has no such split")
    own.add_argument("--validation-fraction", type=float, default=0.0, help="the same for validation")
    own.add_argument("--rows-per-shard", type=int, default=8192, help="most rows in a shard")
    own.add_argument("--max-pixels", type=int, default=MAX_PIXELS, help="larger images are rejected undecoded")
    own.add_argument("--key", help="column or feature with the key of a row; without it, key where there is one")
    own.add_argument("--column", help="the one with the observation; without it, x")
    own.add_argument("--label", help="the one with the class; without it, label where there is one")
    own.add_argument("--shape", type=int, nargs="+", help="of an observation: what raw bytes and lists hold")
    own.add_argument("--dtype", choices=("uint8", "float32"), help="of raw bytes; without it, uint8")
    own.add_argument("--deduplicate", action="store_true", help="keep one of equal observations: reads the data twice")
    own.add_argument("--overwrite", action="store_true", help="replace what an earlier job wrote")
    return own


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code: 0 complete, 3 complete with rejected rows, 1 an error.

    Example:
        >>> main(["--source", "digits", "--output", "prepared/digits"])  # doctest: +ELLIPSIS
        rows in train    1,607
        rows in test     190
        rows rejected    0
        units done now   2 of 2
        rows read now    1,797 (1,797 written, 0 rejected)
        seconds          ...
        manifest         .../prepared/digits/manifest.json
        0
    """
    return jobs.main(parser(), run, "prepare", sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    # Under its own name, so that workers find the classes where they are and not in __main__.
    from pipelines.preprocess import main as _main

    sys.exit(_main())
