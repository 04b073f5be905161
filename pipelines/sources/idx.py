"""IDX files, MNIST's format: big-endian sizes, then bytes, integers or floats."""

import functools
import gzip
import math
import os
import re
import threading
import zlib
from typing import Any, NamedTuple

import numpy as np

from .. import contract, storage
from ..errors import PipelineError
from ..formats.arrays import check_labels, check_rows, exact_rows, layout_of
from ..formats.files import root_of
from .base import ArraySource
from .plan import Plan, Schema, class_names, concatenated, describe

_SPLITS = {"train": contract.TRAIN, "t10k": contract.TEST, "test": contract.TEST}
_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_WORDS = ("ubyte", "byte", "short", "int", "float", "double")  # what names call the types
_MAX_RANK = 8
SUFFIXES = tuple(f"idx{i}-{word}{gz}" for i in range(1, _MAX_RANK + 1) for word in _WORDS for gz in ("", ".gz"))
_NAME = re.compile(
    rf"(?:(.+)[-.])?({'|'.join(_SPLITS)})[-.](images|labels)[-.]idx\d-(?:{'|'.join(_WORDS)})(?:\.gz)?", re.IGNORECASE
)


class _Files(NamedTuple):
    """The files of a split."""

    split: str
    images: str
    labels: str | None


class Idx(ArraySource):
    """MNIST's format: ``train-images-idx3-ubyte``, ``t10k-images-idx3-ubyte`` and labels in a folder, gz or not.

    So are Fashion-MNIST, KMNIST and EMNIST (``emnist-letters-train-images-idx3-ubyte``, ``-test-``), and files whose
    names have a dot before ``idx3``. A folder holds one set; of several, a pattern names one (``emnist/*letters*``).
    Bytes `[N, H, W]` are grey images `[H, W, 1]`; other integers, which float32 must hold exactly, and floats become
    float32. EMNIST's pictures are stored with rows and columns exchanged, and are read as they are stored.

    The splits come from the file names; keys are like ``train-00000`` and ``test-00000``, numbered by
    position.
    """

    def plan(self) -> Plan:
        """See ``Source.plan``."""
        found = self._found()
        arrays = [self.arrays(files.images) for files in found]
        layouts = {layout_of(images) for images, _ in arrays}
        if len(layouts) > 1:
            shapes = ", ".join(
                f"{files.images} {x.dtype} {list(x.shape[1:])}" for files, (x, _) in zip(found, arrays, strict=True)
            )
            raise PipelineError(f"the images differ in size or type: {shapes}; expected one size and type")
        labels = [labels for _, labels in arrays if labels is not None]
        if 0 < len(labels) < len(arrays):
            raise PipelineError(f"{self.input_path} has labels for one split only: add the other label file")
        schema = Schema(*layouts.pop(), class_names(labels) if labels else None)
        names = [name for files in found for name in files[1:] if name]
        inputs = [describe(self._file(name), self._root) for name in names]
        parts = [(files.images, files.split, files.split, len(x)) for files, (x, _) in zip(found, arrays, strict=True)]
        return concatenated(schema, parts, inputs)

    def arrays(self, file: str) -> tuple[np.ndarray, np.ndarray | None]:
        """See ``ArraySource.arrays``."""
        [labels] = [files.labels for files in self._found() if files.images == file]
        return _idx_rows(self._file(file), self._file(labels) if labels else None)

    @property
    def _root(self) -> str:
        return root_of(self.input_path)

    def _file(self, name: str) -> str:
        return os.path.join(self._root, name)

    def _found(self) -> list[_Files]:
        """The files of each split, of the one set that there is."""
        found: dict[tuple[str, str, str], str] = {}
        for name in sorted(self._names()):
            if not (parts := _NAME.fullmatch(name)) or not storage.is_file(self._file(name)):
                continue
            place = (parts[1] or "", _SPLITS[parts[2].lower()], parts[3].lower())
            if place in found:
                raise PipelineError(f"{self.input_path} holds both {found[place]} and {name}: keep one of them")
            found[place] = name
        images = {place[:2]: name for place, name in found.items() if place[2] == "images"}
        if not images:
            raise PipelineError(
                f"{self.input_path} holds no train-images-idx3-ubyte[.gz] or t10k-images-idx3-ubyte[.gz]"
            )
        if len({prefix for prefix, _ in images}) > 1:
            raise PipelineError(
                f"{self.input_path} holds several sets ({', '.join(images.values())}): "
                "name one by a pattern, such as 'emnist/emnist-letters-*'"
            )
        order = list(dict.fromkeys(_SPLITS.values()))
        named = [_Files(split, name, found.get((prefix, split, "labels"))) for (prefix, split), name in images.items()]
        return sorted(named, key=lambda files: order.index(files.split))

    def _names(self) -> list[str]:
        if storage.is_folder(self.input_path):
            return [entry.name for entry in storage.entries(self.input_path)]
        if not any(letter in self.input_path for letter in "*?["):
            raise PipelineError(f"{self.input_path} is not a folder, expected one with train-images-idx3-ubyte[.gz]")
        return [os.path.relpath(path, self._root) for path in storage.matching(self.input_path)]


def _idx_rows(images: str, labels: str | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Images `[N, ...]` and labels `[N]`; the last two pairs decoded in this process are kept."""
    x = _idx(images, True)
    if x.size == 0:
        raise PipelineError(f"{images} holds no images, expected at least one with at least one pixel")
    check_rows(x, images)
    if labels is None:
        return x, None
    y = _idx(labels, False)
    if y.ndim == 1 and len(y) != len(x):
        raise PipelineError(f"{labels} holds {len(y)} labels, {images} holds {len(x)} images: expected as many")
    return x, check_labels(y, len(x), labels)


_idx_lock = threading.Lock()


def _idx(path: str, is_images: bool) -> np.ndarray:
    """A decoded IDX file, from the cache where it has not changed."""
    identity = storage.identify(path)
    with _idx_lock:  # two threads that ask for one file decode it once
        return (_decode_images if is_images else _decode_labels)(path, *identity)


def _decode_idx(path: str, _size: int, _modified: int) -> np.ndarray:
    with storage.open_to_read(path) as raw:
        try:
            return _parse_idx(gzip.GzipFile(fileobj=raw) if path.lower().endswith(".gz") else raw, path)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise PipelineError(f"{path} is broken: {error}; fetch it again") from error


@functools.lru_cache(maxsize=2)
def _decode_images(path: str, size: int, modified: int) -> np.ndarray:
    """Bytes as they are, floats, and other integers as float32, where it holds them."""
    x = _decode_idx(path, size, modified)
    if x.dtype.kind != "i" or x.size == 0 or x.ndim < 2:
        return x
    if not exact_rows(x, "float32").all():
        raise PipelineError(
            f"{path} holds {x.dtype.name} beyond 16,777,216, which float32 does not hold exactly: "
            "scale the numbers, and write them as floats"
        )
    return x.astype(np.float32)


_decode_labels = functools.lru_cache(maxsize=2)(_decode_idx)


def _parse_idx(file: Any, path: str) -> np.ndarray:
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _TYPES or not 1 <= magic[3] <= _MAX_RANK:
        raise PipelineError(
            f"{path} begins with {magic.hex(' ')}, expected 00 00, a type "
            f"({', '.join(f'{kind:02x}' for kind in _TYPES)}) and 01 to {_MAX_RANK:02x} dimensions (IDX)"
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
