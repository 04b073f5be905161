"""The ``tfvae`` command: thin, each sub-command a call to the library or a pipeline.

Heavy imports stay inside the commands, so that ``--help`` answers at once.
"""

import contextlib
import dataclasses
import logging
import os
import pathlib
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import click

from tfvae import configuration, listing, log_lines, project, registration, run_folder, tables
from tfvae.experiments import reproduce
from tfvae.pipelines import command_line, stops
from tfvae.pipelines.errors import PipelineError, in_a_line

_OWN_PARTS = click.option("--model", metavar="FILE.py", help="Run this file: it defines classes of the model's own.")
_RATE = click.FloatRange(0, sys.float_info.max, min_open=True)
_FORESEEN = (ValueError, FloatingPointError)
_DATA = {"data_directory": "a prepared dataset, as tfvae prepare makes it"}
_RUN = {"run": "a run, as tfvae train makes it"}
_READ = "nothing was changed; give the same command again"
_SHOWN: dict[str, Any] = {"context_settings": {"show_default": True, "max_content_width": 100}}


class _InOrder(click.Group):
    """A group whose help lists the commands in the order of the work, and whose errors are one line each."""

    command_class = command_line.Strict

    def list_commands(self, context: click.Context) -> list[str]:
        """See ``click.Group``."""
        return list(self.commands)

    def make_context(self, *args: Any, **more: Any) -> click.Context:
        """See ``click.Group``."""
        with _usage_in_a_line():
            return super().make_context(*args, **more)

    def invoke(self, context: click.Context) -> Any:
        """See ``click.Group``, and ``pipelines.stops``."""
        with stops.answered(), _usage_in_a_line():
            return super().invoke(context)


@contextlib.contextmanager
def _usage_in_a_line() -> Iterator[None]:
    try:
        yield
    except click.UsageError as error:
        if isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ())):
            raise  # it is the help
        raise command_line.Mistake.of_usage(error) from error


def _log_as(context: click.Context, option: click.Parameter, form: str) -> None:
    if form == "json" and not context.resilient_parsing:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # notes that do not come through Python
        log_lines.begin()


def _log_from(context: click.Context, option: click.Parameter, level: str | None) -> None:
    """Shows Python's messages from a level on; where none is named, all stays as the program has set it."""
    if level:
        logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
        logging.getLogger().setLevel(level.upper())


@click.group(cls=_InOrder, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    show_default="warning",
    expose_value=False,
    callback=_log_from,
    help="What is told beside results; info adds TensorFlow's notes, debug an error's traceback.",
)
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    expose_value=False,
    is_eager=True,
    callback=_log_as,
    help="Of standard error; json is an object a line: time, level, logger, message.",
)
@click.version_option(package_name="tfvae")
def main() -> None:
    """Variational autoencoders on TensorFlow: from raw data to a served model.

    \b
    Workflow:
      tfvae prepare --source idx --input data/mnist --output prepared/mnist
      tfvae train --data prepared/mnist --output runs/mnist
      tfvae evaluate runs/mnist --data prepared/mnist
      tfvae export runs/mnist saved_models/mnist
      tfvae check-export saved_models/mnist
      tfvae embed --model saved_models/mnist --input prepared/mnist --output embeddings/mnist
      tfvae plot runs/mnist --output runs/mnist/plots
    Try all of it offline: tfvae quickstart
    """
    command_line.replace_unencodable()


def _load_tensorflow(run: bool = True) -> None:
    """Import TensorFlow without its notes to developers, of which some escape every log level it has.

    With a log level of info or below they are shown. ``run`` is False where nothing may have run yet.
    """
    if logging.getLogger().isEnabledFor(logging.INFO):
        import tensorflow as tf

        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.getLogger("absl").setLevel(logging.ERROR)
    with tempfile.TemporaryFile() as notes, contextlib.ExitStack() as stack:
        sys.stderr.flush()
        stack.callback(os.close, stderr := os.dup(2))
        stack.callback(os.dup2, stderr, 2)
        os.dup2(notes.fileno(), 2)
        import tensorflow as tf

        if run:
            tf.zeros([1])  # the first operation looks for devices, and says so


def _load_tensorflow_alone() -> None:
    """For commands that load no Keras model."""
    registration.leave_out()
    _load_tensorflow()


