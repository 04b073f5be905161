"""The one door to the file system.

Whatever pipelines read or write goes through these few functions, and nothing goes round them; a test holds it. A path
is a local one or an address of an object store or of HDFS, for which the namesakes in ``pipelines.stores`` do the same.
A file appears under its final name whole or not at all: it is written beside, flushed to the disk and renamed. Two
libraries have doors of their own and are given a local folder: TensorFlow, which loads a SavedModel, and TensorFlow
Datasets.
"""

import concurrent.futures
import contextlib
import errno
import fcntl
import functools
import glob
import hashlib
import io
import json
import mmap
import os
import shutil
import stat
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO, TypeVar, cast

from . import stores
from .errors import PipelineError
from .stores import AT_ONCE as AT_ONCE
from .stores import Entry as Entry
from .stores import Identity as Identity
from .stores import hexdigest as hexdigest
from .stores import is_address as is_address
from .stores import matches as matches

_BLOCK = 1 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_LONGEST_NAME, _LONGEST_PATH = 255, 3840  # bytes; of a path Linux takes 4095, and a job's files lie below it
_READERS, _TRIAL, _WORTH_A_THREAD = 8, 4, 2e-4  # threads, files, seconds a file

_SPELLING: dict[str, Any] = {"sort_keys": True, "ensure_ascii": False, "allow_nan": False}
_ONE_LINE = json.JSONEncoder(**_SPELLING)  # made once: it costs as much as a line

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_Function = TypeVar("_Function", bound=Callable[..., Any])


def _also_in_stores(local: _Function) -> _Function:
    """The function for a path, the first argument, that is local; of a store its namesake in ``stores``."""
    there = getattr(stores, local.__name__)

    @functools.wraps(local)
    def either(path: str, *arguments: Any, **named: Any) -> Any:
        return (there if is_address(path) else local)(path, *arguments, **named)

    return cast(_Function, either)


def absolute(path: str | os.PathLike[str]) -> str:
    """A path that means the same in a worker that was started in another folder.

    Raises:
        PipelineError: It is no path, longer than file systems take, or the address of something that is neither
            mounted here nor a store.
    """
    path = path_of(path)
    if is_address(path):
        return stores.absolute(path)
    whole = os.path.abspath(path)
    longest = max(whole.split("/"), key=_bytes)
    if _bytes(longest) > _LONGEST_NAME:
        raise PipelineError(
            f"a path holds the name {longest[:40]!r}... of {_bytes(longest)} bytes, expected at most {_LONGEST_NAME}, "
            "which file systems take: give it a shorter one"
        )
    if _bytes(whole) > _LONGEST_PATH:
        raise PipelineError(
            f"the path {whole[:40]}... has {_bytes(whole):,} bytes, expected at most {_LONGEST_PATH:,}, which leaves "
            "room for names below it: choose a folder nearer to the root"
        )
    return whole


def _bytes(name: str) -> int:
    return len(os.fsencode(name))


def path_of(given: str | os.PathLike[str]) -> str:
    """A path as a string.

    Raises:
        PipelineError: It is none.
    """
    if not isinstance(given, (str, os.PathLike)) or not os.fspath(given):
        raise PipelineError(f"a path is {given!r}, expected the name of a file or a folder, such as data/mnist")
    if "\0" in os.fsdecode(given):
        raise PipelineError(f"a path is {given!r}, which holds a zero byte: no file can be called so")
    return os.fspath(given)


def refuse_other_encodings(path: str | os.PathLike[str]) -> None:
    """Raises PipelineError where TensorFlow, to which every name is UTF-8, would look elsewhere than Python does.

    So it is where the locale has another encoding, and where a name's bytes are of another.

    Example:
        >>> refuse_other_encodings("donn\\udce9es")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        tfvae.pipelines.errors.PipelineError: the path 'donn\\udce9es' is not UTF-8, ...
    """
    name = os.fspath(path)
    try:
        is_utf8 = os.fsencode(name) == name.encode()
    except UnicodeEncodeError:
        is_utf8 = False
    if not is_utf8:
        raise PipelineError(
            f"the path {name!a} is not UTF-8, as which TensorFlow reads names: set LC_ALL=C.UTF-8 in the environment, "
            "or give it another name"
        )


@_also_in_stores
def exists(path: str) -> bool:
    """Whether a file or folder lies there."""
    return os.path.exists(path)


@_also_in_stores
def is_file(path: str) -> bool:
    """Whether a plain file lies there, or a link to one."""
    return os.path.isfile(path)


@_also_in_stores
def is_folder(path: str) -> bool:
    """Whether a folder lies there, or a link to one."""
    return os.path.isdir(path)


