"""What a pipeline raises when it must stop, and what it keeps of a bad row.

A bad *row* never raises out of a pipeline: it is written to ``rejected/`` with its reason. What stops a job
is a file that is broken as a whole, an output directory that belongs to somebody else, or an option that
makes no sense. Those raise ``PipelineError``, whose message is one line that says what came, what was
expected and how to mend it; the commands print that line and nothing else.
"""

import dataclasses
import errno
import numbers
import re
from collections.abc import Collection
from typing import Any

_SAYING_NOTHING = ("Graph execution error", "Detected at node", "<stack traces", "File ", "Exception encountered")


_REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), ": make room and give the same command again, what is done stays"),
    **dict.fromkeys((errno.EACCES, errno.EPERM), ": let the user of this command read or write it"),
    **dict.fromkeys(
        (errno.ENOTDIR, errno.EEXIST), ": a file lies where a folder was expected, name another place or move it away"
    ),
    errno.ENAMETOOLONG: ": give it a shorter name",
    errno.EROFS: ": name a folder that can be written",
    errno.EMFILE: ": allow more open files, ulimit -n",
    errno.EIO: ": the disk or the network failed, see the system's log",
}


class PipelineError(Exception):
    """The job cannot go on. The message is for the person who started it.

    Example:
        >>> raise PipelineError("train.npy holds int64, expected uint8 or float32: convert it with .astype")
        Traceback (most recent call last):
            ...
        tfvae.pipelines.errors.PipelineError: train.npy holds int64, expected uint8 or float32: convert it with .astype
    """


class StoreError(PipelineError):
    """An object store refused, or did not answer: what lies there may be whole, and no row is bad for it."""


class HandedOver(PipelineError):
    """A job is described, for a service that does it later: only a run after that finds the output whole."""


class RowError(Exception):
    """One row is bad and the others are not. The message becomes the reason in ``rejected/``."""


@dataclasses.dataclass(frozen=True)
class Rejection:
    """A bad row: its key, the file it came from, the position in that file, and why."""

    key: str
    source: str
    position: int
    reason: str


def number(name: str, value: Any, least: float, whole: bool = True) -> Any:
    """A setting as Python's own number; PipelineError unless it is one, and a ``whole`` one, from ``least`` on.

    Example:
        >>> number("batch_size", "3", 1)
        Traceback (most recent call last):
            ...
        tfvae.pipelines.errors.PipelineError: batch_size is '3', expected a whole number, 1 or more
    """
    kind: Any = numbers.Integral if whole else numbers.Real
    if isinstance(value, bool) or not isinstance(value, kind) or not float(value) >= least:
        raise PipelineError(f"{name} is {value!r}, expected a {'whole ' * whole}number, {least:g} or more")
    own: Any = int if whole else float
    return value if type(value) in (int, float) else own(value)


def require_names(**settings: Any) -> None:
    """Raises PipelineError for a setting that is one text, or nothing of the kind, where a list of texts is expected.

    Example:
        >>> require_names(keep="label")
        Traceback (most recent call last):
            ...
        tfvae.pipelines.errors.PipelineError: keep is 'label', expected a list of names, such as ['label']
    """
    for name, value in settings.items():
        texts = list(value) if isinstance(value, Collection) and not isinstance(value, (str, bytes)) else [None]
        if not all(isinstance(text, str) for text in texts):
            raise PipelineError(f"{name} is {value!r}, expected a list of names, such as ['label']")


def in_a_line(error: BaseException, foreseen: tuple[type[BaseException], ...] = ()) -> str:
    """What a command says of an error: its sentence; with its class where nobody foresaw it.

    Example:
        >>> in_a_line(FileNotFoundError(2, "No such file or directory", "rows.csv"))
        'rows.csv: No such file or directory'
        >>> in_a_line(PipelineError("rows.csv is empty")), in_a_line(KeyError("a"))
        ('rows.csv is empty', "KeyError: 'a'")
    """
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"
        text += _REMEDIES.get(error.errno or 0, "")
    elif str(error) and isinstance(error, (PipelineError, OSError, ModuleNotFoundError, *foreseen)):
        text = str(error)
    else:
        text = f"{type(error).__name__}: {error}"
    return " ".join(text.split())


def first_line(error: Exception) -> str:
    """An error's first line that says something, at most 300 characters; TensorFlow's first ones say nothing.

    Example:
        >>> first_line(ValueError("Graph execution error:\\n\\n  a white row"))
        'a white row'
        >>> first_line(ValueError("assertion failed: [the image has shape] [8 8 3] [expected [8, 8, 1]]"))
        'the image has shape [8, 8, 3], expected [8, 8, 1]'
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith(_SAYING_NOTHING)] or lines
    return (_asserted(lines[0]) if lines else type(error).__name__)[:300]


def _asserted(line: str) -> str:
    """The sentence that the parts of an assertion of TensorFlow's make, which shows each in brackets; or the line."""
    found = re.search(r"assertion failed: \[(.*)\]", line)
    if found is None:
        return line
    words = ""
    for part in found[1].split("] ["):
        shape = re.fullmatch(r"\d+( \d+)+", part)
        comma = "," if part.startswith(("expected ", "but ")) else ""
        words += f"{comma} [{part.replace(' ', ', ')}]" if shape else f"{comma} {part}"
    return words.strip(" ,")
