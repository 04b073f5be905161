"""MNIST's IDX files: big-endian sizes, then bytes."""

import functools
import gzip
import os
import threading
import zlib
from typing import Any

import numpy as np

from .. import contract, storage
from ..errors import PipelineError
from .base import ArraySource
from .plan import Plan, Schema, class_names, concatenated, describe


class Idx(ArraySource):
    """MNIST's format: ``train-images-idx3-ubyte``, ``t10k-images-idx3-ubyte`` and labels in a folder, gz or not.

    The splits come from the file names; keys are like ``train-00000`` and ``test-00000``, numbered by
    position.
    """

    _SPLITS = (("train", contract.TRAIN), ("t10k", contract.TEST))

    def plan(self) -> Plan:
        """See ``Source.plan``."""
        if not storage.is_folder(self.input_path):
            raise PipelineError(f"{self.input_path} is not a folder, expected one with train-images-idx3-ubyte[.gz]")
        found = [(split, images) for stem, split in self._SPLITS if (images := self._find(stem, "images-idx3"))]
        if not found:
            raise PipelineError(
                f"{self.input_path} holds no train-images-idx3-ubyte[.gz] or t10k-images-idx3-ubyte[.gz]"
            )
        arrays = [_idx_rows(self._file(images), self._labels(images)) for _, images in found]
        if len({images.shape[1:] for images, _ in arrays}) > 1:
            shapes = ", ".join(f"{name} {list(x.shape[1:])}" for (_, name), (x, _) in zip(found, arrays, strict=True))
            raise PipelineError(f"the images differ in size: {shapes}; expected one size")
        labels = [labels for _, labels in arrays if labels is not None]
        if 0 < len(labels) < len(arrays):
            raise PipelineError(f"{self.input_path} has labels for one split only: add the other label file")
        schema = Schema((*arrays[0][0].shape[1:], 1), "uint8", class_names(labels) if labels else None)
        names = [name for _, images in found for name in (images, self._labels_name(images)) if name]
        inputs = [describe(self._file(name), self.input_path) for name in names]
        parts = [(name, split, split, len(x)) for (split, name), (x, _) in zip(found, arrays, strict=True)]
        return concatenated(schema, parts, inputs)

    def arrays(self, file: str) -> tuple[np.ndarray, np.ndarray | None]:
        """See ``ArraySource.arrays``."""
        return _idx_rows(self._file(file), self._labels(file))

    def _file(self, name: str) -> str:
        return os.path.join(self.input_path, name)

    def _find(self, stem: str, what: str) -> str | None:
        names = [f"{stem}-{what}-ubyte{suffix}" for suffix in ("", ".gz")]
        found = [name for name in names if storage.is_file(self._file(name))]
        if len(found) > 1:
            raise PipelineError(f"{self.input_path} holds both {found[0]} and {found[1]}: keep one of them")
        return found[0] if found else None

    def _labels_name(self, images: str) -> str | None:
        return self._find(images.split("-", 1)[0], "labels-idx1")

    def _labels(self, images: str) -> str | None:
        name = self._labels_name(images)
        return self._file(name) if name else None


def _idx_rows(images: str, labels: str | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Images `[N, H, W]` and labels `[N]`, uint8; the last two pairs decoded in this process are kept."""
    x = _idx(images, 3)
    if x.size == 0:
        raise PipelineError(f"{images} holds no images, expected at least one with at least one pixel")
    if labels is None:
        return x, None
    y = _idx(labels, 1)
    if len(y) != len(x):
        raise PipelineError(f"{labels} holds {len(y)} labels, {images} holds {len(x)} images: expected as many")
    return x, y


_idx_lock = threading.Lock()


def _idx(path: str, rank: int) -> np.ndarray:
    """A decoded IDX file of bytes with ``rank`` dimensions, from the cache where it has not changed."""
    identity = storage.identify(path)
    with _idx_lock:  # two threads that ask for one file decode it once
        decode = _decode_images if rank == 3 else _decode_labels
        return decode(path, rank, *identity)


def _decode_idx(path: str, rank: int, _size: int, _modified: int) -> np.ndarray:
    with storage.open_to_read(path) as raw:
        try:
            return _parse_idx(gzip.GzipFile(fileobj=raw) if path.endswith(".gz") else raw, path, rank)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise PipelineError(f"{path} is broken: {error}; fetch it again") from error


_decode_images = functools.lru_cache(maxsize=2)(_decode_idx)
_decode_labels = functools.lru_cache(maxsize=2)(_decode_idx)


def _parse_idx(file: Any, path: str, rank: int) -> np.ndarray:
    header = file.read(4 + 4 * rank)
    magic = bytes((0, 0, 8, rank))
    if header[:4] != magic:
        raise PipelineError(
            f"{path} begins with {header[:4].hex(' ')}, expected {magic.hex(' ')} (IDX, {rank}-D bytes)"
        )
    if len(header) < 4 + 4 * rank:
        raise PipelineError(f"{path} is truncated in its header: {len(header)} bytes, expected {4 + 4 * rank}")
    shape = tuple(int(n) for n in np.frombuffer(header, ">u4", rank, 4))
    expected = functools.reduce(lambda a, b: a * b, shape)
    content = _read_at_most(file, expected + 1)  # never more than the header declares: a gz may unpack to anything
    if len(content) != expected:
        has = "more" if len(content) > expected else f"{len(content):,}"
        raise PipelineError(f"{path} should hold {expected:,} bytes after its header {list(shape)}, has {has}")
    return np.frombuffer(content, np.uint8).reshape(shape)


def _read_at_most(file: Any, limit: int) -> bytes:
    """Reads in blocks, so that a header that lies about its size does not take the memory beforehand."""
    blocks, left = [], limit
    while left > 0 and (block := file.read(min(left, 1 << 24))):
        blocks.append(block)
        left -= len(block)
    return b"".join(blocks)