def is_special(path: str) -> bool:
    """Whether a pipe, a socket or a device is there, which has no end or answers nobody; a store has none."""
    if is_address(path):
        return False
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


@_also_in_stores
def is_link(path: str) -> bool:
    """Whether the last part of a path is a link."""
    return os.path.islink(path)


@_also_in_stores
def identify(path: str) -> Identity:
    """Size and time of a file.

    Raises:
        OSError: It is not there.
    """
    status = os.stat(path)
    return Identity(status.st_size, status.st_mtime_ns)


@_also_in_stores
def size(path: str) -> int | None:
    """Bytes of a file, or None where there is no plain file."""
    return os.path.getsize(path) if os.path.isfile(path) else None


@_also_in_stores
def size_and_sha256(path: str, expected: int | None = None) -> tuple[int | None, str | None]:
    """Bytes of a file and their hexadecimal SHA-256; None twice where there is no plain file.

    Args:
        path: The file.
        expected: How many bytes it should have; one that has not is not read.

    Example:
        >>> with replacing("out/rows", "temporary") as file:
        ...     _ = file.write(b"two rows")
        >>> size_and_sha256("out/rows", 9), size_and_sha256("out/gone")
        ((8, None), (None, None))
    """
    found = size(path)
    return found, None if found is None or expected not in (None, found) else sha256(path)


@_also_in_stores
def names(folder: str) -> list[str]:
    """Sorted names in a folder; empty where there is no folder."""
    return sorted(os.listdir(folder)) if os.path.isdir(folder) else []


@_also_in_stores
def entries(folder: str) -> list[Entry]:
    """What a folder holds, in no order.

    Raises:
        OSError: There is no folder, or it may not be read.
    """
    with os.scandir(folder) as found:
        return [Entry(e.name, e.is_file(follow_symlinks=False), _is_folder(e), e.is_symlink()) for e in found]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


@_also_in_stores
def files_below(folder: str, but: tuple[str, ...] = ()) -> list[str]:
    """The paths, relative to a folder, of all files in it and its sub-folders; links to folders are not followed.

    Args:
        folder: Where to look.
        but: Files and folders whose names begin so are left out.

    Example:
        >>> for name in ("rows/a", "rows/more/b", "rows/_notes/c"):
        ...     with replacing(name, "temporary") as file:
        ...         _ = file.write(b"")
        >>> sorted(files_below("rows", but=("_",)))
        ['a', 'more/b']
    """
    found = []
    for where, folders, files in os.walk(folder, onerror=_unless_absent):
        folders[:] = [name for name in folders if not name.startswith(but)]
        kept = [os.path.join(where, name) for name in files if not name.startswith(but)]
        found += [os.path.relpath(path, folder) for path in kept]
    return found


def _unless_absent(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):  # a folder that may not be read would be taken for an empty one
        raise error


@_also_in_stores
def matching(pattern: str) -> list[str]:
    """The paths of all plain files that a pattern names; ``**`` is any number of folders."""
    return [path for path in glob.glob(pattern, recursive=True) if os.path.isfile(path)]


def escaped(name: str) -> str:
    """The pattern that this name alone meets.

    Example:
        >>> escaped("a[1].png")
        'a[[]1].png'
    """
    return glob.escape(name)


@_also_in_stores
def has_links(path: str) -> bool:
    """Whether other programs follow what ``point`` makes there."""
    return True


@_also_in_stores
def make_folder(path: str) -> None:
    """Makes a folder and its parents."""
    os.makedirs(path, exist_ok=True)


def refuse_file_in_the_way(path: str) -> None:
    """Raises PipelineError where an output cannot be made, since a plain file lies there or above it.

    Example:
        >>> with replacing("out/notes", "temporary") as file:
        ...     _ = file.write(b"")
        >>> refuse_file_in_the_way("out/notes/more")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        tfvae.pipelines.errors.PipelineError: the output out/notes/more cannot be made: .../notes is a file...
    """
    place = absolute(path)
    while not is_address(place) and not os.path.lexists(place) and place != os.path.dirname(place):
        place = os.path.dirname(place)
    if exists(place) and not is_folder(place):
        raise PipelineError(
            f"the output {path} cannot be made: {place} is a file, expected a folder: choose another place, or move "
            "that file away"
        )


@_also_in_stores
def remove(path: str) -> None:
    """Removes one file; it may be gone already."""
    with contextlib.suppress(FileNotFoundError):
        os.remove(path)


