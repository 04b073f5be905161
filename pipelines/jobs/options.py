"""Beam's own options, of which each must be one that Beam knows.

What ``pipelines.command_line`` does not know is handed on to here. A flag that Beam does not know either is an error:
Beam itself would only log a warning and run without it.
"""

import argparse
import difflib
import re
from collections.abc import Sequence
from importlib.util import find_spec

from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions, SetupOptions, StandardOptions

from ..errors import PipelineError

# Beam's DirectRunner first tries to download a Go program and falls back to this one. Naming it here means
# that a local run needs no network and is the same everywhere.
_IN_PROCESS = "FnApiRunner"

# A Flink job server takes these too; Beam's Python asks it for them only when the job is handed over.
_JOB_SERVER_OPTIONS = (
    "--number_of_execution_retries",
    "--execution_retry_delay",
    "--execution_mode_for_batch",
    "--environment_expiration_millis",
    "--max_bundle_size",
    "--max_bundle_time_mills",
    "--flink_conf_dir",
)


_OF_PREPARE = ("--categories", "--crop", "--dtype", "--label", "--resize", "--shape", "--standardize")


class Parser(argparse.ArgumentParser):
    """An argument parser without abbreviations whose errors are ``PipelineError``: one line, exit code 1."""

    def __init__(self, **arguments):
        arguments.setdefault("formatter_class", argparse.ArgumentDefaultsHelpFormatter)
        super().__init__(allow_abbrev=False, **arguments)

    def error(self, message: str):
        raise PipelineError(f"{message} (see {self.prog} --help)")


class _BeamParser(Parser):
    """Of options whose help is Beam's, and not a command's."""

    def error(self, message: str):
        wrong = re.fullmatch(r"argument (--\w+): invalid (\w+) value: (.*)", message)
        kinds = {"int": "a whole number", "float": "a number"}
        if wrong and wrong[2] in kinds:
            raise PipelineError(f"{wrong[1]} is {wrong[3]}, expected {kinds[wrong[2]]}: it is an option of Beam's")
        raise PipelineError(f"{message.removeprefix('argument ')}: it is an option of Beam's")


def _beam_parser() -> argparse.ArgumentParser:
    """Beam's own options, all of them."""
    parser = _BeamParser(prog="beam", add_help=False)
    for view in PipelineOptions.__subclasses__():
        view._add_argparse_args(parser)  # Beam has no public list of its options
    return parser


def _unknown(parser: argparse.ArgumentParser, beam_args: Sequence[str]) -> list[str]:
    """The arguments that neither Beam nor the runner they name would understand."""
    known, unknown = parser.parse_known_args(list(beam_args))
    if not unknown or _short_name(known.runner) not in ("flink", "portable"):
        return unknown
    job_server = _BeamParser(prog="job server", add_help=False)
    for flag in _JOB_SERVER_OPTIONS:
        job_server.add_argument(flag)
    return job_server.parse_known_args(unknown)[1]


def beam_options(beam_args: Sequence[str], ours: Sequence[str] = ()) -> PipelineOptions:
    """Beam's options from command-line arguments, on the in-process runner unless another is named.

    ``ours`` are the flags of the command itself, of which one may have been meant.

    Raises:
        PipelineError: An argument is unknown to Beam, or names a runner that is none, or is known to lose rows.

    Example:
        >>> beam_options(["--direct_num_workers", "2"]).view_as(StandardOptions).runner
        'FnApiRunner'
        >>> beam_options(["--direct_num_worker", "2"])  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        tfvae.pipelines.errors.PipelineError: unknown argument '--direct_num_worker', ...

        What only a Flink job server knows is taken where there is one:

        >>> flink = ["--runner", "FlinkRunner", "--number_of_execution_retries", "3"]
        >>> beam_options(flink).view_as(StandardOptions).runner
        'FlinkRunner'
        >>> beam_options(["--runner", "Flunk"])  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        tfvae.pipelines.errors.PipelineError: --runner is 'Flunk', expected one of ...
    """
    parser = _beam_parser()
    unknown = _unknown(parser, beam_args)
    if unknown:
        known = [*ours, *(flag for action in parser._actions for flag in action.option_strings)]
        name = unknown[0].split("=")[0]
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
        hint = f": did you mean {near[0]}?" if near else ""
        if name in _OF_PREPARE:
            hint = f": {name} is of prepare, whose dataset --prepared-with names, for rows to be read alike"
        if not unknown[0].startswith("-"):
            hint = ": the option before it takes no value, or no further one"
        raise PipelineError(f"unknown argument {unknown[0]!r}, neither ours nor Beam's{hint}")
    options = PipelineOptions(list(beam_args))
    _choose_runner(options.view_as(StandardOptions))
    setup = options.view_as(SetupOptions)
    setup.save_main_session = bool(setup.save_main_session)  # for Dataflow Beam sends all globals of a program else
    return options


def _short_name(runner: str | None) -> str:
    return (runner or "DirectRunner").rsplit(".", 1)[-1].lower().removesuffix("runner")


def _choose_runner(standard: StandardOptions) -> None:
    name = _short_name(standard.runner)
    if name == "dask":
        raise PipelineError("DaskRunner silently drops rows of pipelines like these: use the default or FlinkRunner")
    if name == "dataflow":
        _require_of_dataflow(standard)
    if name == "dataflow" and not _has_google():
        raise PipelineError(
            "DataflowRunner needs Google's libraries, which are not installed: pip install 'tfvae[dataflow]'"
        )
    if name in ("direct", "switchingdirect"):
        standard.runner = _IN_PROCESS
    known = sorted({_IN_PROCESS, *StandardOptions.KNOWN_RUNNER_NAMES})
    if "." not in standard.runner and name not in map(_short_name, [*known, "direct"]):
        raise PipelineError(
            f"--runner is {standard.runner!r}, expected one of {', '.join(known)}, or a class by its module and name"
        )


def _has_google() -> bool:
    return find_spec("apitools") is not None


def _region() -> str | None:
    """Where Google's own settings say that jobs run."""
    if not _has_google():
        return None
    from apache_beam.runners.dataflow.dataflow_runner import DataflowRunner  # which takes seconds

    return DataflowRunner().get_default_gcp_region()


def _require_of_dataflow(options: PipelineOptions) -> None:
    """Raises PipelineError for what Dataflow does not begin without; Beam would say so in its own words, one by one."""
    cloud = options.view_as(GoogleCloudOptions)
    missing = [] if cloud.project else ["--project"]
    missing += [] if cloud.region or _region() else ["--region"]
    missing += [] if cloud.temp_location or cloud.staging_location else ["--temp_location"]
    if missing:
        raise PipelineError(
            f"DataflowRunner needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not given: for "
            "example --project my-project --region europe-west1 --temp_location gs://my-bucket/tmp"
        )
    if not str(cloud.temp_location or cloud.staging_location).startswith("gs://"):
        place = cloud.temp_location or cloud.staging_location
        raise PipelineError(
            f"--temp_location is {place}, expected a place in Google's store, such as gs://my-bucket/tmp"
        )