@contextlib.contextmanager
def _clear_errors(run: bool = True) -> Iterator[None]:
    """Around a command that works with TensorFlow; ``run`` is as in ``_load_tensorflow``."""
    with _told():
        _load_tensorflow(run)
        yield


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Errors that tell the user what to mend end the command with their sentence and exit code 1."""
    try:
        yield
    except (ValueError, OSError, ImportError, FloatingPointError, PipelineError) as error:
        logging.getLogger(__name__).debug("the command failed", exc_info=True)
        raise command_line.Mistake(in_a_line(error, _FORESEEN)) from error


def _left_of_a_training(given: dict[str, Any]) -> str:
    goes_on = "the same command goes on with it" if run_folder.goes_on(given["output"]) else "give it again"
    return f"{given['output']} is as it was before this training began; {goes_on}"


def _left_of_verifying(given: dict[str, Any]) -> str:
    return "what was made again stays; the same command makes the rest" if given["mend"] else _READ


main.add_command(command_line.pipeline("prepare"))


@main.command(**_SHOWN, makes="folder", reads={"data": _DATA["data_directory"]}, here=("folder",))
@click.argument("folder")
@click.option("--data", metavar="DIR", show_default="FOLDER/prepared", help="A prepared dataset to train on.")
def init(folder: str, data: str | None) -> None:
    """Write a project: a model of your own, and how to train it.

    \b
    Example:
      tfvae init mine --data prepared/mnist
      tfvae train --config mine/run.toml
    """
    with _told():
        for path in project.write(folder, data):
            click.echo(path)
    click.echo(f"Next: tfvae train --config {shlex.quote(os.path.join(folder, 'run.toml'))}")


@main.command(**_SHOWN, stopped=_left_of_a_training, reads=_DATA, here=("output", "model"))
@click.option("--data", "data_directory", required=True, metavar="DIR", help="A prepared dataset.")
@click.option("--output", required=True, metavar="DIR", help="The run to write, such as runs/NAME.")
@click.option("--model", "--experiment", default="mlp", help="mlp, gaussian-mlp, conv, or yours: FILE.py:FUNCTION.")
@click.option("--epochs", type=click.IntRange(1), show_default="the model's", help="Passes over the data.")
@click.option("--batch-size", type=click.IntRange(1), show_default="the model's", help="Rows in a batch.")
@click.option("--latent-dim", type=click.IntRange(1), show_default="the model's", help="Length of z.")
@click.option("--learning-rate", type=_RATE, show_default="the model's", help="Of Adam.")
@click.option(
    "--patience", type=click.IntRange(1), show_default="train all", help="Epochs without a better ELBO, then stop."
)
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, help="Fixes weights, shuffles and noise.")
@click.option("--overwrite", is_flag=True, help="Replace a run that is there.")
@click.option(
    "--strategy",
    type=click.Choice(["mirrored", "workers"]),
    show_default="one device",
    help="Over this machine's graphics cards, or over the workers that TF_CONFIG names.",
)
@click.option("--resume", is_flag=True, help="Go on; a run that is finished already stays, without an error.")
@configuration.option("Flags from a file, which may name a model file to run; the command line wins.")
def train(**options: Any) -> None:
    """Train a VAE on a prepared dataset.

    A model of your own is a function in a Python file, which is run. It takes what it names of event_shape,
    condition_shape, rows, data, latent_dim and seed, and returns a tfvae.VAE, compiled or not.

    A training that was stopped or killed goes on with the same command, exactly, from a checkpoint of a minute before
    at most. Ctrl-C and SIGTERM write one more; the exit codes are then 130 and 143.

    With --strategy workers the same command is given to each worker, with a TF_CONFIG of its own and an output that all
    see. If one is gone the others end; all are then started again.

    \b
    Example:
      tfvae train --data prepared/mnist --output runs/mnist --epochs 20
      tfvae train --data prepared/mnist --output runs/mine --model model.py:build
      tfvae train --config runs/mine/config.toml --output runs/again --epochs 40
    """
    with _clear_errors(run=options["strategy"] != "workers"):
        from tfvae import runs

        record = runs.train(**options)
    click.echo(f"{record['rows_per_second']:,} rows/s; the run lies in {options['output']}")


@main.command(
    **_SHOWN,
    stopped="{run} is as it was before; the same command measures it anew",
    reads={**_RUN, **_DATA},
    here=("run", "model"),
)
@click.argument("run")
@click.option("--data", "data_directory", required=True, metavar="DIR", help="A prepared dataset.")
@click.option("--num-samples", type=click.IntRange(2), default=5000, help="Samples of z for each row in log p(x).")
@click.option("--split", default="test", help="The split to measure on.")
@click.option("--seed", type=int, default=0, help="Fixes the samples.")
@click.option("--judges", multiple=True, metavar="NAME", help="annealing, calibration, predictive, samples, surgery.")
@_OWN_PARTS
def evaluate(
    run: str,
    data_directory: str,
    num_samples: int,
    split: str,
    seed: int,
    judges: tuple[str, ...],
    model: str | None,
) -> None:
    """Measure a run's ELBO and log p(x), in nats. The result also goes to RUN/evaluation.json.

    Judges ask more, each once: several are named by several --judges, or between commas.

    \b
    Example:
      tfvae evaluate runs/mnist --data prepared/mnist --num-samples 5000
      tfvae evaluate runs/mnist --data prepared/mnist --judges surgery,calibration
    """
    with _clear_errors(), _progress("log p(x)", "row") as progress, _progress("judges", "judge") as judged:
        from tfvae import runs

        names = [name.strip() for given in judges for name in given.split(",")]
        result = runs.evaluate(run, data_directory, num_samples, split, seed, progress, model, names, judged)
    click.echo(tables.plain(evaluation_rows(result)))


@main.command(
    **_SHOWN,
    stopped="{directory} holds whole versions alone; the same command writes a new one",
    makes="directory",
    reads=_RUN,
    here=("run", "model"),
)
@click.argument("run")
@click.argument("directory")
@click.option("--version", type=click.IntRange(1), show_default="the next", help="The version to write.")
@click.option("--format", default="saved_model", help="saved_model, or litert for phones, browsers, small computers.")
@click.option("--license", "license_", show_default="unknown", help="Of the weights, for the card: apache-2.0, say.")
@click.option("--signature", "signatures", multiple=True, show_default="all", help="For LiteRT: one to convert.")
@_OWN_PARTS
def export(
    run: str,
    directory: str,
    version: int | None,
    format: str,
    license_: str | None,
    signatures: tuple[str, ...],
    model: str | None,
) -> None:
    """Export a run's model for TF Serving and embed, or LiteRT.

    It goes to DIRECTORY/<version>/. Its card, assets.extra/model_card.md and model.json, holds what the run knows of
    its data and measurements.

    \b
    Example:
      tfvae export runs/mnist saved_models/mnist
    """
    with _clear_errors():
        from tfvae import runs
        from tfvae.exporting import saved_model

        vae, known = runs.load(run, model), dataclasses.replace(runs.provenance(run), license=license_)
        path = saved_model.export(
            vae, directory, version, provenance=known, format=format, signatures=signatures or None
        )
        click.echo(path)


@main.command(
    "check-export",
    **_SHOWN,
    stopped=_READ,
    reads={"directory": "a SavedModel or a LiteRT file of tfvae export"},
    here=("directory",),
)
@click.argument("directory")
@click.option("--trust-model", is_flag=True, help="Run it though it may read or write files, or run code.")
def check_export(directory: str, trust_model: bool) -> None:
    """Check an export and run it, outside of Python too.

    A SavedModel is held to what TF Serving and tfvae embed need, and is run in the C++ runtime.

    An export for LiteRT is run in LiteRT, beside what Python answered when it was written.

    DIRECTORY is a version, or a model's folder, whose largest version is taken. The exit code is 1 if a check fails.

    \b
    Example:
      tfvae check-export saved_models/mnist
    """
    registration.leave_out()
    with _clear_errors():
        from tfvae.checks import rules

        checks = rules.check_export(directory, trust_model)
    rows = [("check", "result", "detail"), *((check.name, check.result, check.detail) for check in checks)]
    click.echo(tables.plain(rows))
    if not all(check.passed for check in checks):
        sys.exit(1)


main.add_command(command_line.pipeline("embed", first=_load_tensorflow_alone))


@main.command(
    **_SHOWN,
    stopped="{repo} has all of it or nothing; the same command sends it",
    reads={"source": "a run of tfvae train, or an export of tfvae export"},
    here=("source", "model"),
)
@click.argument("source", metavar="RUN_OR_EXPORT")
@click.argument("repo", metavar="OWNER/NAME")
@click.option("--public", is_flag=True, help="Let everybody see a repository that is new.")
@click.option(
    "--license", "license_", show_default="unknown", help="Of a run's weights, for the card: apache-2.0, say."
)
@_OWN_PARTS
def push(source: str, repo: str, public: bool, license_: str | None, model: str | None) -> None:
    """Put a run or an export on Hugging Face's hub. Of an export it is the largest version.

    Its card and checksums go with it.

    \b
    Example:
      tfvae push saved_models/mnist me/mnist-vae
    """
    with _clear_errors():
        from tfvae.sharing import hub

        click.echo(hub.push(source, repo, public, license_, model))


@main.command(
    **_SHOWN,
    stopped="{folder} has all of it or nothing; the same command brings it",
    makes="folder",
    here=("folder",),
)
@click.argument("repo", metavar="OWNER/NAME")
@click.argument("folder")
@click.option("--revision", default="main", help="A branch, a tag or a commit.")
def pull(repo: str, folder: str, revision: str) -> None:
    """Bring a run or an export from Hugging Face's hub.

    To FOLDER come only files that tfvae writes, and none is run.

    \b
    Example:
      tfvae pull me/mnist-vae saved_models/mnist
    """
    with _clear_errors():
        from tfvae.sharing import hub

        pulled = hub.pull(repo, folder, revision)
    click.echo(pulled.folder)
    if pulled.left_out:
        click.echo(
            f"left out: {', '.join(map(ascii, pulled.left_out[:10]))}{', ...' * (len(pulled.left_out) > 10)}", err=True
        )


@main.command(**_SHOWN, stopped=_left_of_verifying)
@click.argument("directory")
@click.option("--mend", is_flag=True, help="Make them again, of a prepared dataset or embeddings.")
def verify(directory: str, mend: bool) -> None:
    """Hold every file of a folder against its checksum.

    Those that are damaged or missing are named. DIRECTORY is a prepared dataset, embeddings, an export (of a model's
    folder its largest version) or a run. The exit code is 1 if a file is damaged.

    With --mend just those are made again from the input and the model that DIRECTORY was made from. The exit code is 0
    if every file is then as it should be. If the input or the model is gone or another one, nothing is changed, and the
    exit code is 1.

    \b
    Example:
      tfvae verify prepared/mnist
    """
    from tfvae.pipelines import verify as verification

    with _told():
        run_folder.settle(pathlib.Path(directory))
        found = _mended(directory) if mend else verification.verify(directory)
    click.echo(found.table())
    if found.exit_code:
        sys.exit(found.exit_code)


def _mended(directory: str) -> Any:
    from tfvae.pipelines import mend
    from tfvae.pipelines.jobs import progress

    _load_tensorflow_alone()
    with progress.progress_bar("mend") as report:
        return mend.mend(directory, report)


@main.command(
    **_SHOWN,
    stopped=_READ,
    reads=dict.fromkeys(("reference", "new"), "the embeddings of rows, as tfvae embed makes them"),
)
@click.argument("reference")
@click.argument("new")
@click.option("--report", metavar="FILE.html", help="A page with the same, and the deciles of each column.")
@click.option("--most", type=float, default=0.1, help="Largest population stability index that is no drift.")
def drift(reference: str, new: str, report: str | None, most: float) -> None:
    """Hold the embeddings of new rows beside those of a reference.

    Both are outputs of tfvae embed by the same model. Compared are the coordinates, the score and KL, where both have
    them. The exit code is 3 if a column has drifted.

    \b
    Example:
      tfvae drift embeddings/may embeddings/june --report june.html
    """
    from tfvae.pipelines import drift as drifting
    from tfvae.pipelines import storage

    with _told():
        found = drifting.compare(reference, new, most=most)
        if report:
            page = storage.absolute(report)
            with storage.replacing(page, os.path.dirname(page)) as file:
                file.write(found.page())
    click.echo(tables.plain(found.table()))
    for told in found.left_out():
        click.echo(told, err=True)
    if found.exit_code:
        sys.exit(found.exit_code)


@main.command(
    **_SHOWN,
    stopped="the pictures in {output} are whole ones; the same command draws all of them",
    reads={**_RUN, **_DATA},
    here=("run", "output", "model"),
)
@click.argument("run")
@click.option("--output", required=True, metavar="DIR", help="Where the PNG files go.")
@click.option("--data", "data_directory", metavar="DIR", show_default="the run's", help="A prepared dataset.")
@click.option("--split", default="test", help="The split whose rows are drawn.")
@click.option("--projector", is_flag=True, help="Write DIR/projector for TensorBoard too.")
@_OWN_PARTS
def plot(run: str, output: str, data_directory: str | None, split: str, projector: bool, model: str | None) -> None:
    """Draw what a run's model has learned as PNG.

    The learning curve, the latent space and KL of its units; of pictures samples, reconstructions, traversals and
    interpolations; of tables the residuals of each column.

    \b
    Example:
      tfvae plot runs/mnist --output runs/mnist/plots
    """
    with _clear_errors():
        from tfvae import runs

        for path in runs.plot(run, output, data_directory, split, projector, model):
            click.echo(path)


@main.command("runs", **_SHOWN, stopped=_READ, here=("folder",))
@click.argument("folder", default="runs")
@click.option("--sort", type=click.Choice(listing.SORTS), default="when", help="The best or newest come first.")
def list_runs(folder: str, sort: str) -> None:
    """List the runs below a folder with their numbers.

    ELBO and log p(x) are in nats a row, and compare between runs on the same data.

    \b
    Example:
      tfvae runs runs --sort elbo
    """
    with _told():
        found, notes = listing.found(folder)
    click.echo(listing.table(found, sort) if found else f"{folder} holds no run.")
    for note in notes:
        click.echo(note, err=True)


main.add_command(reproduce.group(_clear_errors))


@main.command(**_SHOWN, stopped="{output} holds what was done; the same command begins anew", here=("output",))
@click.option("--output", default="runs/quickstart", metavar="DIR", help="Where everything goes.")
def quickstart(output: str) -> None:
    """Try the whole workflow on scikit-learn's digits.

    That is to prepare, train, evaluate, export, embed and plot.

    \b
    Example:
      tfvae quickstart --output runs/quickstart
    """
    with _clear_errors():
        from tfvae import quickstart as whole_way

        whole_way.run(output, main)


@contextlib.contextmanager
def _progress(label: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar that opens at the first report, and is gone once all is done."""
    from tqdm import tqdm

    shown: list[tqdm] = []
    with contextlib.ExitStack() as opened:

        def report(done: int, total: int) -> None:
            if not shown:
                shown.append(opened.enter_context(tqdm(desc=label, total=total, unit=unit, leave=False, disable=None)))
            shown[0].update(done - shown[0].n)
            if done == total:
                opened.close()

        yield report


