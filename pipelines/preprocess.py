"""Raw files to a prepared dataset: a TFDS directory, the same byte for byte on any runner.

The driver plans: it asks the source for the rows, hashes each key, and by that hash alone decides the split
(where the source has none), the shard and the place within it. Each shard is a unit of work whose list of
references is written to a small file; a worker reads it, decodes those rows, writes the shard and commits
it (see ``pipelines.jobs.commits``). At the end the driver holds counts and checksums against the plan and writes
the metadata that ``tfds.builder_from_directory`` reads, ``statistics.json``, ``report.html`` and the manifest.

    python -m pipelines.preprocess --source idx --input data/mnist --output prepared/mnist
"""

if __name__ == "__main__":
    # Before anything heavy, so that --help answers at once; and the module is then imported under its own name, so that
    # workers find the classes where they are and not in __main__.
    import sys

    from . import command_line

    sys.exit(command_line.main("prepare", package=__package__))

import dataclasses
import itertools
import re
import time
from collections.abc import Sequence
from typing import Any, Literal

from . import command_line, contract, extras, storage

with extras.needed("pipelines"):
    import apache_beam as beam
    import pyarrow.compute as pc

from . import jobs
from .dataset import equal_rows, report, shard_summary
from .dataset.shards import WriteShard, plan_shards, shard_unit
from .dataset.standardize import training_units
from .dataset.tfds_metadata import write_tfds_metadata
from .errors import PipelineError, number, require_names
from .formats.files import refuse_own_output
from .formats.resizing import parse_size
from .jobs.commits import Output, Unit
from .sources import MAX_PIXELS, Fields, Plan, make_source
from .sources.work_lists import write_work_list

