"""What is damaged of an output, made again by the command that made it, which the output remembers.

An output is mended where the input, the model and the options are those that it was made from, by their checksums; else
nothing is changed. It is read what the folder names, as its command would: a stranger's folder is verified, not mended.
"""

import dataclasses
import importlib
from collections.abc import Callable
from typing import Any

from . import checksums, contract, storage
from .checksums import DamagedError
from .errors import PipelineError
from .jobs import Generations, Progress
from .jobs.calls import checked
from .jobs.commits import Output
from .verify import Verified, verify

_MODULES = {"prepared": "preprocess", "embeddings": "embed"}
_WITH_ARTICLE = {"export": "an export", "run": "a run"}


@dataclasses.dataclass(frozen=True)
class Mended:
    """What was made again in a folder, which is sound now.

    Attributes:
        found: The folder, as it is now.
        made: The files that were made again.
        differing: Those that are sound, and have not the bytes that they had: another release or machine made them.
    """

    found: Verified
    made: tuple[str, ...] = ()
    differing: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """See ``Verified.exit_code``."""
        return self.found.exit_code

    def table(self) -> str:
        """The result for a terminal, a line an entry."""
        lines = [("made again", name) for name in self.made]
        lines += [("of other bytes", f"{name}: another release or machine made it before") for name in self.differing]
        return "\n".join([self.found.table(), *(f"{name:<16} {value}" for name, value in lines)])


def mend(path: str, progress: Progress | None = None) -> Mended:
    """Makes the damaged files of a prepared dataset or of embeddings again, and no others.

    Args:
        path: Its folder. One that was being mended when the process died is mended on.
        progress: Called with a ``pipelines.jobs.progress.State`` meanwhile.

    Raises:
        PipelineError: The folder holds neither, does not say how it was made, or was made from an input or a model that
            is not there as it was; nothing is changed then. A run and an export are not made again.

    Example:
        >>> from tfvae.pipelines import preprocess
        >>> _ = preprocess.run("digits", None, "prepared/digits")
        >>> with storage.replacing("prepared/digits/report.html", "temporary") as file:
        ...     _ = file.write(b"another report")
        >>> mend("prepared/digits").made
        ('report.html',)
    """
    folder = storage.absolute(path)
    found = _found(path, folder)
    if found and not found.damaged:
        return Mended(found)
    if found and found.kind not in _MODULES:
        raise PipelineError(
            f"{', '.join(found.damaged)} of {found.path} is damaged, and of {_WITH_ARTICLE[found.kind]} no file is "
            f"made again: {found.remedy}"
        )
    run, arguments = _call(folder)
    try:
        summary = run(**arguments, output=folder, progress=progress, mend=True)
    except PipelineError as error:
        raise PipelineError(f"{path} cannot be mended: {error}") from error
    changed = checksums.changed(found.path, found.listed) if found else []
    return Mended(verify(path), tuple(summary.damaged), tuple(changed))


def _found(path: str, folder: str) -> Verified | None:
    """What is there; None of an output that was complete once."""
    try:
        return verify(path)
    except PipelineError:
        if storage.exists(_made(folder).file(*contract.COMMAND.split("/"))):
            return None
        raise


def _made(folder: str) -> Output:
    """Where the files of an output lie."""
    grown = Generations(folder)
    return grown.generation(grown.current()) if grown.current() else Output(folder)


def _call(folder: str) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The function that made an output, and what it was given."""
    try:
        said = _made(folder).read_record(contract.COMMAND)
    except DamagedError as error:
        raise PipelineError(f"{error}: give the command that made {folder} again, which mends that too") from error
    if said is None or said.get("kind") not in _MODULES:
        raise PipelineError(f"{folder} does not say how it was made: give the command that made it again")
    run = importlib.import_module(f"{__package__}.{_MODULES[said['kind']]}").run
    return run, checked(said.get("arguments"), run)
