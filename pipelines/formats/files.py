"""The files that an input names: a file, a folder of them, or a pattern; links are not followed."""

import dataclasses
import functools
import hashlib
import os
import re
import time
import types
import urllib.parse
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, BinaryIO, NamedTuple, cast

import pyarrow as pa

from .. import storage
from ..errors import PipelineError
from .text import is_utf8

_WHOLE = re.compile(r"0|[1-9][0-9]{0,17}")
_UNSETTLED = 2_000_000_000  # nanoseconds: file systems keep times by whole seconds, or two
NULL = "__HIVE_DEFAULT_PARTITION__"  # as Hive and Spark write it
FolderValues = Mapping[str, str | int | None]
_SHARD = re.compile(r"-\d{5,}-of-\d{5,}")


class Content(NamedTuple):
    """What is in a file, and by what it is known again without being read.

    Attributes:
        sha256: The checksum of its bytes; empty of one that could not be read, or is not read yet.
        size: How many there are, where that was asked.
        modified: When it was written, in nanoseconds; None where its next change might bear the same time.
    """

    sha256: str
    size: int | None = None
    modified: int | None = None

    @property
    def is_unread(self) -> bool:
        """Whether who reads its rows is to say its checksum."""
        return not self.sha256 and self.size is not None


@dataclasses.dataclass(frozen=True)
class Found:
    """Files by their path relative to a root, which alone enters fingerprints and rejections.

    Attributes:
        root: Folder or start of all paths.
        files: Their paths below it, in sorted order.
        hidden: How many others were passed over, because their names say that they are no data.
        unread: Names of what else is there and makes no part of a row: files of other kinds, columns, arrays.
    """

    root: str
    files: tuple[str, ...]
    hidden: int = 0
    unread: tuple[str, ...] = ()

    def beside(self, names: Iterable[str], read: Collection[str | None] = ()) -> "Found":
        """The same files; of these names of columns or arrays those that are not read are unread too.

        Example:
            >>> Found("data", ("a.npz",)).beside(["x", "weight"], read=["x", "y"]).unread
            ('weight',)
        """
        more = (name for name in names if name not in read)
        return dataclasses.replace(self, unread=tuple(dict.fromkeys([*self.unread, *more])))

    @property
    def are_far(self) -> bool:
        """Whether they lie in a store."""
        return storage.is_address(self.root)

    def path(self, file: str) -> str:
        """Where a file lies."""
        return os.path.join(self.root, *file.split("/"))

    def open(self, file: str) -> BinaryIO:
        """A file, to be read."""
        return storage.open_to_read(self.path(file))

    def note(self, file: str, content: bytes) -> None:
        """Is told all bytes of a file that was read whole."""

    def folder_values(self, file: str) -> dict[str, str | int | None]:
        """See the function ``folder_values``."""
        return dict(folder_values(file))

    def contents(
        self,
        known: Mapping[str, "Content"] = types.MappingProxyType({}),
        but_unreadable: bool = False,
        later: Collection[str] = (),
    ) -> dict[str, "Content"]:
        """What is in each file; one of the size and time of a ``known`` one is not read again.

        ``but_unreadable`` ones have an empty checksum, or else raise OSError. Files that are read ``later``, in one
        piece, and are not known are unread until then, if they lie in a store and are small enough: see
        ``FetchedOnce``.

        Example:
            >>> with open("rows.bin", "wb") as file:
            ...     _ = file.write(b"two rows")
            >>> os.utime("rows.bin", (9, 9))
            >>> found = Found(".", ("rows.bin",))
            >>> found.contents()["rows.bin"][1:]
            (8, 9000000000)
            >>> found.contents({"rows.bin": Content("as before", 8, 9000000000)})["rows.bin"].sha256
            'as before'
        """

        def content(file: str) -> Content:
            try:
                return looked_at(file)
            except OSError:
                if but_unreadable:
                    return Content("")
                raise

        def looked_at(file: str) -> Content:
            identity, earlier = storage.identify(self.path(file)), known.get(file)
            if earlier and earlier[1:] == identity:
                return earlier
            settled = identity.modified < time.time_ns() - _UNSETTLED
            waits = file in wait and earlier is None and identity.size <= storage.AT_ONCE
            sha256 = "" if waits else storage.sha256(self.path(file))
            return Content(sha256, identity.size, identity.modified if settled else None)

        wait = {*later} if self.are_far else ()

        return dict(zip(self.files, storage.map_files(content, self.files, self.are_far), strict=True))


