"""What was written, checked later: checksums of files, and records of them that are checked themselves.

A **record** is a JSON object that lies on the disk in one spelling and carries under ``checksum`` the SHA-256 of the
rest: whichever byte of it changes, it is noticed. Records list files, each by path, bytes and SHA-256. Those of
format version 1 have no checksum of their own.
"""

import os
from collections.abc import Iterable
from typing import Any

from . import storage
from .errors import PipelineError

CHECKSUM = "checksum"
FORMAT_VERSION = 2


class DamagedError(PipelineError):
    """A record is not as it was written."""


def record_bytes(value: dict[str, Any]) -> bytes:
    """A record of a JSON object, as it lies on the disk.

    Example:
        >>> print(record_bytes({"rows": 2}).decode(), end="")
        {
          "checksum": "e85dd99b9bea09388d8ae3f9ed48b040219ce63e8c396cf905732d7aecb999c3",
          "format_version": 2,
          "rows": 2
        }
    """
    value = {**value, "format_version": FORMAT_VERSION}
    return storage.to_json({**value, CHECKSUM: storage.fingerprint(value)}, indent=2)


def is_sealed(record: dict[str, Any]) -> bool:
    """Whether a record was written with a checksum of its own."""
    return CHECKSUM in record


def read_record(path: str) -> dict[str, Any]:
    """A record from a file, checked where it has a checksum.

    Raises:
        DamagedError: It is not as it was written, or not there.

    Example:
        >>> with storage.replacing("out/record.json", "temporary") as file:
        ...     _ = file.write(record_bytes({"rows": 2}).replace(b"2\\n}", b"3\\n}"))
        >>> read_record("out/record.json")
        Traceback (most recent call last):
            ...
        tfvae.pipelines.checksums.DamagedError: out/record.json is damaged: it is not as it was written
    """
    try:
        found = storage.read_json(path)
    except PipelineError as error:
        raise DamagedError(f"{path} is damaged: {error}") from error
    was_sealed = is_sealed(found) or found.get("format_version", 1) != 1
    rest = {name: value for name, value in found.items() if name not in (CHECKSUM, "format_version")}
    if was_sealed and storage.read(path) != record_bytes(rest):
        raise DamagedError(f"{path} is damaged: it is not as it was written")
    return found


def describe(folder: str, name: str) -> dict[str, Any]:
    """Path, bytes and SHA-256 of a file of a folder; no bytes where there is none."""
    path = os.path.join(folder, *name.split("/"))
    found = storage.size(path)
    return {"path": name, "bytes": found, "sha256": None if found is None else storage.sha256(path)}


def changed(folder: str, entries: Iterable[dict[str, Any]]) -> list[str]:
    """Of the files that a record lists those that are not as it says.

    Example:
        >>> with storage.replacing("out/rows", "temporary") as file:
        ...     _ = file.write(b"two rows")
        >>> entry = describe("out", "rows")
        >>> changed("out", [entry, entry | {"bytes": 9}, entry | {"path": "gone"}])
        ['rows', 'gone']
    """
    return [entry["path"] for entry in entries if _is_changed(folder, entry)]


def _is_changed(folder: str, entry: dict[str, Any]) -> bool:
    name = entry["path"]
    if os.path.isabs(name) or ".." in name.split("/"):  # a record of a stranger's leads nowhere
        return True
    size = storage.size(os.path.join(folder, *name.split("/")))
    return size != entry["bytes"] or describe(folder, name) != entry  # by its size at once
