"""The door's half for object stores: ``s3://`` (any endpoint) and ``gs://``, through PyArrow's file systems; and HDFS.

Each function does what its namesake of ``pipelines.storage`` does for a local path. A store has no rename, no links
and no locks that die with their holder. So what is written lies in an unnamed local file until it is whole and is
then sent as one object, which is there whole or not at all (in HDFS, which has a rename, under another name); a link is
a small object that says where it leads; and a lock is an object that its holder writes anew every few seconds.
Credentials and endpoints come from the environment, by the names that the stores' own programs use: an address carries
none, so none is in a manifest or a message.
"""

import contextlib
import datetime
import errno
import fnmatch
import functools
import hashlib
import io
import json
import mmap
import os
import re
import shutil
import socket
import tempfile
import threading
import time
import urllib.parse
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple, cast

from . import extras
from .errors import PipelineError, StoreError
from .hdfs import Hdfs

AT_ONCE = 32 << 20  # bytes of a request, where little is asked for at a time: as many as a block of rows has
_COPIES = 4  # of whole files, which a process keeps
_BEAT, _DEAD = 5.0, 20.0  # seconds: how often the holder of a lock shows that it lives, and how long a dead one has not
_ATTEMPTS, _CONNECT, _ANSWER = 6, 10, 60  # tries of a request; seconds until it is connected, and answered
_AT_FIRST = 15  # seconds in which a request to Google's is tried again until one was answered: who is offline waits
_UPLOADS = 3  # tries of a whole file
_REFUSED = re.compile(
    r"ACCESS_DENIED|EXPIRED|INVALID_|SIGNATURE|UNAUTH|PERMISSION|KERBEROS|GSS|SASL|HTTP status 40[13]",
    re.I,
)
_MAGIC = re.compile("[*?[]")
_HELD: set[str] = set()  # locks of this process that it has not given back


class Identity(NamedTuple):
    """Bytes of a file and when it was modified, by which whoever keeps its content knows that it changed."""

    size: int
    modified: int


class Entry(NamedTuple):
    """What a folder holds under a name: a plain file, a folder, a link to one (``is_folder`` too) or something else."""

    name: str
    is_file: bool
    is_folder: bool
    is_link: bool


def is_address(path: Any) -> bool:
    """Whether it is no local path."""
    return isinstance(path, str) and "://" in path


def hexdigest(file: BinaryIO) -> str:
    """The SHA-256 of what is left to read of a file."""
    return hashlib.file_digest(cast(Any, file), "sha256").hexdigest()


def absolute(path: str) -> str:
    """See ``storage.absolute``."""
    scheme, _, rest = path.partition("://")
    bucket, _, key = rest.partition("/")
    if "@" in bucket:
        raise PipelineError(
            f"an address {scheme}://... holds a name and a password: leave them out, and give them in the environment"
        )
    if scheme not in _OPENERS or not bucket or _MAGIC.search(bucket):
        raise PipelineError(
            f"{path} is neither a local path nor s3://BUCKET/NAME, gs://BUCKET/NAME or hdfs://NAMENODE:PORT/NAME: "
            "write it so, mount it, or copy it to a file system that every worker sees"
        )
    if scheme == "hdfs" and ":" in key:
        raise PipelineError(f"{path} holds a colon, which no file of HDFS may have: give it another name")
    return "/".join([f"{scheme}://{bucket}", *filter(None, key.split("/"))])


def _library() -> Any:
    with extras.needed("pipelines"):
        from pyarrow import fs
    return fs


def _s3() -> Any:
    fs = _library()
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    scheme, _, place = endpoint.partition("://") if endpoint else ("https", "", None)
    settings: dict[str, Any] = {
        "scheme": scheme,
        "endpoint_override": place,
        "connect_timeout": _CONNECT,
        "request_timeout": _ANSWER,
        "retry_strategy": fs.AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS),
    }
    try:
        return fs.S3FileSystem(**settings, allow_delayed_open=True)  # a small file is one request, not three
    except TypeError:  # of a release of PyArrow that does not have it
        return fs.S3FileSystem(**settings)