def _log_marginal_text(result: dict[str, Any]) -> str:
    shown, samples = tables.log_marginal(result), f"{result['num_samples']:,} samples"
    if (error := result["monte_carlo_standard_error"]) is None:
        return f"{shown} ({samples} are too few to tell an error: take more)"
    return f"{shown} ({samples}, Monte Carlo error {error:.3f})"


def _shape_text(result: dict[str, Any]) -> str:
    shape = result.get("median_pareto_shape")
    return "" if shape is None else f", Pareto's k̂ {shape:.2f}"


def evaluation_rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    """What ``tfvae evaluate`` prints, as (name, value)."""
    return [
        ("observations", f"{result['rows']:,} rows of {result['split']}, {result['observations']}"),
        ("ELBO", f"{result['elbo']:.2f} nats"),
        ("log p(x|z)", f"{result['log_likelihood']:.2f} nats"),
        ("KL(q‖p)", f"{result['kl']:.2f} nats"),
        ("log p(x)", _log_marginal_text(result)),
        ("effective samples", f"{result['median_effective_sample_size']:.0f} (median){_shape_text(result)}"),
        ("active units", "unknown, of one row" if result["active_units"] is None else f"{result['active_units']}"),
        *((name, tables.findings(found)) for name, found in result.get("judges", {}).items()),
        ("time", f"{result['seconds']:.1f} s"),
    ]