KIND = "prepared"


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
    dtype: Literal["uint8", "float32"] | None = None,
    no_header: bool = False,
    drop: Sequence[str] = (),
    categories: Sequence[str] = (),
    missing: bool = False,
    standardize: bool = False,
    resize: str | None = None,
    crop: bool = False,
    deduplicate: bool = False,
    overwrite: bool = False,
    metrics_file: str | None = None,
    beam_args: Sequence[str] = (),
    progress: jobs.Progress | None = None,
    mend: bool = False,
) -> jobs.Summary:
    """Prepares a dataset, or what is missing of it.

    Args:
        source: Kind of the input: idx, digits, npy, npz, images, csv, parquet, tfrecord or tfds:NAME.
        input: File, folder or pattern; None for a source that needs none.
        output: Folder to make. A complete one for the same input and options is left as it is.
        test_fraction: Share of the rows for the test split, where the source has none of its own.
        validation_fraction: Share of the rows for a validation split, where the source has none of its own.
        rows_per_shard: Most rows in one shard, which is also the unit of work.
        max_pixels: Images with more pixels, by default 2^26, are rejected before they are decoded.
        key: Column or feature with the key of a row; by default ``key``, where there is one.
        column: Column or feature with the observation; by default ``x``.
        label: Column or feature with the class; by default ``label``, where there is one.
        shape: Shape of an observation that is stored as raw bytes, as a list or as the columns of a CSV file.
        dtype: Type of an observation that is stored as raw bytes; by default uint8. Of the columns of a CSV file by
            default float32, uint8 where they are pixels. Of arrays and lists of uint8, float32 takes the numbers as
            they are: for pictures of 0 and 1, whose white is 1.
        no_header: The first line of a CSV file is a row; its columns are called by their numbers, from 0.
        drop: Columns of a CSV file that are no part of the observation.
        categories: Columns of a CSV file that hold words, one name after another: each makes a number for every word
            in it, 1 for the row's own and else 0 (one-hot). The words are kept in the manifest, for
            ``pipelines.embed --prepared-with``.
        missing: Values may be missing: NaN, a null of Parquet, an empty cell of numbers in a CSV file (also NA, N/A,
            NULL, None, ? and -) become NaN, for a model with ``likelihoods.missing``; else such a row is rejected. The
            moments of columns are then of the values that are there. It is kept in the manifest, for
            ``pipelines.embed``.
        standardize: Take from each column of float vectors its mean and divide it by its standard deviation, both of
            the training rows and kept in the manifest, for ``pipelines.embed --prepared-with``. Words stay 0 and 1.
        resize: HEIGHTxWIDTH that every picture of ``images`` gets by Lanczos's filter, such as 64x64, upright as its
            EXIF says. The size is kept in the manifest, for ``pipelines.embed --prepared-with``.
        crop: Before that, cut from the middle of each picture the largest part with the proportions of ``resize``, a
            square for a square; else the whole picture is squeezed.
        deduplicate: Keep of rows with equal observations the first in the order of the source, whatever its key and its
            split. Every row is read twice for it; see ``pipelines.dataset.equal_rows``.
        overwrite: Replace what another job, or this one, wrote to ``output``.
        metrics_file: A file NAME.prom for what this run did, as node_exporter's textfile collector reads it; of a run
            that fails nothing is written.
        beam_args: Beam's own command-line options.
        progress: Called with a ``pipelines.jobs.progress.State`` while the job runs.
        mend: Make nothing but what is damaged of a complete output: see ``pipelines.mend``.

    Raises:
        PipelineError: An input is broken as a whole, an option makes no sense, or the output is not ours.

    Example:
        >>> run("digits", None, "prepared/digits").rows
        {'train': 1607, 'test': 190}
    """
    test_fraction, validation_fraction = _fractions(test_fraction, validation_fraction)
    rows_per_shard, max_pixels = number("rows_per_shard", rows_per_shard, 1), number("max_pixels", max_pixels, 1)
    require_names(drop=drop, categories=categories, beam_args=beam_args)
    call, started = jobs.Call({**locals()}), time.monotonic()
    jobs.prometheus.check(metrics_file)
    table = (no_header or None, tuple(drop) or None, tuple(categories) or None)
    size = None if resize is None else parse_size(resize)
    names = (key, column, label, None if shape is None else tuple(shape), dtype)
    fields = Fields(*names, *table, resize=size, crop=crop or None, missing=missing or None)
    reader = make_source(source, storage.absolute(input) if input else None, max_pixels, fields)
    if input and reader.looks_below:
        refuse_own_output(storage.absolute(input), storage.absolute(output), "rows-train.tfrecord-00000-of-00001")
    plan = reader.plan().without_repeated_keys()
    listing = [list(entry) for entry in sorted(plan.inputs)]
    settings = {
        "source": source,
        "test_fraction": test_fraction,
        "validation_fraction": validation_fraction,
        "rows_per_shard": rows_per_shard,
        "max_pixels": max_pixels,
        **fields.given(),
        **({"deduplicate": True} if deduplicate else {}),
        **({"standardize": True} if standardize else {}),
    }
    bad = [dataclasses.asdict(row) for row in plan.rejected]
    fingerprint = storage.fingerprint([KIND, listing, settings, plan.schema.to_json(), bad])
    shards = plan_shards(plan, test_fraction, validation_fraction, rows_per_shard)
    units = [shard_unit(reader, plan, shard, fingerprint) for shard in shards]
    target = Output(storage.absolute(output))

    with jobs.claimed(target, KIND, fingerprint, units, overwrite, beam_args, progress, started, call) as job:
        if job.is_finished:
            return _told(job.summary(), target, plan, metrics_file, reader.name)
        reasons: dict[int, str] = {}
        if deduplicate and (job.pending or standardize):
            reasons = equal_rows.find_duplicates(job, reader, plan, rows_per_shard)
        train = [shard.rows for shard in shards if shard.split == contract.TRAIN]
        by = training_units(reader, plan, train, reasons) if standardize else None
        if job.pending:
            for unit, shard in zip(units, shards, strict=True):
                with target.writing(f"_work/plan/{unit.name}") as file:
                    write_work_list(file, plan, shard.rows, reasons)
            job.run_units(units, beam.ParDo(WriteShard(target, reader, plan.schema, by)))
        records = job.verify()
        files = _write_beside(target, reader.name, plan, units, records)
        entries = {"options": settings, "inputs": _inputs(plan), "columns": plan.schema.columns}
        entries |= {"standardized": dataclasses.asdict(by)} if by else {}
        summary = job.finish(entries, files, records, plan.rejected)
        return _told(summary, target, plan, metrics_file, reader.name)


def _told(summary: jobs.Summary, output: Output, plan: Plan, metrics_file: str | None, name: str) -> jobs.Summary:
    """The summary with what the plan knows beside rows, once it is told to those who watch."""
    jobs.prometheus.write(metrics_file, "prepare", summary)
    of_kind = _folders_hint(plan) or _one_class_hint(plan) if name == "images" else _integers_hint(output, plan)
    hints = [_lost_hint(plan, summary), _classes_hint(plan), of_kind]
    return dataclasses.replace(summary, hidden=plan.hidden, unread=plan.unread, hint="; ".join(filter(None, hints)))