@dataclasses.dataclass(frozen=True)
class FetchedOnce(Found):
    """Small files of a store, each of which is fetched when it is opened, whole, and hashed.

    Attributes:
        sha256: The checksum of each file that was read.

    Example:
        >>> with open("rows.bin", "wb") as file:
        ...     _ = file.write(b"two rows")
        >>> found = FetchedOnce(".", ("rows.bin",), sha256={})
        >>> with found.open("rows.bin") as file:
        ...     file.read(3), found.sha256["rows.bin"][:8]
        (b'two', '5eed10e2')
    """

    sha256: dict[str, str] = dataclasses.field(kw_only=True)

    def open(self, file: str) -> BinaryIO:
        """See ``Found.open``."""
        content = storage.read(self.path(file))
        self.note(file, content)
        return cast(BinaryIO, pa.BufferReader(content))  # which gives columns without a copy

    def note(self, file: str, content: bytes) -> None:
        """See ``Found.note``."""
        self.sha256[file] = hashlib.sha256(content).hexdigest()


def folder_values(file: str) -> FolderValues:
    """The columns that the folders of a file say, as Hive writes them: ``label=3/part.parquet``; None is its null.

    Raises:
        PipelineError: Two of the folders give one column differing values.

    Example:
        >>> dict(folder_values("label=3/note=a%20b/at=__HIVE_DEFAULT_PARTITION__/part.parquet"))
        {'label': 3, 'note': 'a b', 'at': None}
    """
    return _values(file.rpartition("/")[0])


@functools.lru_cache  # of a million pictures few lie in other folders than the last one
def _values(folder: str) -> FolderValues:
    pairs = [part.split("=", 1) for part in folder.split("/") if "=" in part.strip("=")]
    said: dict[str, str] = {}
    for name, text in pairs:
        if said.setdefault(name, text) != text:
            raise PipelineError(
                f"the folders {folder} say {name!r} twice, {said[name]} and {text}: rename one of them, so that "
                f"one folder {name}=VALUE lies above a file"
            )
    return types.MappingProxyType({name: _value(text) for name, text in said.items()})


def _value(text: str) -> str | int | None:
    if text == NULL:
        return None
    return int(text) if _WHOLE.fullmatch(text) else urllib.parse.unquote(text)


def with_folders(names: Collection[str], path: str, values: Mapping[str, Any]) -> list[str]:
    """The columns of a file and those that its folders say.

    Raises:
        PipelineError: One is both.
    """
    for name, value in values.items():
        if name in names:
            raise PipelineError(
                f"{path} has a column {name!r} and lies in a folder {name}={value}: leave one of them out"
            )
    return [*names, *values]


def refuse_own_output(path: str, output: str, *written: str) -> None:
    """Raises PipelineError for an input that a job's own output would lie in, for the next run to meet it.

    A folder is refused whatever is read of it: ``embed`` could no longer say of what kind the files in it are. So is an
    input inside the output, which ``--overwrite`` could remove.

    Args:
        path: The input: a file, a folder or a pattern.
        output: Where to.
        written: Files below it, that a pattern might name.
    """
    if _lies_in(path, output):
        raise PipelineError(
            f"the input {path} lies in the output {output}, which holds what the job writes and nothing else: choose a "
            "folder beside it"
        )
    files = [os.path.join(output, name) for name in written]
    if _lies_in(output, path) if storage.is_folder(path) else any(_names(path, file) for file in files):
        raise PipelineError(
            f"the output {output} lies in the input {path}, which would read it: choose a folder beside it"
        )


def _lies_in(path: str, folder: str) -> bool:
    return path.startswith(f"{folder.rstrip('/')}/")


def _names(pattern: str, file: str) -> bool:
    return not storage.is_file(pattern) and storage.matches(file.split("/"), pattern.split("/"))


def root_of(path: str) -> str:
    """The folder to which the names of the files of an input are relative.

    Example:
        >>> root_of("data/2*/part-?.parquet")
        'data'
    """
    if storage.is_folder(path):
        return path
    fixed = path if storage.is_file(path) else path.split("*")[0].split("?")[0].split("[")[0]
    return os.path.dirname(fixed) or "."


