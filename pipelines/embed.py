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

import dataclasses
import json
import time
from collections.abc import Sequence
from typing import Any

from . import command_line, contract, extras, storage

with extras.needed("pipelines"):
    import apache_beam as beam
    import pyarrow as pa
    from apache_beam.ml.inference.base import RunInference

from . import jobs
from .embedding import joining, lineage, repeated_keys
from .embedding.handler import Embedded, SavedModelHandler, UnitBlock
from .embedding.parquet_parts import KIND, Layout, complete_parts
from .embedding.planning import all_read, is_unread, may_read_later, units_of
from .embedding.reading import ReadUnit
from .embedding.saved_models import choose_score, choose_signature, find_model, refuse_other_columns
from .embedding.writing import WriteUnit
from .errors import PipelineError, number, require_names
from .formats.files import refuse_own_output
from .inputs import Fields, Preparation, open_input
from .inputs.base import Rows
from .inputs.prepared import Prepared
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
        key: Column of CSV or Parquet, feature of TFRecord files, or array of npz files, with the key of a row.
        column: Column of Parquet, feature of TFRecord files, or array of npz files, with the observation.
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
    as_prepared = Preparation.of(storage.absolute(prepared_with)) if prepared_with else None
    fields = fields.over(as_prepared.fields) if as_prepared else fields
    source, standardize = (as_prepared.source, as_prepared.standardization) if as_prepared else (None, None)
    later = may_read_later(target, before, overwrite)
    dataset = open_input(input, key, column, taken, fields, before.contents, source, later)
    if not isinstance(dataset, Prepared):  # of which the files that belong to it are known
        refuse_own_output(dataset.path, target.path, f"{contract.PARTS}/a.parquet", _A_PART)
    chosen = choose_signature(version, dataset, signature, stddev, condition)
    columns = as_prepared.columns_sha256 if as_prepared else dataset.columns_sha256
    refuse_other_columns(version, bool(standardize) or dataset.is_standardized, columns, told=signature is not None)
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
    made_by = storage.fingerprint([KIND, told, observation])
    numbers = chosen.dimension * (1 + stddev) + bool(score)
    joins = joining.Joining.of(layout, numbers, 1 + len(keep)) if layout.file_bytes else None
    earlier = joining.earlier(target.generation(current), before) if joins and not overwrite else []

    def plan(dataset: Rows) -> tuple[str, list[Unit]]:
        """The units, and the fingerprint of them all."""
        units = units_of(blocks, dataset, made_by)
        units = joins.joined(units, earlier) if joins else units
        rejected = [dataclasses.asdict(row) for row in dataset.rejected]
        return storage.fingerprint([[unit.name, unit.fingerprint] for unit in units] + rejected), units

    fingerprint, units = plan(dataset)
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
            if any(map(is_unread, units)):
                dataset = all_read(job.output, units, dataset)
                fingerprint, units = plan(dataset)
                job.replan(fingerprint, units)
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


class _Embed(beam.PTransform):
    """Read, infer, write: one fused stage."""

    def __init__(
        self,
        output: Output,
        read: ReadUnit,
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