def _gs(seconds: float | None = None) -> Any:
    settings: dict[str, Any] = {"retry_time_limit": datetime.timedelta(seconds=seconds or _ANSWER)}
    if emulator := os.environ.get("STORAGE_EMULATOR_HOST"):
        place = urllib.parse.urlsplit(emulator if "://" in emulator else f"http://{emulator}")
        settings |= {"anonymous": True, "scheme": place.scheme, "endpoint_override": place.netloc}
    return _library().GcsFileSystem(**settings)


_OPENERS: dict[str, Callable[[], Any]] = {"s3": _s3, "gs": _gs, "hdfs": Hdfs}
_OPENERS_AT_FIRST: dict[str, Callable[[], Any]] = {"gs": lambda: _gs(min(_AT_FIRST, _ANSWER))}
_answered: set[tuple[str, int]] = set()  # the stores that did so, in which process


@functools.lru_cache(maxsize=8)
def _file_system(scheme: str, process: int, has_answered: bool) -> Any:
    """One for each process: a client does not outlive a fork; and one for it until the store has answered."""
    return (_OPENERS if has_answered else _OPENERS_AT_FIRST)[scheme]()


def forget_clients() -> None:
    """Lets the next request read the environment anew."""
    _file_system.cache_clear()
    _answered.clear()


@contextlib.contextmanager
def _asking(path: str) -> Iterator[tuple[Any, str]]:
    """The file system of a path and its name there; what the store says against it is told of the path.

    Raises:
        FileNotFoundError: Nothing lies there.
        StoreError: The store refused, or did not answer.
        PipelineError: It is no address of a store.
    """
    scheme, _, name = path.partition("://")
    if scheme not in _OPENERS:
        absolute(path)  # which tells of it
    here = scheme, os.getpid()
    try:
        yield _file_system(*here, here in _answered or scheme not in _OPENERS_AT_FIRST), name.rstrip("/")
        _answered.add(here)
    except FileNotFoundError as error:
        _answered.add(here)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from error
    except (OSError, ValueError) as error:  # ValueError: what Google calls invalid; a file that PyArrow closed
        said = " ".join(str(error).split())
        remedy = "renew the credentials, or ask for the right to it" if _REFUSED.search(said) else "try again later"
        if "access token" in said:  # of credentials that are nowhere, and where no network is there to ask for them
            remedy = "see that there is a network and that credentials are named, GOOGLE_APPLICATION_CREDENTIALS"
        raise StoreError(f"{path}: the store did not do what it was asked, {remedy}: {said}") from error


def _info(path: str) -> Any:
    with _asking(path) as (files, name):
        return files.get_file_info(name)


def _below(path: str, recursive: bool = False) -> list[Any]:
    with _asking(path) as (files, name):
        return files.get_file_info(_library().FileSelector(name, allow_not_found=True, recursive=recursive))


def exists(path: str) -> bool:
    """See ``storage.exists``."""
    return _info(path).type.name != "NotFound"


def is_file(path: str) -> bool:
    """See ``storage.is_file``."""
    return _info(path).is_file


def is_folder(path: str) -> bool:
    """See ``storage.is_folder``: any name that others are below."""
    return _info(path).type.name == "Directory"


def is_link(path: str) -> bool:
    """See ``storage.is_link``: stores have none."""
    return False


def identify(path: str) -> Identity:
    """See ``storage.identify``."""
    found = _info(path)
    if not found.is_file:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    return Identity(found.size, found.mtime_ns)


def size(path: str) -> int | None:
    """See ``storage.size``."""
    found = _info(path)
    return found.size if found.is_file else None


