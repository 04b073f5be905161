"""Archives: what is in a tar or zip file, and one member's content; nothing is ever unpacked to disk.

Names are only names here, never paths; yet a member with an absolute path or ``..`` is refused, for whoever reads the
keys of the rows may take them for paths. So are links, devices and whatever else is no plain file. Sizes are checked as
they are declared, before memory is taken, and hold: neither format's reader gives more than was declared.
"""

import functools
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable
from typing import BinaryIO, NamedTuple

from .. import storage
from ..errors import PipelineError, RowError, first_line
from .images import refuse_large
from .text import is_utf8, shown
from .unpacked import open_unpacked

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".zip")
_UNREAD = (".7z", ".rar", ".zst", ".tzst", ".lz4", ".lzma", ".lz", ".tar.z", ".cab", ".iso")
_READ = f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
_MAX_HEADER = 1 << 20  # bytes of a tar header with its extensions; names and times take a few hundred
_MAX_PADDING = 1 << 20  # bytes behind the end mark that are looked at
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}  # the others unpack without bounds


def told(names: Iterable[str]) -> str:
    """What to do with archives among names of files that are read as none, or nothing where there is none.

    Example:
        >>> told(["notes.txt", "cats.7z"])[:55]
        '; cats.7z is an archive of a kind that is not read: unp'
    """
    for name in names:
        if name.lower().endswith(_UNREAD):
            return f"; {name} is an archive of a kind that is not read: unpack it, or pack it as {_READ}"
        if name.lower().endswith(SUFFIXES):
            return f"; {name} is an archive: name it, or several by a pattern, '*{os.path.splitext(name)[1]}'"
    return ""


class Member(NamedTuple):
    """An entry of an archive: its name without ``./``, its size in bytes, why it is refused, and where it lies."""

    name: str
    size: int
    refused: str | None
    offset: int = 0


def members(path: str) -> list[Member]:
    """The members of an archive in their order, without folders.

    Raises:
        PipelineError: It is truncated or damaged.

    Example:
        >>> with zipfile.ZipFile("some.zip", "w") as archive:
        ...     archive.writestr("cat/1.png", b"content")
        ...     archive.writestr("../2.png", b"content")
        >>> [(member.name, member.refused) for member in members("some.zip")]
        [('cat/1.png', None), ('../2.png', 'the path leads out of the archive')]
    """
    if _is_zip(path):
        return [_member(entry.orig_filename, entry.file_size, zip_refusal(entry)) for entry in open_zip(path)[1]]
    return _list_tar(path, *storage.identify(path))


def open_member(path: str, limit: int) -> Callable[[int], bytes]:
    """A function from the position of a member, in ``members``, to its content.

    It raises RowError for one of more than ``limit`` bytes, or that is damaged.
    """
    listing = members(path)
    stream = None if _is_zip(path) else open_unpacked(path)

    def content(position: int) -> bytes:
        member = listing[position]
        refuse_large(member.size, limit)
        return _read_zip(path, position) if stream is None else _read_tar(stream, path, member)

    return content


def _is_zip(path: str) -> bool:
    return path.lower().endswith(".zip")


def _refusal(name: str) -> str | None:
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or ":" in parts[0]:
        return "the path is absolute"
    if ".." in parts:
        return "the path leads out of the archive"
    if not is_utf8(name):
        return "the name is not UTF-8"
    return "the path holds a line break or a zero" if set(name) & set("\n\r\0") else None


def _member(name: str, size: int, kind: str | None, offset: int = 0) -> Member:
    path = "/".join(part for part in name.split("/") if part not in ("", "."))
    path = f"/{path}" if name.startswith("/") else path
    return Member(shown(path), size, kind or _refusal(name), offset)


# Tar.


class _Headers:
    """A tar file of which headers are read: a header that claims to be huge takes no memory."""

    def __init__(self, file: BinaryIO):
        self.tell, self.seek, self._file = file.tell, file.seek, file

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _MAX_HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes, expected at most {_MAX_HEADER}")
        return self._file.read(size)


@functools.lru_cache(maxsize=64)
def _list_tar(path: str, _size: int, _modified: int) -> list[Member]:
    found = []
    with open_unpacked(path) as file:
        try:
            with tarfile.open(fileobj=_Headers(file), mode="r:") as archive:  # type: ignore[call-overload]
                while (entry := archive.next()) is not None:
                    if archive.offset <= entry.offset:
                        raise tarfile.ReadError(f"the member at byte {entry.offset} has a negative size")
                    archive.members = []  # it would keep every header that it has read
                    if not entry.isdir():
                        found.append(_member(entry.name, entry.size, _tar_kind(entry), entry.offset_data))
                end = archive.offset
        except PipelineError:
            raise
        except Exception as error:  # tarfile raises many kinds for hostile headers
            raise PipelineError(f"{path} is truncated or damaged: {first_line(error)}") from error
        # Python's reader takes a damaged header for the end.
        if file.seek(end) != end or file.read(512) != bytes(512):
            raise PipelineError(f"{path} is truncated or damaged at byte {end}: there is no member and no end mark")
        if file.read(_MAX_PADDING).strip(b"\0"):  # to the end of what is packed, where its checksum stands
            raise PipelineError(
                f"{path} goes on behind its end mark at byte {end}, as two archives that were joined do: readers stop "
                "there, so unpack them and pack all as one"
            )
    return found


def _tar_kind(entry: tarfile.TarInfo) -> str | None:
    if entry.issym() or entry.islnk():
        return "a link: links are not followed"
    return "not a plain file" if not entry.isreg() or entry.issparse() else None


def _read_tar(stream: BinaryIO, path: str, member: Member) -> bytes:
    stream.seek(member.offset)
    content = stream.read(member.size)
    if len(content) < member.size:
        raise PipelineError(f"{path} is truncated in {member.name}")
    return content


# Zip.


def open_zip(path: str) -> tuple[zipfile.ZipFile, list[zipfile.ZipInfo]]:
    """A zip file and its members in their order, without folders.

    Raises:
        PipelineError: It is truncated or damaged, or its members overlap.
    """
    return _open_zip(path, *storage.identify(path))


@functools.lru_cache(maxsize=64)
def _open_zip(path: str, _size: int, _modified: int) -> tuple[zipfile.ZipFile, list[zipfile.ZipInfo]]:
    try:
        archive = zipfile.ZipFile(storage.open_to_read(path))
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise PipelineError(f"{path} cannot be read as a zip file: {first_line(error)}") from error
    entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    if sum(entry.compress_size for entry in entries) > _size:
        raise PipelineError(f"{path} is hostile: its members overlap, so that they unpack to more than it can hold")
    return archive, entries


def zip_refusal(entry: zipfile.ZipInfo) -> str | None:
    """Why a member is not read, or None."""
    mode = entry.external_attr >> 16
    if stat.S_ISLNK(mode):
        return "a link: links are not followed"
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        return "not a plain file"
    if entry.flag_bits & 1:
        return "encrypted"
    return None if entry.compress_type in _METHODS else f"compression method {entry.compress_type}, expected deflate"


def _read_zip(path: str, position: int) -> bytes:
    archive, entries = open_zip(path)
    try:
        with archive.open(entries[position]) as file:
            content = file.read(entries[position].file_size)  # read() would first unpack all there is
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise RowError(f"cannot be unpacked: {first_line(error)}") from error
    except OSError as error:
        raise PipelineError(f"{path} cannot be read: {error.strerror or error}") from error
    if len(content) != entries[position].file_size:
        raise RowError(f"unpacks to {len(content)} bytes, expected {entries[position].file_size}")
    return content
