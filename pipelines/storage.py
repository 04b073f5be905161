"""The one door to the file system.

Both pipelines read and write through these few functions, so that another file system (Beam's
``FileSystems``, say) needs a change here and nowhere else. A file appears under its final name whole or not
at all: it is written beside, flushed to the disk and renamed.
"""

import concurrent.futures
import contextlib
import hashlib
import json
import os
import statistics
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO, TypeVar

from pipelines.errors import PipelineError

_BLOCK = 1 << 20
_READERS, _TRIAL, _WORTH_A_THREAD = 8, 64, 2e-4  # threads, files, seconds a file

_Result = TypeVar("_Result")


def absolute(path: str) -> str:
    """A path that means the same in a worker that was started in another folder.

    Raises:
        PipelineError: It is the address of a file system that is not mounted here.
    """
    if "://" in path:
        raise PipelineError(f"{path} is not a local path: mount it, or copy it to a file system that every worker sees")
    return os.path.abspath(path)


def exists(path: str) -> bool:
    """Whether a file or folder lies there."""
    return os.path.exists(path)


def size(path: str) -> int | None:
    """Bytes of a file, or None where there is no plain file."""
    return os.path.getsize(path) if os.path.isfile(path) else None


def names(folder: str) -> list[str]:
    """Sorted names in a folder; empty where there is no folder."""
    return sorted(os.listdir(folder)) if os.path.isdir(folder) else []


def make_folder(path: str) -> None:
    """Makes a folder and its parents."""
    os.makedirs(path, exist_ok=True)


def remove(path: str) -> None:
    """Removes one file; it may be gone already."""
    with contextlib.suppress(FileNotFoundError):
        os.remove(path)


def remove_folder_if_empty(path: str) -> None:
    """Removes a folder that holds nothing."""
    with contextlib.suppress(OSError):
        os.rmdir(path)


def read(path: str) -> bytes:
    """All bytes of a file."""
    with open(path, "rb", buffering=0) as file:
        return file.read()


def of_each(function: Callable[[str], _Result], files: Sequence[str]) -> list[_Result]:
    """What ``function`` reads of each file, in threads where the first files take long: far away, or large to hash.

    Of small files that lie near, threads would only take the interpreter's lock from each other.

    Example:
        >>> of_each(len, ["a", "bc"])
        [1, 2]
    """
    results, seconds, rest = [], [], files[_TRIAL:]
    for file in files[:_TRIAL]:
        started = time.perf_counter()
        results.append(function(file))
        seconds.append(time.perf_counter() - started)
    if not rest or statistics.median(seconds) < _WORTH_A_THREAD:
        return results + [function(file) for file in rest]
    with concurrent.futures.ThreadPoolExecutor(_READERS) as pool:
        return results + list(pool.map(function, rest))


@contextlib.contextmanager
def replacing(path: str, temporary: str) -> Iterator[BinaryIO]:
    """A file to write that takes its final name only when the block ends well.

    Args:
        path: The final name.
        temporary: A folder on the same file system; what a killed process leaves there is not a result.

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
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        remove(draft)


def sha256(path: str) -> str:
    """Hexadecimal SHA-256 of a file, read in blocks."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def to_json(value: Any, indent: int | None = None) -> bytes:
    """The one spelling of a JSON value that is hashed and written: sorted keys, UTF-8, no NaN."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, indent=indent)
    return text.encode() + b"\n"


def read_json(path: str) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        PipelineError: The file is absent, is not JSON or does not hold an object.
    """
    try:
        value = json.loads(read(path))
    except (OSError, ValueError, RecursionError) as error:
        raise PipelineError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise PipelineError(f"{path} holds a JSON {type(value).__name__}, expected an object")
    return value


def fingerprint(value: Any) -> str:
    """Hexadecimal SHA-256 of a JSON value: equal values, equal fingerprints."""
    return hashlib.sha256(to_json(value)).hexdigest()