def size_and_sha256(path: str, expected: int | None = None) -> tuple[int | None, str | None]:
    """See ``storage.size_and_sha256``: the store is asked for the size once, when the file is opened."""
    try:
        with open_to_read(path) as file:
            found = file.seek(0, os.SEEK_END)
            if expected not in (None, found):
                return found, None
            file.seek(0)
            return found, hexdigest(file)
    except FileNotFoundError:
        return None, None


def names(folder: str) -> list[str]:
    """See ``storage.names``."""
    return sorted(_held(folder))


def entries(folder: str) -> list[Entry]:
    """See ``storage.entries``."""
    return [Entry(name, is_file, not is_file, False) for name, is_file in _held(folder).items()]


def _held(folder: str) -> dict[str, bool]:
    """The names in a folder, and whether they are files; PyArrow's list of ``gs://`` lacks folders that nobody made."""
    start, held = len(_key(folder).rstrip("/")) + 1, {}
    for found in _below(folder, recursive=folder.startswith("gs://")):
        name, _, rest = found.path[start:].partition("/")
        held[name] = found.is_file and not rest
    return held


def files_below(folder: str, but: tuple[str, ...] = ()) -> list[str]:
    """See ``storage.files_below``."""
    start = len(_key(folder).rstrip("/")) + 1
    found = [info.path[start:] for info in _below(folder, recursive=True) if info.is_file]
    return [name for name in found if not any(part.startswith(but) for part in name.split("/"))] if but else found


def matching(pattern: str) -> list[str]:
    """See ``storage.matching``."""
    folder = os.path.dirname(_MAGIC.split(pattern)[0])
    parts = pattern[len(folder) + 1 :].split("/")
    hidden = () if any(part.startswith(".") for part in parts) else (".",)
    return [f"{folder}/{name}" for name in files_below(folder, hidden) if matches(name.split("/"), parts)]


