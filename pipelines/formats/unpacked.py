"""Files that may be packed, by their first bytes: gzip, bzip2 and xz.

Memory is bounded, whatever a stream unpacks to. The decompressors of bzip2 and xz have no state that could be kept (see
``seekable_gzip``): they read on from where they are, and anew from the front for what lies before it.
"""

import bz2
import io
import lzma
from collections.abc import Callable
from typing import Any, BinaryIO

from .. import storage
from ..errors import PipelineError
from .seekable_gzip import SeekableUnpacked, open_gzip

_BLOCK = 1 << 16
_MEMORY = 1 << 28  # bytes that xz may take for its dictionary; its strongest preset takes a quarter


def open_unpacked(path: str) -> BinaryIO:
    """The content of a file, unpacked where it is packed, as a file that can seek.

    Reading raises ``PipelineError`` where the file is truncated or damaged.

    Example:
        >>> import bz2
        >>> with bz2.open("content.bz2", "wb") as file:
        ...     _ = file.write(bytes(range(256)))
        >>> with open_unpacked("content.bz2") as file:
        ...     file.seek(254), file.read(), file.seek(1), file.read(1)
        (254, b'\\xfe\\xff', 1, b'\\x01')
    """
    with storage.open_to_read(path) as file:
        head = file.read(6)
    if head[:2] == b"\x1f\x8b":
        return open_gzip(path)
    if head[:3] == b"BZh":
        return io.BufferedReader(_Forward(path, bz2.BZ2Decompressor), _BLOCK)
    if head == b"\xfd7zXZ\0":
        return io.BufferedReader(_Forward(path, _xz), _BLOCK)
    return storage.open_to_read(path)


def _xz() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, _MEMORY)


class _Forward(SeekableUnpacked):
    def __init__(self, path: str, decompressor: Callable[[], Any]):
        self._path, self._new, self._file = path, decompressor, storage.open_to_read(path)
        self._offset, self._state = 0, decompressor()

    def _back(self, offset: int) -> None:
        if offset < self._offset:
            self._file.seek(0)
            self._offset, self._state = 0, self._new()

    def _produce(self, limit: int) -> bytes:
        content = b""
        try:
            while not content:
                raw = b""
                if self._state.eof:
                    if not (raw := self._next_stream()):
                        return b""
                    self._state = self._new()
                elif self._state.needs_input and not (raw := self._file.read(_BLOCK)):
                    raise PipelineError(f"{self._path} is broken: it ends early; get it again")
                content = self._state.decompress(raw, limit)
        except (OSError, EOFError, lzma.LZMAError) as error:
            raise PipelineError(f"{self._path} is broken: {error}; get it again") from error
        self._offset += len(content)
        return content

    def _next_stream(self) -> bytes:
        """The beginning of what follows the end of a stream and its padding; nothing at the end of the file."""
        raw = self._state.unused_data.lstrip(b"\0")
        while not raw and (block := self._file.read(_BLOCK)):
            raw = block.lstrip(b"\0")
        return raw
