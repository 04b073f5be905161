"""Rows to Parquet embeddings with a SavedModel, by blocks, on any Beam runner.

A unit of work is a run of rows of one file, or some of them that are joined (see ``pipelines.embedding.joining``): they
are read in blocks, run through the model in sub-batches, written as one Parquet part and committed (see
``pipelines.jobs.commits``). Only the names of units cross the
runner; reading, RunInference and writing are one fused stage. A row on which the model fails is found by
bisection and rejected; the others of its block are kept. When all units are done, a key that came twice
keeps its first row. This module needs TensorFlow, Beam and PyArrow in a worker, and neither the package
that trained the model nor Keras.

The parts lie in ``OUTPUT/parts``, a folder that pyarrow, pandas, Polars and DuckDB open whole. A run over an input
that has grown makes what is new, beside what readers see until it is whole (see ``pipelines.jobs.generations``).

    python -m pipelines.embed --model saved_models/mnist --input prepared/mnist --output embeddings/mnist
    --split test
"""

if __name__ == "__main__":
    # Before anything heavy, so that --help answers at once; and the module is then imported under its own name, so that
    # workers find the classes where they are and not in __main__.
    import sys

    from . import command_line

    sys.exit(command_line.main("embed", package=__package__))

import collections
import dataclasses
import functools
import itertools
import json
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from . import command_line, contract, extras, storage

with extras.needed("pipelines"):
    import apache_beam as beam
    import numpy as np
    import pyarrow as pa
    from apache_beam.ml.inference.base import RunInference
    from apache_beam.transforms.window import GlobalWindows

from . import jobs
from .embedding import joining, lineage, repeated_keys
from .embedding.beside import OneBehind, ReadAhead
from .embedding.handler import Embedded, SavedModelHandler, UnitBlock
from .embedding.parquet_parts import KIND, Layout, ParquetPart, complete_parts
from .embedding.saved_models import choose_score, choose_signature, find_model
from .embedding.slices import Places, slices_of
from .errors import PipelineError, number, require_names
from .formats.files import refuse_own_output
from .formats.standardization import Standardization
from .inputs import Fields, open_input, prepared_fields, prepared_source, prepared_standardization
from .inputs.base import Block, BlockReference, Rows, block_rows
from .inputs.gathered import gathered
from .inputs.parquet import Parquet
from .jobs import metrics
from .jobs.commits import Output, Unit

BATCH_SIZE = 4096
MEGABYTE = 1_000_000
_A_PART = f"{contract.GENERATIONS}/000001/{contract.PARTS}/a.parquet"