@_also_in_stores
def remove_folder(path: str) -> None:
    """Removes a folder and all that lies in it; it may be gone already. Links are removed and not followed."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path)


@_also_in_stores
def link(path: str, name: str) -> None:
    """Gives a file a second name, which may be there already; where the file system has no such names, a copy.

    Example:
        >>> with replacing("out/rows", "temporary") as file:
        ...     _ = file.write(b"two rows")
        >>> link("out/rows", "out/next/rows")
        >>> read("out/next/rows")
        b'two rows'
    """
    make_folder(os.path.dirname(name))
    remove(name)
    try:
        os.link(path, name)
    except OSError:  # other file systems refuse in other ways
        with replacing(name, os.path.dirname(name)) as copy, open_to_read(path) as file:
            shutil.copyfileobj(file, copy, _BLOCK)


@_also_in_stores
def point(path: str, target: str, temporary: str) -> None:
    """Makes ``path`` a link to ``target``, at once: whoever opens it sees the old target or the new one.

    Example:
        >>> for number in ("1", "2"):
        ...     make_folder(f"out/{number}")
        ...     point("out/current", number, "out/temporary")
        ...     pointed_at("out/current")
        '1'
        '2'
    """
    make_folder(temporary)
    draft = os.path.join(temporary, f"{os.path.basename(path)}-{uuid.uuid4().hex}")
    os.symlink(target, draft)
    os.replace(draft, path)


@_also_in_stores
def pointed_at(path: str) -> str | None:
    """Where a link leads, as it says it; None for what is none."""
    return os.readlink(path) if os.path.islink(path) else None


@_also_in_stores
def remove_folder_if_empty(path: str) -> None:
    """Removes a folder that holds nothing."""
    with contextlib.suppress(OSError):
        os.rmdir(path)


@_also_in_stores
def open_to_read(path: str, buffering: int = -1) -> BinaryIO:
    """A file to read, at any offset; ``buffering`` as in ``open``.

    Raises:
        OSError: It cannot be read.
    """
    return open(path, "rb", buffering)


@_also_in_stores
def read(path: str) -> bytes:
    """All bytes of a file."""
    with open_to_read(path, 0) as file:
        return file.read()


@_also_in_stores
def map_file(path: str) -> BinaryIO:
    """A file to read whose bytes are mapped, so that a seek costs nothing.

    Raises:
        OSError: It cannot be read.
    """
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size == 0:  # which cannot be mapped
            return io.BytesIO()
        return cast(BinaryIO, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


@_also_in_stores
def map_array(path: str) -> Any:
    """The array of an ``.npy`` file, mapped so that a row costs a row; nothing is unpickled.

    Raises:
        OSError, ValueError, EOFError, SyntaxError: NumPy cannot read it.
    """
    import numpy as np

    return np.load(path, mmap_mode="r", allow_pickle=False)


@_also_in_stores
def scratch(folder: str) -> BinaryIO:
    """A file without a name, to write and read back; it is gone when it is closed, or its process ends."""
    return tempfile.TemporaryFile(dir=folder)


def temporary_folder() -> contextlib.AbstractContextManager[str]:
    """A folder on this machine that is gone when the block ends.

    Example:
        >>> with temporary_folder() as folder:
        ...     names(folder)
        []
    """
    return tempfile.TemporaryDirectory()


def is_pattern(folder: str) -> bool:
    """Whether TensorFlow, which looks for a checkpoint by a pattern, finds none in a folder of that name.

    Example:
        >>> is_pattern("runs/[7]"), is_pattern("runs/*")
        (True, False)
    """
    return not set("[\\").isdisjoint(folder)  # "*" and "?" find themselves


@contextlib.contextmanager
def without_pattern(folder: str) -> Iterator[str]:
    """A folder on this machine by a name that is none: see ``is_pattern``.

    Example:
        >>> with without_pattern("runs/7/export") as name:
        ...     name
        'runs/7/export'
        >>> with without_pattern("runs [7]/export") as name:
        ...     "[" in name, os.path.realpath(name) == os.path.realpath("runs [7]/export")
        (False, True)
    """
    if not is_pattern(folder):
        yield folder
        return
    with temporary_folder() as temporary:
        name = os.path.join(temporary, "folder")
        os.symlink(os.path.abspath(folder), name)
        yield name


@_also_in_stores
@contextlib.contextmanager
def locked(path: str, wait: bool = False) -> Iterator[bool]:
    """Whether this process, and no other, holds the lock ``path`` until the block ends (or the process dies).

    Args:
        path: A folder that is there, or a file, which is made.
        wait: Until another holder lets go. False then means that the file system has no locks (NFS has none for
            folders).

    Raises:
        OSError: It cannot be opened: it is another user's, or gone.

    Example:
        >>> with locked("lock") as mine, locked("lock") as mine_again:
        ...     mine, mine_again
        (True, False)
    """
    holder = os.open(path, os.O_RDONLY if is_folder(path) else os.O_WRONLY | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(holder, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            mine = True
        except OSError:
            mine = False
        yield mine
    finally:
        os.close(holder)


def map_files(function: Callable[[_Item], _Result], files: Sequence[_Item], are_far: bool = False) -> list[_Result]:
    """What ``function`` reads of each file, in threads where they lie in a store, or the first are large to hash.

    Of small files that lie near, threads would only take the interpreter's lock from each other.

    Example:
        >>> map_files(len, ["a", "bc"])
        [1, 2]
    """
    trial = 0 if are_far else _TRIAL
    results, seconds, rest = [], [], files[trial:]
    for file in files[:trial]:
        started = time.perf_counter()
        results.append(function(file))
        seconds.append(time.perf_counter() - started)
    if not rest or (not are_far and statistics.median(seconds) < _WORTH_A_THREAD):
        return results + [function(file) for file in rest]
    with concurrent.futures.ThreadPoolExecutor(_READERS) as pool:
        return results + list(pool.map(function, rest))


@_also_in_stores
@contextlib.contextmanager
def replacing(
    path: str, temporary: str, lasting: bool = True, whole: Callable[[BinaryIO], None] | None = None
) -> Iterator[BinaryIO]:
    """A file to write that takes its final name only when the block ends well.

    Args:
        path: The final name.
        temporary: A folder on the same file system; what a killed process leaves there is not a result.
        lasting: Bring it to the disk before it has its name; a file that is never needed again need not be there.
        whole: Called with all that was written, to read it, before it has its name or is sent.

    Example:
        >>> with replacing("out/part.parquet", "out/_work/temporary") as file:
        ...     _ = file.write(b"PAR1")
        >>> read("out/part.parquet"), names("out/_work/temporary")
        (b'PAR1', [])
    """
    make_folder(temporary)
    make_folder(os.path.dirname(path))
    draft = os.path.join(temporary, f"{os.path.basename(path)}-{uuid.uuid4().hex}")
    try:
        with open(draft, "xb", _BLOCK) as file:
            yield file
            file.flush()
            if lasting:
                os.fsync(file.fileno())
        if whole:
            with open(draft, "rb", 0) as file:
                whole(file)
        os.replace(draft, path)
    except OSError as error:
        if error.errno in _FULL and error.filename is None:
            error.filename = path  # writing has no name of its own to tell
        raise
    finally:
        remove(draft)


@_also_in_stores
@contextlib.contextmanager
def local_folder(folder: str, but: tuple[str, ...] = ()) -> Iterator[str]:
    """A folder for a library with a door of its own: as it is, or a copy of one in a store, until the block ends.

    Args:
        folder: Where it lies.
        but: Files and folders whose names begin so are not copied.

    Example:
        >>> with local_folder("models/mnist/1") as folder:
        ...     folder
        'models/mnist/1'
    """
    yield folder


@_also_in_stores
@contextlib.contextmanager
def filling(folder: str) -> Iterator[str]:
    """A folder that a library with a door of its own writes to: as it is, or one whose files are sent to a store.

    Example:
        >>> with filling("models/mnist/1") as folder:
        ...     folder, is_folder(folder)
        ('models/mnist/1', True)
    """
    make_folder(folder)
    yield folder


def sha256(path: str) -> str:
    """Hexadecimal SHA-256 of a file, read in blocks."""
    with open_to_read(path) as file:
        return hexdigest(file)


def to_json(value: Any, indent: int | None = None) -> bytes:
    """The one spelling of a JSON value that is hashed and written: sorted keys, UTF-8, no NaN.

    The bytes of a name that are not UTF-8 are written as Python reads them again, lone surrogates.

    Example:
        >>> to_json(["données", "donn\\udce9es"])
        b'["donn\\xc3\\xa9es", "donn\\\\udce9es"]\\n'
    """
    encoder = _ONE_LINE if indent is None else json.JSONEncoder(**_SPELLING, indent=indent)
    return encoder.encode(value).encode(errors="backslashreplace") + b"\n"


def read_json(path: str) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        PipelineError: The file is absent, is not JSON or does not hold an object.
    """
    return read_json_and_bytes(path)[0]


def read_json_and_bytes(path: str) -> tuple[dict[str, Any], bytes]:
    """See ``read_json``, and the bytes that it was read from."""
    try:
        content = read(path)
        value = json.loads(content)
    except (OSError, ValueError, RecursionError) as error:
        raise PipelineError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise PipelineError(f"{path} holds a JSON {type(value).__name__}, expected an object")
    return value, content


def fingerprint(value: Any) -> str:
    """Hexadecimal SHA-256 of a JSON value: equal values, equal fingerprints."""
    return hashlib.sha256(to_json(value)).hexdigest()
