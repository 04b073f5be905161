"""IDX files, MNIST's format: a type, a rank, big-endian sizes, then bytes, integers or floats."""

import gzip
import math
import zlib
from typing import Any

import numpy as np

from .. import storage
from ..errors import PipelineError

_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
MAX_RANK = 8


def read(path: str) -> np.ndarray:
    """The array of an IDX file, in the file's own type and byte order; gzip where the name ends in ``.gz``.

    Raises:
        PipelineError: The file is broken, or no IDX file.
        OSError: It cannot be read.

    Example:
        >>> _ = open("labels-idx1-ubyte", "wb").write(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1]))
        >>> read("labels-idx1-ubyte")
        array([7, 2, 1], dtype=uint8)
    """
    with storage.open_to_read(path) as raw:
        try:
            return _parse(gzip.GzipFile(fileobj=raw) if path.lower().endswith(".gz") else raw, path)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise PipelineError(f"{path} is broken: {error}; fetch it again") from error


def _parse(file: Any, path: str) -> np.ndarray:
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _TYPES or not 1 <= magic[3] <= MAX_RANK:
        raise PipelineError(
            f"{path} begins with {magic.hex(' ') or 'nothing'}, expected 00 00, a type "
            f"({', '.join(f'{kind:02x}' for kind in _TYPES)}) and 01 to {MAX_RANK:02x} dimensions (IDX)"
        )
    dtype, rank = np.dtype(_TYPES[magic[2]]), magic[3]
    header = file.read(4 * rank)
    if len(header) < 4 * rank:
        raise PipelineError(f"{path} is truncated in its header: {4 + len(header)} bytes, expected {4 + 4 * rank}")
    shape = tuple(int(n) for n in np.frombuffer(header, ">u4"))
    expected = math.prod(shape) * dtype.itemsize
    content = _read_at_most(file, expected + 1)  # never more than the header declares: a gz may unpack to anything
    if len(content) != expected:
        has = "more" if len(content) > expected else f"{len(content):,}"
        raise PipelineError(f"{path} should hold {expected:,} bytes after its header {list(shape)}, has {has}")
    return np.frombuffer(content, dtype).reshape(shape)


def _read_at_most(file: Any, limit: int) -> bytes:
    """Reads in blocks, so that a header that lies about its size does not take the memory beforehand."""
    blocks, left = [], limit
    while left > 0 and (block := file.read(min(left, 1 << 24))):
        blocks.append(block)
        left -= len(block)
    return b"".join(blocks)
