"""Gzip and zlib files with random access.

Such a stream can only be read from its front, and the rows of a shard lie all over it. So the state of the decompressor
is kept every few megabytes of what it gave (some 40 kB each, one per cent of the whole), and a read begins at the state
before it. A stream is never held in memory as a whole, however large it unpacks.
"""

import abc
import bisect
import functools
import io
import os
import threading
import zlib
from typing import Any, BinaryIO

from .. import storage
from ..errors import PipelineError

_SPACING = 4 << 20  # bytes of content between two states
_BLOCK = 1 << 16
_HEADED = 47  # zlib's word for a gzip or zlib header and trailer, whose checksum it verifies


def open_gzip(path: str) -> BinaryIO:
    """The content of a gzip file, of one or several members, or of a zlib stream, as a file that can seek.

    Reading raises ``PipelineError`` where the file is truncated or damaged.

    Example:
        >>> import gzip
        >>> with gzip.open("content.gz", "wb") as file:
        ...     _ = file.write(bytes(range(256)))
        >>> with open_gzip("content.gz") as file:
        ...     file.seek(254), file.read()
        (254, b'\\xfe\\xff')
    """
    return io.BufferedReader(_Gzip(path, _states(path, *storage.identify(path))), _BLOCK)


class _States:
    """Where a file was decompressed to, and how to go on from there: ``(offset, offset in the file, decompressor)``."""

    def __init__(self) -> None:
        self._offsets = [0]
        self._states: list[tuple[int, int, Any]] = [(0, 0, None)]
        self._lock = threading.Lock()

    def before(self, offset: int) -> tuple[int, int, Any]:
        with self._lock:
            found, raw, state = self._states[bisect.bisect_right(self._offsets, offset) - 1]
            return found, raw, state and state.copy()

    def offer(self, offset: int, raw: int, state: Any) -> None:
        with self._lock:
            if offset >= self._offsets[-1] + _SPACING:
                self._offsets.append(offset)
                self._states.append((offset, raw, state.copy()))


@functools.lru_cache(maxsize=256)
def _states(path: str, size: int, modified: int) -> _States:
    return _States()


class SeekableUnpacked(io.RawIOBase):
    """What is unpacked as it is read; ``_back`` goes to the nearest known place before an offset."""

    _file: BinaryIO
    _offset: int

    def close(self) -> None:
        self._file.close()
        super().close()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._offset

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """To an offset from the front, or to the end of the content where that is before it."""
        if whence == os.SEEK_CUR:
            offset += self._offset
        elif whence != os.SEEK_SET:
            raise io.UnsupportedOperation("the end of a packed stream is not known")
        self._back(offset)
        while self._offset < offset and self._produce(min(_BLOCK, offset - self._offset)):
            pass
        return self._offset

    def readinto(self, buffer: Any) -> int:
        content = self._produce(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    @abc.abstractmethod
    def _back(self, offset: int) -> None: ...

    @abc.abstractmethod
    def _produce(self, limit: int) -> bytes:
        """The next bytes of the content, at most ``limit``; none at its end."""


class _Gzip(SeekableUnpacked):
    def __init__(self, path: str, states: _States):
        self._path, self._known = path, states
        self._file = storage.open_to_read(path)
        self._offset, self._raw, self._state = states.before(0)

    def _back(self, offset: int) -> None:
        nearest = self._known.before(offset)
        if not nearest[0] <= self._offset <= offset:
            self._offset, self._raw, self._state = nearest

    def _produce(self, limit: int) -> bytes:
        while True:
            self._file.seek(self._raw)
            raw = self._file.read(_BLOCK)
            if self._state is not None and self._state.eof:
                if not raw:
                    return b""
                padding = len(raw) - len(raw.lstrip(b"\0"))
                self._raw += padding
                self._state = self._state if padding == len(raw) else None
                continue
            if content := self._decompress(raw, limit):
                return content

    def _decompress(self, raw: bytes, limit: int) -> bytes:
        self._state = self._state or zlib.decompressobj(_HEADED)
        try:
            content = self._state.decompress(raw, limit)
        except zlib.error as error:
            raise PipelineError(f"{self._path} is broken: {error}; get it again") from error
        if not (raw or content or self._state.eof):
            raise PipelineError(f"{self._path} is broken: it ends early; get it again")
        self._raw += len(raw) - len(self._state.unused_data if self._state.eof else self._state.unconsumed_tail)
        self._offset += len(content)
        self._known.offer(self._offset, self._raw, self._state)
        return content
