"""What a job did as a text file of Prometheus, for the textfile collector of node_exporter.

It is written when the job is complete, whole or not at all: after one that failed it is still that of the last one that
did not, and its ``tfvae_job_finished_timestamp_seconds`` is what grows old.
"""

import collections
import json
import os
import re
import time
from collections.abc import Iterator

from .. import storage
from ..errors import PipelineError
from .commits import REJECTED
from .execution import Summary

_MOST_REASONS = 20  # each is a time series; the rest is one more
_REST = "other reasons"
_HELP = {
    "tfvae_rows": "Good rows in the output.",
    "tfvae_rows_rejected": "Rows that the output lists as rejected, by reason.",
    "tfvae_job_rows_read": "Rows that the last run read.",
    "tfvae_job_rows_written": "Good rows that the last run wrote.",
    "tfvae_job_rows_rejected": "Rows that the last run rejected.",
    "tfvae_job_units": "Units of work that the last run did.",
    "tfvae_job_damaged_files": "Files that were damaged since they were written, and that the last run made again.",
    "tfvae_job_seconds": "Wall time of the last run.",
    "tfvae_job_finished_timestamp_seconds": "When the last run ended well, since the epoch.",
}


def check(path: str | None) -> None:
    """Raise PipelineError, before a job begins, if its folder is not there."""
    if path is not None and not storage.is_folder(os.path.dirname(storage.absolute(path))):
        raise PipelineError(f"metrics_file is {path}, but {os.path.dirname(storage.absolute(path))} is no folder")


def write(path: str | None, job: str, summary: Summary) -> None:
    """Write what a job did; where there is no path, nothing.

    Args:
        path: The file, whose name ends in ``.prom`` for node_exporter.
        job: ``"prepare"`` or ``"embed"``.
        summary: What the job returned.
    """
    if path is not None:
        path = storage.absolute(path)
        with storage.replacing(path, os.path.dirname(path)) as file:
            file.write(text(job, summary, time.time()).encode("utf-8", "backslashreplace"))


def text(job: str, summary: Summary, finished: float) -> str:
    """The lines of that file; ``finished`` are seconds since the epoch."""
    values: dict[str, dict[tuple[tuple[str, str], ...], float]] = {
        "tfvae_rows": {(("split", split),): rows for split, rows in summary.rows.items()},
        "tfvae_rows_rejected": {(("reason", reason),): rows for reason, rows in _reasons(summary.output).items()},
        "tfvae_job_rows_read": {(): summary.rows_read},
        "tfvae_job_rows_written": {(): summary.rows_written},
        "tfvae_job_rows_rejected": {(): summary.rows_rejected},
        "tfvae_job_units": {(): summary.units_done},
        "tfvae_job_damaged_files": {(): len(summary.damaged)},
        "tfvae_job_seconds": {(): round(summary.seconds, 3)},
        "tfvae_job_finished_timestamp_seconds": {(): round(finished, 3)},
    }
    lines: list[str] = []
    for name, series in values.items():
        lines += [f"# HELP {name} {_HELP[name]}", f"# TYPE {name} gauge"]
        for labels, value in series.items():
            shown = (("job", job), ("output", summary.output), *labels)
            lines.append(f"{name}{{{','.join(f'{key}={_quoted(one)}' for key, one in shown)}}} {value!r}")
    return "\n".join(lines) + "\n"


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
    return f'"{escaped}"'


def _reasons(output: str) -> dict[str, int]:
    """How many rows an output rejected for each kind of reason, the most frequent first."""
    counts = collections.Counter(kind(reason) for reason in _rejected(output))
    most = dict(counts.most_common(_MOST_REASONS))
    rest = counts.total() - sum(most.values())
    return most | ({_REST: rest} if rest else {})


def _rejected(output: str) -> Iterator[str]:
    folder = os.path.join(output, REJECTED)
    for name in storage.names(folder):
        with storage.open_to_read(os.path.join(folder, name)) as file:
            for line in file:
                yield json.loads(line)["reason"]


def kind(reason: str) -> str:
    """A reason without what is the row's own: its numbers, names and places.

    Example:
        >>> kind("3 of 64 values are not finite"), kind("duplicate key, first at rows.csv:7")
        ('N of N values are not finite', 'duplicate key')
    """
    general = re.split(r": |, first ", reason)[0]
    return re.sub(r"'[^']*'|\"[^\"]*\"|\d[\d,.]*", lambda found: "N" if found[0][0].isdigit() else "'...'", general)[
        :100
    ]