def _lost_hint(plan: Plan, summary: jobs.Summary) -> str:
    """What to say of splits of the source whose rows all have keys of rows before them."""
    if not plan.lost:
        return ""
    drawn = [split for split in plan.lost if split in summary.rows]
    instead = f", and {' and '.join(drawn)} drawn from train by its fraction" if drawn else ""
    return (
        f"no row of the source's own {' and '.join(plan.lost)} is left, all have keys of rows before them: they are "
        f"rejected as duplicates{instead}; give the rows of each split keys of their own"
    )


def _folders_hint(plan: Plan) -> str:
    """What to say of pictures whose folders are named as splits are: their paths are keys and labels, nothing else."""
    named = [
        split
        for split in contract.SPLITS
        if pc.any(pc.match_substring_regex(plan.rows["key"], f"(^|/){split}/")).as_py()
    ]
    if len(named) < 2:
        return ""
    return (
        f"the folders {' and '.join(named)} make no splits, their pictures are mixed and split anew by their keys: to "
        "keep them apart prepare each folder by itself, with --test-fraction 0"
    )


def _one_class_hint(plan: Plan) -> str:
    """What to say of folders of one name in several places, whose pictures are of one class."""
    if not plan.schema.labels:
        return ""
    folders = pc.unique(pc.replace_substring_regex(plan.rows["key"], "/[^/]*$", "")).to_pylist()
    places: dict[str, list[str]] = {}
    for folder in sorted(folders):
        places.setdefault(folder.rpartition("/")[2], []).append(folder)
    several = {name: paths for name, paths in places.items() if len(paths) > 1 and name in plan.schema.labels}
    if not several:
        return ""
    name, paths = next(iter(several.items()))
    return (
        f"the pictures in {' and '.join(paths[:2])}{' and others' * (len(paths) > 2)} are of one class, {name}: a "
        "label is the name of a picture's own folder"
    )


def _classes_hint(plan: Plan) -> str:
    """What to say of classes that are called by numbers which are not theirs: -1 is often what is not known."""
    names = plan.schema.labels or ()
    if not any(re.fullmatch("-[0-9]+", name) for name in names):
        return ""
    numbered = ", ".join(f"{name} is class {i}" for i, name in enumerate(names[:3]))
    return (
        f"labels are numbers below 0 too, and were taken as names ({numbered}{', ...' * (len(names) > 3)}): leave "
        "out rows whose class is not known"
    )


def _integers_hint(output: Output, plan: Plan) -> str:
    """What to say of integers that became float32 and all fit a byte: pictures, most likely."""
    if not plan.were_integers:
        return ""
    splits = storage.read_json(output.file(contract.STATISTICS))["splits"].values()
    low, high = min(split["x"]["min"] for split in splits), max(split["x"]["max"] for split in splits)
    if low < 0 or not 1 < high <= 255:
        return ""
    return (
        f"x are whole numbers from {low:g} to {high:g} and are stored as float32: where they are pictures, give "
        "--dtype uint8 (and --shape), as bytes they take a quarter of the space and models scale them"
    )


def _fractions(test: float, validation: float) -> list[float]:
    named = (("test_fraction", test), ("validation_fraction", validation))
    fractions = [number(name, fraction, 0, whole=False) for name, fraction in named]
    for name, fraction in named:
        if not fraction < 1:
            raise PipelineError(f"{name} is {fraction}, expected a share from 0 to below 1")
    if sum(fractions) >= 1:
        raise PipelineError(f"test_fraction {test} + validation_fraction {validation} leave no row to train")
    return fractions


def _write_beside(
    output: Output, name: str, plan: Plan, units: Sequence[Unit], records: Sequence[dict[str, Any]]
) -> list[str]:
    """Writes what lies beside the shards and returns the names of those files."""
    files = write_tfds_metadata(output, name, plan.schema, units, records)
    statistics = shard_summary.statistics(plan.schema, units, records)
    pictures = shard_summary.pictures(plan.schema, units, records)
    output.write_json(contract.STATISTICS, statistics)
    rejections = itertools.chain(plan.rejected, itertools.chain.from_iterable(map(output.rejections, units)))
    with output.writing(contract.REPORT) as file:
        file.write(report.render(name, statistics, pictures, rejections))
    with output.writing(contract.INPUTS) as file:
        file.writelines(storage.to_json(entry._asdict()) for entry in sorted(plan.inputs))
    return [*files, contract.STATISTICS, contract.REPORT, contract.INPUTS]


def _inputs(plan: Plan) -> dict[str, Any]:
    """What the manifest says of the files that were read."""
    return {
        "files": len(plan.inputs),
        "bytes": sum(entry.bytes for entry in plan.inputs),
        "listing": contract.INPUTS,
    }


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
    return command_line.main("prepare", argv)
