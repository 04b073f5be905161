"""What was written, checked later: checksums of files, and records of them that are checked themselves.

A **record** is a JSON object that carries as ``checksum`` the SHA-256 of its own bytes, taken with zeros in that place:
whichever byte of it changes, it is noticed. Records list files, each by path, bytes and SHA-256. Those of
format version 1 have no checksum of their own.
"""

import contextlib
import hashlib
import io
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, BinaryIO

from . import storage
from .errors import PipelineError, StoreError

CHECKSUM = "checksum"
FORMAT_VERSION = 2
_NO_CHECKSUM = "0" * 64
_OWN = re.compile(rb'^  "checksum": "([0-9a-f]{64})"', re.MULTILINE)  # no text holds a line break or a bare quote

_ABSENT = (FileNotFoundError, NotADirectoryError)  # the second where a file lies in the place of its folder


class DamagedError(PipelineError):
    """A record is not as it was written."""


class AbsentError(DamagedError):
    """There is no such record."""


def record_bytes(value: dict[str, Any]) -> bytes:
    """A record of a JSON object, as it lies on the disk.

    Example:
        >>> print(record_bytes({"rows": 2}).decode(), end="")
        {
          "checksum": "df1f2f4a70af9d2adb30573066eb34021e490877fea9244b7c50edbee73ee494",
          "format_version": 2,
          "rows": 2
        }
    """
    content = storage.to_json({**value, "format_version": FORMAT_VERSION, CHECKSUM: _NO_CHECKSUM}, indent=2)
    return _with_checksum(content, hashlib.sha256(content).hexdigest().encode())


def _with_checksum(content: bytes, checksum: bytes) -> bytes:
    return _OWN.sub(b'  "checksum": "%s"' % checksum, content, count=1)


def is_sealed(record: dict[str, Any]) -> bool:
    """Whether a record was written with a checksum of its own."""
    return CHECKSUM in record


def read_record(path: str) -> dict[str, Any]:
    """A record from a file, checked where it has a checksum.

    Raises:
        DamagedError: It is not as it was written.
        AbsentError: It is not there.

    Example:
        >>> with storage.replacing("out/record.json", "temporary") as file:
        ...     _ = file.write(record_bytes({"rows": 2}).replace(b"2\\n}", b"3\\n}"))
        >>> read_record("out/record.json")
        Traceback (most recent call last):
            ...
        tfvae.pipelines.checksums.DamagedError: out/record.json is damaged: it is not as it was written
    """
    try:
        found, content = storage.read_json_and_bytes(path)
    except StoreError:
        raise
    except PipelineError as error:
        kind = AbsentError if isinstance(error.__cause__, _ABSENT) else DamagedError
        raise kind(f"{path} is damaged: {error}") from error
    is_first = found.get("format_version", 1) == 1 and not found.keys().isdisjoint(("format_version", "kind"))
    if (is_sealed(found) or not is_first) and not _is_sound(content):
        raise DamagedError(f"{path} is damaged: it is not as it was written")
    return found


def _is_sound(content: bytes) -> bool:
    own = _OWN.search(content)
    return (
        own is not None
        and hashlib.sha256(_with_checksum(content, _NO_CHECKSUM.encode())).hexdigest() == own[1].decode()
    )


def entries(record: dict[str, Any], path: str = "a record") -> list[dict[str, Any]]:
    """The files that a record lists, which lies at ``path``.

    Raises:
        DamagedError: It is no list of files; only a record without a checksum can be read and be none.
    """
    listed = record.get("files")
    kinds = {"path": str, "bytes": int, "sha256": str}
    if isinstance(listed, list) and all(
        isinstance(entry, dict) and {name: type(value) for name, value in entry.items()} == kinds for entry in listed
    ):
        return listed
    raise DamagedError(f"{path} is damaged: it lists no files")


def describe(folder: str, name: str) -> dict[str, Any]:
    """Path, bytes and SHA-256 of a file of a folder; no bytes where there is none."""
    found = storage.size_and_sha256(os.path.join(folder, *name.split("/")))
    return {"path": name, "bytes": found[0], "sha256": found[1]}


def describe_open(name: str, file: BinaryIO) -> dict[str, Any]:
    """The same of a file that is open at its begin.

    Example:
        >>> describe_open("rows", io.BytesIO(b"two rows"))["bytes"]
        8
    """
    sha256 = storage.hexdigest(file)
    return {"path": name, "bytes": file.seek(0, io.SEEK_END), "sha256": sha256}


def changed(folder: str, listed: Iterable[dict[str, Any]]) -> list[str]:
    """Of the files that a record lists those that are not as it says.

    Example:
        >>> with storage.replacing("out/rows", "temporary") as file:
        ...     _ = file.write(b"two rows")
        >>> entry = describe("out", "rows")
        >>> changed("out", [entry, entry | {"bytes": 9}, entry | {"path": "gone"}])
        ['rows', 'gone']
    """
    listed = [*listed]
    found = storage.map_files(lambda entry: _is_changed(folder, entry), listed, storage.is_address(folder))
    return [entry["path"] for entry, is_changed in zip(listed, found, strict=True) if is_changed]


def list_files(folder: str, listing: str, but: Sequence[str] = ()) -> None:
    """Writes to ``listing``, a file of the folder, a record of every other one but those named.

    Example:
        >>> with storage.replacing("listed/rows", "temporary") as file:
        ...     _ = file.write(b"two rows")
        >>> list_files("listed", "extra/checksums.json")
        >>> [entry["path"] for entry in read_record("listed/extra/checksums.json")["files"]]
        ['rows']
    """
    found = [name.replace(os.sep, "/") for name in storage.files_below(folder)]
    names = sorted(set(found) - {listing, *but})
    _write_listing(folder, listing, [describe(folder, name) for name in names])


def relist(folder: str, listing: str, name: str) -> None:
    """Enters a file that was written anew into a listing, if there is one and it is as it was written."""
    path = os.path.join(folder, *listing.split("/"))
    if not storage.exists(path):
        return
    with contextlib.suppress(DamagedError):
        others = [entry for entry in entries(read_record(path)) if entry["path"] != name]
        _write_listing(folder, listing, sorted([*others, describe(folder, name)], key=lambda entry: entry["path"]))


def _write_listing(folder: str, listing: str, files: list[dict[str, Any]]) -> None:
    path = os.path.join(folder, *listing.split("/"))
    with storage.replacing(path, os.path.dirname(path)) as file:
        file.write(record_bytes({"files": files}))


def _is_changed(folder: str, entry: dict[str, Any]) -> bool:
    name = entry["path"]
    if os.path.isabs(name) or ".." in name.split("/"):  # a record of a stranger's leads nowhere
        return True
    found = storage.size_and_sha256(os.path.join(folder, *name.split("/")), entry["bytes"])
    return found != (entry["bytes"], entry["sha256"])


def columns_sha256(manifest: Mapping[str, Any]) -> str | None:
    """What differs where columns have other names, words or units, or come in another order; None of no columns.

    Example:
        >>> columns_sha256({}), columns_sha256({"columns": [["a", None]]})[:8]
        (None, 'ee9f966f')
    """
    told = [manifest.get("columns"), manifest.get("standardized")]
    return None if told == [None, None] else hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
