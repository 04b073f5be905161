"""Numbered versions of a model: each appears whole and under a number of its own, whatever dies or runs beside it.

BASE/<version>/               a whole version; TF Serving polls BASE and serves the largest
BASE/incomplete-<version>-*/  one that is being written, or what a killed export left

A version is written under the second name and renamed; the last of its files lists the others with their checksums.
While it is written its folder is locked, and the lock dies with the process: the next export into BASE removes the
incomplete folders that nobody holds, and passes over the numbers of the others. Where the file system has no locks
nobody can tell, so nothing is removed.
"""

import contextlib
import operator
import os
import pathlib
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator

from tfvae.pipelines import checksums, storage
from tfvae.pipelines.contract import CHECKSUMS, EXTRA, LARGEST_VERSION, LITERT, SAVED_MODEL, version_number

_MODELS = (SAVED_MODEL, LITERT)
_INCOMPLETE = re.compile(r"incomplete-([0-9]+)-[a-z0-9_]{8}")  # what mkdtemp makes of the prefix


def existing(base: pathlib.Path) -> list[int]:
    """The versions in a folder, rising, as TF Serving reads their names; none where there is no folder.

    Example:
        >>> for name in ("2", "10", "notes", "incomplete-11-abcdefgh"):
        ...     pathlib.Path("model", name).mkdir(parents=True)
        >>> existing(pathlib.Path("model"))
        [2, 10]
    """
    numbers = (version_number(path.name) for path in base.iterdir()) if base.is_dir() else ()
    return sorted(number for number in numbers if number is not None)


@contextlib.contextmanager
def writing(base: pathlib.Path, version: int | None = None) -> Iterator[tuple[pathlib.Path, int]]:
    """A folder to write a version to and its number, the next by default; it gets its name if the block ends well.

    What an earlier, killed export left in ``base`` is removed first. If the block raises, this folder goes too.

    Raises:
        ValueError: If the version is no whole number from 1 to 2^63 - 1, exists already, or is being written; if
            ``base`` is a file.

    Example:
        >>> with writing(pathlib.Path("new")) as (folder, version):
        ...     _ = (folder / "saved_model.pb").write_bytes(b"")
        >>> version, existing(pathlib.Path("new"))
        (1, [1])
    """
    _check_number(version)
    try:
        base.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ValueError(f"{base} is a file, or lies in one, expected a folder for a model's versions.") from error
    with contextlib.ExitStack() as held:
        with storage.locked(str(base), wait=True) as locks_work:
            claimed = _claimed(base, remove_dead=locks_work)
            number = _choose(base, version, claimed)
            folder = pathlib.Path(tempfile.mkdtemp(prefix=f"incomplete-{number}-", dir=base))
            held.enter_context(storage.locked(str(folder)))
        try:
            yield folder, number
            checksums.list_files(str(folder), f"{EXTRA}/{CHECKSUMS}")
            folder.chmod(0o755)  # mkdtemp's folders are private, but the server runs as another user
            _sync(folder)
            with storage.locked(str(base), wait=True):
                _check_free(base, number)
                os.rename(folder, base / str(number))
            _sync_one(base)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise


@contextlib.contextmanager
def sending(base: str, version: int | None = None) -> Iterator[tuple[pathlib.Path, int]]:
    """See ``writing``: of a store, to which the files of a version that is whole are sent, its model last of all.

    A version without its model, of an export that was killed, is none; the next export removes it. Exports into one
    folder wait for one another.

    Args:
        base: The address of the model's folder.
        version: See ``writing``.
    """
    _check_number(version)
    with storage.locked(f"{base}/_lock", wait=True), storage.temporary_folder() as place:
        for half in set(_numbered(base)) - set(whole := existing_in_store(base)):
            storage.remove_folder(f"{base}/{half}")
        if version in whole:
            raise ValueError(f"Version {version} of {base} exists already: choose another number.")
        number = max(whole, default=0) + 1 if version is None else operator.index(version)
        local = pathlib.Path(place, os.path.basename(base))
        with writing(local, number) as written:
            yield written
        for name in sorted(storage.files_below(str(local / str(number))), key=lambda name: (name in _MODELS, name)):
            content = storage.open_to_read(str(local / str(number) / name))
            with content, storage.replacing(f"{base}/{number}/{name.replace(os.sep, '/')}", "") as sent:
                shutil.copyfileobj(content, sent, 1 << 20)


def existing_in_store(base: str) -> list[int]:
    """See ``existing``: the versions whose model is there, which is sent last."""
    numbers = _numbered(base)
    return [number for number in numbers if any(storage.exists(f"{base}/{number}/{file}") for file in _MODELS)]


def _numbered(base: str) -> list[int]:
    return sorted(number for name in storage.names(base) if (number := version_number(name)) is not None)


def _check_number(version: int | None) -> None:
    if version is None:
        return
    try:
        whole = 1 <= operator.index(version) <= LARGEST_VERSION and not isinstance(version, bool)
    except TypeError:
        whole = False
    if not whole:
        raise ValueError(
            f"version is {version!r}, expected a whole number from 1 to {LARGEST_VERSION}: TF Serving reads it."
        )


def _choose(base: pathlib.Path, version: int | None, claimed: set[int]) -> int:
    if version is None:
        number = max({0, *existing(base)} | claimed) + 1
        _check_number(number)
        return number
    if version in claimed:
        raise ValueError(f"Version {version} of {base} is being written by another export: choose another number.")
    _check_free(base, version)
    return operator.index(version)


def _check_free(base: pathlib.Path, version: int) -> None:
    if version in existing(base) or os.path.lexists(base / str(version)):
        raise ValueError(f"Version {version} of {base} exists already: choose another number.")


def _claimed(base: pathlib.Path, remove_dead: bool) -> set[int]:
    """The numbers of versions that are being written; folders of exports that died are removed on the way."""
    claimed = set()
    for path in base.iterdir():
        match = _INCOMPLETE.fullmatch(path.name)
        if not match or not stat.S_ISDIR(path.lstat().st_mode):
            continue
        if remove_dead and _is_dead(path):
            shutil.rmtree(path, ignore_errors=True)
        else:
            claimed.add(int(match[1]))
    return claimed


def _is_dead(folder: pathlib.Path) -> bool:
    try:
        with storage.locked(str(folder)) as mine:
            return mine
    except OSError:  # another user's, or gone
        return False


def _sync(folder: pathlib.Path) -> None:
    """Bring a tree to the disk before its name says that it is whole; a full disk may speak up only here."""
    for where, _, names in os.walk(folder):
        for name in names:
            _sync_one(pathlib.Path(where, name))
        _sync_one(pathlib.Path(where))


def _sync_one(path: pathlib.Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