def run(
    model: str,
    input: str,
    output: str,
    *,
    split: str | None = None,
    key: str = contract.KEY,
    column: str = contract.X,
    condition: str | None = None,
    keep: Sequence[str] = (),
    no_header: bool = False,
    drop: Sequence[str] = (),
    missing: bool = False,
    prepared_with: str | None = None,
    batch_size: int = BATCH_SIZE,
    signature: str | None = None,
    stddev: bool = False,
    score: int = 0,
    partition_by: Sequence[str] = (),
    part_size: int | None = None,
    trust_model: bool = False,
    overwrite: bool = False,
    metrics_file: str | None = None,
    beam_args: Sequence[str] = (),
    progress: jobs.Progress | None = None,
    mend: bool = False,
) -> jobs.Summary:
    """Embeds a dataset, or what is missing of it.

    Args:
        model: Folder of a SavedModel: a version, or its base folder, of which the newest version is taken.
        input: A prepared dataset; or what ``pipelines.preprocess`` reads, with the same keys and values: Parquet,
            TFRecord, CSV, npy, npz, IDX or image files or archives of images, one, a folder or a pattern; or ``digits``
            or ``tfds:NAME``.
        output: Folder to make. One that was made before by the same options is brought up to the input and the model's
            version: what is done stays.
        split: Which rows, of an input that has splits of its own, ``"all"`` for every one; by default ``"test"`` of a
            prepared dataset, else all.
        key: Column of CSV or Parquet, or feature of TFRecord files, with the key of a row.
        column: Column of Parquet, or feature of TFRecord files, with the observation.
        condition: Column of Parquet, with numbers or lists of them, or feature of TFRecord files, with a number, that
            holds the condition for a model that takes one; of other inputs the label.
        keep: Columns of Parquet or features of TFRecord files that the output takes over; of other inputs the label, of
            CSV files by the name of its column, which is then no part of the observation.
        no_header: The first line of a CSV file is a row; its columns are called by their numbers, from 0.
        drop: Columns of a CSV file that are no part of the observation.
        missing: Values may be missing, as for ``pipelines.preprocess``, for a model with ``likelihoods.missing``; of a
            dataset that was prepared so, and with ``prepared_with`` one, they may be anyway.
        prepared_with: A prepared dataset: the input is taken as its raw data were, with its names of columns, its
            categories, its standardization and its size of pictures. Options that are given too go before its own.
        batch_size: Most rows in one call of the model. The result does not depend on it beyond rounding.
        signature: Which signature; by default ``embed_uint8`` for bytes, ``embed`` for floats and
            ``embed_image_bytes`` for encoded images.
        stddev: Also write ``embedding_stddev``.
        score: Also write ``score``, the ELBO in nats, from so many samples of z; each row's noise comes from its key.
        partition_by: Columns that the output takes over as folders, ``country=at/``, one below the other: text or
            integers, no value empty.
        part_size: Megabytes that a file of the output has, about: small inputs that follow one another are joined in
            one file, large ones are cut; by default one has the rows of a unit of work.
        trust_model: Run a model though its graph may read or write files or run code: only for models of your own.
        overwrite: Make everything anew, also where other options or another input made ``output``.
        metrics_file: A file NAME.prom for what this run did, as node_exporter's textfile collector reads it; of a run
            that fails nothing is written.
        beam_args: Beam's own command-line options.
        progress: Called with a ``pipelines.jobs.progress.State`` while the job runs.
        mend: Make nothing but what is damaged of a complete output: see ``pipelines.mend``.

    Raises:
        PipelineError: The model or the input is absent, broken or does not fit the other, or the output is
        not ours.

    Example:
        >>> from tfvae.pipelines import preprocess
        >>> preprocess.run("digits", None, "prepared/digits").rows
        {'train': 1607, 'test': 190}
        >>> module, images = tf.Module(), tf.TensorSpec([None, 8, 8, 1], tf.uint8, "x")
        >>> first_row = lambda x: {"embedding": tf.cast(x[:, 0, :, 0], tf.float32)}
        >>> module.embed = tf.function(first_row, input_signature=[images])
        >>> tf.saved_model.save(module, "saved_models/digits/1", {"embed_uint8": module.embed})
        >>> run("saved_models/digits", "prepared/digits", "embeddings/digits").rows
        {'test': 190}
    """
    batch_size, score = number("batch_size", batch_size, 1), number("score", score, 0)
    part_size = None if part_size is None else number("part_size", part_size, 1)
    require_names(keep=keep, drop=drop, partition_by=partition_by, beam_args=beam_args)
    call, started = jobs.Call({**locals()}), time.monotonic()
    jobs.prometheus.check(metrics_file)
    shown = [*keep, *partition_by]
    taken = list(dict.fromkeys([*shown, *([condition] if condition else [])]))
    layout = Layout(tuple(dict.fromkeys(partition_by)), None if part_size is None else part_size * MEGABYTE)
    version, target = find_model(storage.absolute(model), trust_model), jobs.Generations(storage.absolute(output))
    call.given["model"] = version.path  # whatever version is the newest when a file is damaged
    current = target.current()
    before = lineage.read(target.generation(current)) if not overwrite else lineage.Lineage()
    fields = Fields(no_header=no_header or None, drop=tuple(drop) or None, missing=missing or None)
    standardize, source = None, None
    if prepared_with:
        source = prepared_source(storage.absolute(prepared_with))
        fields = fields.over(prepared_fields(storage.absolute(prepared_with)))
        standardize = prepared_standardization(storage.absolute(prepared_with))
    dataset = open_input(input, key, column, taken, fields, before.contents, source)
    if isinstance(dataset, Parquet):
        refuse_own_output(dataset.path, target.path, f"{contract.PARTS}/a.parquet", _A_PART)
    chosen = choose_signature(version, dataset, signature, stddev, condition)
    lists = f"{contract.WORK}/plan"
    dataset = dataset.fitted(chosen.shape, chosen.dtype).listed_in(target.file(*lists.split("/")))
    dataset = dataset.continuing(before.groups())
    if standardize and (dataset.dtype, dataset.shape) != ("float32", (len(standardize.mean),)):
        raise PipelineError(
            f"{prepared_with} standardized {len(standardize.mean)} columns, the rows are {dataset.dtype} "
            f"{list(dataset.shape or ())}: leave --prepared-with out, or give rows like its own"
        )
    blocks = dataset.blocks(split)
    asked = {
        "model": version.name,
        "split": split,
        "signature": chosen.name,
        "stddev": stddev,
        "score": score,
        "key": key,
        "column": column,
        "keep": list(keep),
        "partition_by": list(partition_by),
        "part_size": part_size,
        **({"condition": condition} if condition else {}),
        **fields.given(),
        **({"standardized": dataclasses.asdict(standardize)} if standardize else {}),
    }
    settings = json.loads(storage.to_json(asked))  # as a later run finds them: with lists for tuples
    observation = {"shape": list(dataset.shape or ()), "dtype": dataset.dtype, "missing": dataset.missing}
    told = {"model": version.manifest(), "options": settings}
    units = _units(blocks, dataset, storage.fingerprint([KIND, told, observation]))
    if layout.file_bytes:
        numbers = chosen.dimension * (1 + stddev) + bool(score)
        earlier = [] if overwrite else joining.earlier(target.generation(current), before)
        units = joining.Joining.of(layout, numbers, 1 + len(keep)).joined(units, earlier)
    rejected = [dataclasses.asdict(row) for row in dataset.rejected]
    fingerprint = storage.fingerprint([[unit.name, unit.fingerprint] for unit in units] + rejected)
    scoring = choose_score(version, chosen, score)
    handler = SavedModelHandler(version, chosen, batch_size, stddev, scoring, condition, condition in shown)
    changes = before.changes(dataset, blocks, output)
    making = (overwrite, beam_args, progress, started, call)
    with jobs.growing(target.path, KIND, settings, fingerprint, units, *making) as job:
        if job.is_finished:
            done = job.summary()
        else:
            if job.pending:
                dataset.write_lists(Output(target.path).writing, lists, blocks)
            made = before.made_before(job.output, [unit.name for unit in job.pending])
            read = ReadUnit(job.output, dataset.to_travel(), standardize, signature is not None)
            steps = _Embed(job.output, read, handler, layout, made)
            job.run_units(units, steps)
            while repeated_keys.reject(job.output, units):
                job.run_units(units, steps)
            records = job.verify()
            job.output.keep_only(contract.PARTS, records)
            lineage.write(job.output, dataset, units, records, told)
            with job.output.writing(contract.SUCCESS):
                pass
            beside = [contract.SUCCESS, contract.LINEAGE]
            done = job.finish({**told, "dimension": chosen.dimension}, beside, records, dataset.rejected)
        summary = dataclasses.replace(
            done,
            output=target.path,
            manifest=target.shown(contract.MANIFEST, job.output),
            hidden=dataset.hidden,
            unread=dataset.unread,
            **dataclasses.asdict(changes),
        )
    jobs.prometheus.write(metrics_file, "embed", summary)
    return summary