def find_files(path: str, suffixes: tuple[str, ...], otherwise: str = "") -> Found:
    """The files with one of the suffixes that ``path`` names, in sorted order.

    A file that is named itself may have any suffix. A folder is searched with its sub-folders; names that begin with
    ``_``, and hidden ones, are other programs' notes; those with other suffixes are unread. The number of a shard,
    ``-00000-of-00010``, may follow a suffix.

    Args:
        path: A file, a folder or a pattern.
        suffixes: How the names of the files end.
        otherwise: What else ``path`` might have been, for the error.

    Raises:
        PipelineError: There is none, or one is or lies behind a link, which could lead out of the folder.

    Example:
        >>> import pathlib
        >>> for name in ("b.parquet", "a.parquet", "_SUCCESS"):
        ...     pathlib.Path(name).touch()
        >>> find_files("*.parquet", (".parquet",)).files
        ('a.parquet', 'b.parquet')
    """
    if storage.is_file(path):
        return Found(root_of(path), (os.path.basename(path),))
    found = files_with_suffix(path, suffixes)
    if not found.files:
        is_there = any(letter in path for letter in "*?[") or storage.exists(path)
        why = "" if is_there else ", nothing of that name is there"
        raise PipelineError(f"{path} names no {' or '.join(suffixes)} file{why}{otherwise}")
    return found


def files_with_suffix(path: str, suffixes: tuple[str, ...], links: bool = False) -> Found:
    """What ``find_files`` finds, and nothing where there is none; a file that is named itself needs the suffix too.

    ``links`` are listed, or else refused.
    """
    root = root_of(path)
    is_file = storage.is_file(path)
    is_folder = not is_file and storage.is_folder(path)
    if is_file:
        names = [os.path.basename(path)]
    elif is_folder:
        names = storage.files_below(path)
    else:
        names = [os.path.relpath(name, root) for name in storage.matching(path)]
    files: list[str] = []
    others: list[str] = []
    hidden = 0
    for name in sorted({name.replace(os.sep, "/") for name in names}):
        wanted = has_suffix(name, suffixes)
        if not is_file and (is_hidden(name) or (is_folder and _is_note(name))):
            hidden += wanted
        else:
            (files if wanted else others).append(name)
    for file in files if not (links or is_file) else ():
        _refuse_odd(root, file)
    return Found(root, tuple(files), hidden, tuple(others))


def owner(place: str, is_file: Callable[[str], bool]) -> str:
    """The file that a place lies in, which may be the file itself or, behind a slash, a member of it.

    Example:
        >>> owner("sub/a.npz/part/x", {"sub/a.npz"}.__contains__)
        'sub/a.npz'
    """
    parts = place.split("/")
    above = ("/".join(parts[:end]) for end in range(1, len(parts)))
    return next(filter(is_file, above), place)


def is_hidden(path: str) -> bool:
    """Whether a path says that it is no data: hidden files and folders, and a Mac's resource forks.

    Example:
        >>> [is_hidden(path) for path in ("a/1.png", "a/._1.png", ".ipynb_checkpoints/1.png", "__MACOSX/1.png")]
        [False, True, True, True]
    """
    return any((part.startswith(".") and part not in (".", "..")) or part == "__MACOSX" for part in path.split("/"))


def _is_note(path: str) -> bool:
    return any(part.startswith("_") and part != "__MACOSX" for part in path.split("/"))


def has_suffix(name: str, suffixes: tuple[str, ...]) -> bool:
    """Whether a name ends so, but for the number of a shard.

    Example:
        >>> has_suffix("rows.tfrecord-00000-of-00010", (".tfrecord",))
        True
    """
    return _SHARD.sub("", name).lower().endswith(suffixes)


def _refuse_odd(root: str, file: str) -> None:
    parts = file.split("/")
    for end in range(1, len(parts) + 1):
        link = os.path.join(root, *parts[:end])
        if storage.is_link(link):
            raise PipelineError(f"{link} is a link, and links are not followed: name the file itself")
    if storage.is_special(os.path.join(root, file)):
        raise PipelineError(
            f"{os.path.join(root, file)} is a pipe, a socket or a device, expected a file: take it away"
        )
    if not is_utf8(file):
        raise PipelineError(f"the name of {os.path.join(root, file)!a} is not UTF-8: rename the file")