def matches(path: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a path's parts match a glob pattern's; ``**`` is any number of folders.

    Example:
        >>> matches(["a", "b", "c.png"], ["**", "?.png"]), matches(["a", "c.png"], ["*.png"])
        (True, False)
    """
    if not pattern:
        return not path
    if pattern == ["**"]:
        return bool(path)
    if pattern[0] == "**":
        return any(matches(path[skip:], pattern[1:]) for skip in range(len(path) + 1))
    return bool(path) and fnmatch.fnmatchcase(path[0], pattern[0]) and matches(path[1:], pattern[1:])


def has_links(path: str) -> bool:
    """See ``storage.has_links``."""
    return False


def make_folder(path: str) -> None:
    """See ``storage.make_folder``: a store has folders where it has files."""


def remove(path: str) -> None:
    """See ``storage.remove``."""
    with contextlib.suppress(FileNotFoundError), _asking(path) as (files, name):
        files.delete_file(name)


def remove_folder(path: str) -> None:
    """See ``storage.remove_folder``."""
    if is_folder(path):
        with contextlib.suppress(FileNotFoundError), _asking(path) as (files, name):
            files.delete_dir(name)


def remove_folder_if_empty(path: str) -> None:
    """See ``storage.remove_folder_if_empty``: where a store keeps a mark of it."""
    if not names(path):
        remove_folder(path)


def link(path: str, name: str) -> None:
    """See ``storage.link``: a copy that the store makes; of HDFS this process."""
    with _asking(path) as (files, source):
        if _is_hdfs(name):
            files.copy(source, _key(name), _key(_draft(name)))
        else:
            files.copy_file(source, _key(name))


def point(path: str, target: str, temporary: str) -> None:
    """See ``storage.point``: a small file that says so."""
    _put(path, f"{target}\n".encode(), _draft(path, temporary))


def pointed_at(path: str) -> str | None:
    """See ``storage.pointed_at``."""
    found = size(path)
    return read(path).decode("utf-8", "replace").strip() if found is not None and found < AT_ONCE else None


class _Raw(io.RawIOBase):
    """A file of a store, unbuffered."""

    def __init__(self, path: str):
        self._path, self._at = path, 0
        with _asking(path) as (files, name):
            self._file = files.open_input_file(name)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def size(self) -> int:
        with _asking(self._path):
            return self._file.size()

    def readinto(self, buffer: Any) -> int:
        self._checkClosed()
        with _asking(self._path):
            if self._at >= self._file.size():
                return 0
            self._file.seek(self._at)
            count = self._file.readinto(buffer)
        self._at += count
        return count

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._checkClosed()
        with _asking(self._path):
            self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._file.size()}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def open_to_read(path: str, buffering: int = -1) -> BinaryIO:
    """See ``storage.open_to_read``."""
    raw = _Raw(path)
    block = min(AT_ONCE, max(raw.size(), io.DEFAULT_BUFFER_SIZE))  # of a small file no more memory than it has bytes
    return cast(BinaryIO, raw if buffering == 0 else io.BufferedReader(raw, max(buffering, block)))


def read(path: str) -> bytes:
    """See ``storage.read``."""
    with _asking(path) as (files, name), files.open_input_file(name) as file:
        return file.readall()


def map_file(path: str) -> BinaryIO:
    """See ``storage.map_file``: of a local copy."""
    found = identify(path)
    if found.size == 0:
        return io.BytesIO()
    return cast(BinaryIO, mmap.mmap(_copied(path, *found).fileno(), 0, access=mmap.ACCESS_READ))


def map_array(path: str) -> Any:
    """See ``storage.map_array``: of a local copy."""
    import numpy as np

    return np.load(f"/dev/fd/{_copied(path, *identify(path)).fileno()}", mmap_mode="r", allow_pickle=False)


@functools.lru_cache(maxsize=_COPIES)
def _copied(path: str, size: int, modified: int) -> BinaryIO:
    """A local copy of a file, without a name: it is gone with the process."""
    copy = tempfile.TemporaryFile()  # noqa: SIM115
    with open_to_read(path) as file:
        shutil.copyfileobj(file, copy, AT_ONCE)
    copy.seek(0)
    return copy


def scratch(folder: str) -> BinaryIO:
    """See ``storage.scratch``: on this machine."""
    return tempfile.TemporaryFile()


@contextlib.contextmanager
def local_folder(folder: str, but: tuple[str, ...] = ()) -> Iterator[str]:
    """See ``storage.local_folder``."""
    with tempfile.TemporaryDirectory() as copy:
        for name in files_below(folder, but):
            target = os.path.join(copy, *name.split("/"))
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with open_to_read(f"{folder}/{name}") as file, open(target, "xb") as mine:
                shutil.copyfileobj(file, mine, AT_ONCE)
        yield copy


@contextlib.contextmanager
def filling(folder: str) -> Iterator[str]:
    """See ``storage.filling``."""
    with tempfile.TemporaryDirectory() as draft:
        yield draft
        for where, _, files in os.walk(draft):
            for file in sorted(files):
                path = os.path.join(where, file)
                with open(path, "rb") as content, replacing(f"{folder}/{os.path.relpath(path, draft)}", "") as sent:
                    shutil.copyfileobj(content, sent, AT_ONCE)


@contextlib.contextmanager
def replacing(
    path: str, temporary: str, lasting: bool = True, whole: Callable[[BinaryIO], None] | None = None
) -> Iterator[BinaryIO]:
    """See ``storage.replacing``: whole in an unnamed local file, then sent."""
    with tempfile.TemporaryFile() as draft:
        yield cast(BinaryIO, draft)
        draft.flush()
        if whole:
            draft.seek(0)
            whole(cast(BinaryIO, draft))
        has_content = os.fstat(draft.fileno()).st_size > 0  # else it cannot be mapped
        content = mmap.mmap(draft.fileno(), 0, access=mmap.ACCESS_READ) if has_content else b""
        _put(path, content, _draft(path, temporary))


def _put(path: str, content: Any, draft: str) -> None:
    """Sends a file in one call: one that was not sent to its end does not come to be, in HDFS but as a draft."""
    with _asking(path) as (files, name):
        if _is_hdfs(path):
            files.put(name, content, _key(draft))
        else:
            _send(files, name, content)


def _send(files: Any, name: str, content: Any) -> None:
    """Sends an object, anew where the client cannot go on.

    As after an upload that the store has forgotten, which may be when its last answer was lost, or of which the two
    count the bytes differently.
    """
    for left in reversed(range(_UPLOADS)):
        try:
            stream = files.open_output_stream(name)
            stream.write(content)
            stream.close()
            return
        except (FileNotFoundError, ValueError) as error:
            if not left:
                raise OSError(f"there is no such bucket, or the upload was lost {_UPLOADS} times: {error}") from error


def _draft(path: str, temporary: str = "") -> str:
    """Another name for a file that is being written; see ``storage.replacing``."""
    return f"{temporary or os.path.dirname(path)}/{os.path.basename(path)}-{uuid.uuid4().hex}"


def _is_hdfs(path: str) -> bool:
    return path.startswith("hdfs://")


def _key(path: str) -> str:
    """What a file system calls an address."""
    return path.partition("://")[2]


@contextlib.contextmanager
def locked(path: str, wait: bool = False) -> Iterator[bool]:
    """See ``storage.locked``: the lock is held by whoever wrote a file below it and saw no other's.

    A store that shows what was written to all who ask afterwards, as S3 and GCS do, never shows it to be free to two at
    once. A holder that died on this machine holds nothing; one elsewhere nothing any more when it was still for 20
    seconds.
    """
    mine, ended = f"{path}/{uuid.uuid4().hex}", threading.Event()
    beating = threading.Thread(target=_beat, args=(mine, ended), daemon=True)
    _HELD.add(mine)
    try:
        _show_life(mine, 0)
    except FileNotFoundError:
        _show_life(mine, 0)
    beating.start()
    try:
        is_mine = _is_free_but_for(path, mine)
        while wait and not is_mine:
            time.sleep(_BEAT)
            is_mine = _is_free_but_for(path, mine)
        yield is_mine
    finally:
        ended.set()
        beating.join()
        _HELD.discard(mine)
        with contextlib.suppress(StoreError):  # it is still from now on
            remove(mine)


def _show_life(lock: str, beat: int) -> None:
    """Writes a lock; ``FileNotFoundError`` where another, who thought that it was a dead one's, removed the draft."""
    content = json.dumps({"host": socket.gethostname(), "process": os.getpid(), "beat": beat}).encode()
    _put(lock, content, _draft_of_lock(lock))


def _draft_of_lock(lock: str) -> str:
    return f"{os.path.dirname(lock)}/.{os.path.basename(lock)}"


def _beat(lock: str, ended: threading.Event) -> None:
    beat = 0
    while not ended.wait(_BEAT):
        beat += 1
        with contextlib.suppress(StoreError, FileNotFoundError):  # the next one may come through
            _show_life(lock, beat)


def _is_free_but_for(path: str, mine: str) -> bool:
    """Whether nobody else holds the lock; what the dead have left is removed."""
    others = {f"{path}/{name.lstrip('.')}" for name in names(path)} - {mine}
    for other in sorted(others):
        if _lives(other):
            return False
        remove(other)
        if _is_hdfs(path):
            remove(_draft_of_lock(other))
    return True


def _lives(lock: str) -> bool:
    """Whether the holder of a lock does something, as far as anybody can see."""
    try:
        first = read(lock)
        holder = json.loads(first)
        if holder["host"] == socket.gethostname():
            with contextlib.suppress(PermissionError):  # another user's
                os.kill(holder["process"], 0)
            if holder["process"] == os.getpid():
                return lock in _HELD
        until = time.monotonic() + _DEAD
        while time.monotonic() < until:
            time.sleep(_BEAT / 5)
            if read(lock) != first:
                return True
    except (FileNotFoundError, ProcessLookupError):
        pass
    return False