def _units(blocks: Sequence[BlockReference], dataset: Rows, making: str) -> list[Unit]:
    """A unit a reference, called after its file, so that files beside it change neither its name nor its fingerprint.

    ``making`` is the fingerprint of the model and the options.
    """
    units: list[Unit] = []
    numbers: collections.Counter[tuple[str, str]] = collections.Counter()
    for block in blocks:
        place = block.split, block.file
        name = f"{block.split}-{_short(block.file)}-{numbers[place]:05d}"
        numbers[place] += 1
        fingerprint = storage.fingerprint([making, *place, block.rows, dataset.digest(block)])
        task = dataclasses.asdict(block)
        units.append(Unit(name, block.rows, (f"{contract.PARTS}/{name}.parquet",), fingerprint, task))
    return units


def _short(file: str) -> str:
    """A path as a part of a name: its end as far as it is plain, and a hash of all of it.

    Example:
        >>> _short("2026/Nov 26.parquet")
        '2026-Nov-26-parquet-a9297a5fb135'
    """
    plain = re.sub(r"[^A-Za-z0-9]+", "-", file)[-40:].strip("-")
    return f"{plain}-{storage.fingerprint(file)[:12]}"


class _Embed(beam.PTransform):
    """Read, infer, write: one fused stage."""

    def __init__(
        self,
        output: Output,
        read: "ReadUnit",
        handler: SavedModelHandler,
        layout: Layout,
        made: lineage.Made,
    ):
        super().__init__()
        self._output, self._read, self._handler, self._layout, self._made = output, read, handler, layout, made

    def expand(self, units: Any) -> Any:
        """See ``beam.PTransform.expand``."""
        read, infer = beam.ParDo(self._read), RunInference(self._handler)
        blocks = units | "Read" >> read.with_output_types(UnitBlock)
        embedded = blocks | "Infer" >> infer.with_output_types(Embedded)
        return embedded | "Write" >> beam.ParDo(WriteUnit(self._output, self._made, self._layout))


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
        self._ahead: tuple[Unit, ReadAhead[tuple[int, Block]]] | None = None
        self._rows_read = metrics.counter("rows_read")

    def process(self, unit: Unit) -> Iterator[UnitBlock]:
        """Reads a block at a time; a file that is broken as a whole fails the job. A unit that is done stays."""
        if self._output.is_done(unit):
            return
        blocks = self._blocks(unit)
        if not self._dataset.is_far:
            yield from self._checked(unit, blocks)
            return
        last, self._ahead = self._ahead, (unit, ReadAhead(blocks))
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

    def _blocks(self, unit: Unit) -> Iterator[tuple[int, Block]]:
        """As they are read, each with the number of its slice."""
        for index, one in enumerate(slices_of(unit)):
            for block in self._dataset.read(one):
                yield index, block

    def _checked(self, unit: Unit, blocks: Iterable[tuple[int, Block]]) -> Iterator[UnitBlock]:
        left, places = unit.rows, Places(unit)
        with jobs.reporting(self._output, unit):
            rows: Iterable[Block] = self._rows(places, blocks)
            if len(places.slices) > 1:
                rows = gathered(rows, block_rows(self._dataset.shape or (), self._dataset.dtype))
            for index, block in enumerate(rows):
                left -= len(block) + len(block.rejected)
                yield UnitBlock(block, unit, index, is_last=left == 0)
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
                    "pictures want a model exported for bytes; of counts or classes prepare rows with --dtype float32, "
                    "and name that dataset by --prepared-with"
                )
            return dataclasses.replace(block, x=block.x.astype(np.float32))
        if is_last and highest == 1 and not self._as_told:
            floats, levels = (contract.signature(contract.EMBED, dtype) for dtype in ("float32", "uint8"))
            raise PipelineError(
                f"{block.file} holds uint8 of nothing but 0 and 1, of which a picture's white is 255: write "
                f"--signature {floats} if 1 is white, --signature {levels} if it is the darkest grey"
            )
        return block


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
            commit = functools.partial(self._commit, self._part)
            self._part = None
            yield from self._told(self._behind.call(commit) if self._behind else [commit()])

    def finish_bundle(self) -> Iterator[Any]:
        """See ``beam.DoFn``: a bundle is done when its last unit is committed."""
        if self._behind:
            yield from map(GlobalWindows.windowed_value, self._told(self._behind.wait()))

    def _commit(self, part: ParquetPart) -> tuple[str, int, int]:
        facts = self._made.facts(part.unit.name) | joining.facts(part.unit)
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


def read_embeddings(output: str) -> pa.Table:
    """All parts of a complete output, in the order of the plan, with the columns that their folders say.

    Raises:
        PipelineError: The output is not complete.

    Example:
        >>> import pyarrow.parquet as pq
        >>> from tfvae.pipelines.embedding.parquet_parts import part_table
        >>> grown = jobs.Generations("embeddings/tiny")  # by hand, what ``run`` does
        >>> output = grown.generation(1)
        >>> with output.writing("part.parquet") as file:
        ...     pq.write_table(part_table(["a"], {"embedding": np.ones([1, 2], np.float32)}), file)
        >>> output.finish({"kind": KIND}, ["part.parquet"], [])
        >>> grown.switch(1)
        >>> table = read_embeddings("embeddings/tiny")
        >>> np.stack(table["embedding"].to_numpy())
        array([[1., 1.]], dtype=float32)
    """
    return pa.concat_tables(complete_parts(output)[1])


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code: 0 complete, 3 complete with rejected rows, 1 an error.

    Example:
        >>> main("--model saved_models/absent --input prepared/digits --output embeddings/absent".split())
        1

        The reason, that there is no such model, is one line on standard error.
    """
    return command_line.main("embed", argv)
