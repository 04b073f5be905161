"""What comes of a rule: passed, failed or not judged, on one line."""

import dataclasses
import os
import pathlib
import stat
from collections.abc import Callable, Iterator
from typing import Any

from tfvae.pipelines import checksums, contract

_LONGEST_DETAIL = 400


@dataclasses.dataclass(frozen=True)
class Check:
    """One rule's outcome: ``passed`` is None where it could not be judged, because another failed first."""

    name: str
    passed: bool | None
    detail: str

    @property
    def result(self) -> str:
        """The outcome in a word."""
        return "not run" if self.passed is None else "ok" if self.passed else "FAILED"


def outcome(name: str, problems: list[str], detail: str) -> Check:
    """The outcome on one line; of many problems the first."""
    text = "; ".join(" ".join(problem.split()) for problem in problems)
    more = f"... ({len(problems)} in all)" if len(text) > _LONGEST_DETAIL else ""
    return Check(name, not problems, text[:_LONGEST_DETAIL] + more if problems else detail)


def unjudged(failed: list[str], name: str = "independent rows") -> Check:
    """A rule that another rule's failure leaves open."""
    return Check(name, None, f"because of: {', '.join(failed)}")


def attempt(work: Callable[[], Any], otherwise: Any) -> tuple[Any, list[str]]:
    """What the work gives and no problem, or something else and the problem."""
    try:
        return work(), []
    except (ValueError, OSError) as error:
        return otherwise, [str(error)]


def layout(folder: pathlib.Path, expected: tuple[str, ...]) -> list[str]:
    """Problems of a version's folder: the server takes whole numbers as names, and a link may leave the folder."""
    folder = folder.resolve()
    number = folder.name
    problems = [f"{name} is missing" for name in expected if not (folder / name).is_file()]
    if not (number.isascii() and number.isdecimal() and int(number) and number == str(int(number))):
        problems.append(f"the folder is named {number!r}, expected a whole number above 0")
    for path in files(folder):
        if not stat.S_ISREG(path.lstat().st_mode):
            problems.append(f"{path.relative_to(folder)} is no plain file")
    return problems or _damage(folder)


def _damage(folder: pathlib.Path) -> list[str]:
    """Which files are not as the exporter wrote them, where it left their checksums."""
    listing = folder / contract.EXTRA / contract.CHECKSUMS
    if not listing.exists():
        return []
    try:
        listed = checksums.entries(checksums.read_record(str(listing)))
    except checksums.DamagedError as error:
        return [str(error)]
    return [f"{name} is missing or damaged" for name in checksums.changed(str(folder), listed)]


def files(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Everything below but real folders; links to folders too."""
    for where, folders, names in os.walk(folder):
        yield from (pathlib.Path(where, name) for name in names)
        yield from (path for name in folders if (path := pathlib.Path(where, name)).is_symlink())
