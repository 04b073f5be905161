"""IDX files, MNIST's format: big-endian sizes, then bytes, integers or floats."""

import functools
import os
import re
import threading
from typing import NamedTuple

import numpy as np

from .. import contract, storage
from ..errors import PipelineError
from ..formats import idx
from ..formats.arrays import check_labels, check_rows, exact_rows, layout_of
from ..formats.files import is_hidden, root_of
from .base import ArraySource
from .plan import Plan, Schema, class_names, concatenated, describe

_SPLITS = {"train": contract.TRAIN, "t10k": contract.TEST, "test": contract.TEST}
_WORDS = ("ubyte", "byte", "short", "int", "float", "double")  # what names call the types
SUFFIXES = tuple(f"idx{i}-{word}{gz}" for i in range(1, idx.MAX_RANK + 1) for word in _WORDS for gz in ("", ".gz"))
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

    takes = ("dtype",)
    looks_below = False

    def plan(self) -> Plan:
        """See ``Source.plan``."""
        found = self._found()
        arrays = [self.arrays(files.images) for files in found]
        layouts = {layout_of(images, self.fields.dtype) for images, _ in arrays}
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
        others = (name for name in sorted({*self._names()} - {*names}) if not is_hidden(name))
        return concatenated(schema, parts, inputs, [name for name in others if storage.is_file(self._file(name))])

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


@functools.lru_cache(maxsize=2)
def _decode_images(path: str, _size: int, _modified: int) -> np.ndarray:
    """Bytes as they are, floats, and other integers as float32, where it holds them."""
    x = idx.read(path)
    if x.dtype.kind != "i" or x.size == 0 or x.ndim < 2:
        return x
    if not exact_rows(x, "float32").all():
        raise PipelineError(
            f"{path} holds {x.dtype.name} beyond 16,777,216, which float32 does not hold exactly: "
            "scale the numbers, and write them as floats"
        )
    return x.astype(np.float32)


@functools.lru_cache(maxsize=2)
def _decode_labels(path: str, _size: int, _modified: int) -> np.ndarray:
    return idx.read(path)
