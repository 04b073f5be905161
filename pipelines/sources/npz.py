"""NumPy archives: the arrays of ``np.savez``, compressed or not, and Keras's datasets."""

import functools
import os
import zipfile
from collections.abc import Callable, Collection
from typing import BinaryIO, NamedTuple

import numpy as np

from .. import contract, storage
from ..errors import PipelineError, first_line
from ..formats.archives import open_zip, zip_refusal
from ..formats.arrays import check_labels, check_rows, layout_of, reading_header
from ..formats.files import find_files, is_hidden, owner, root_of
from ..formats.text import EMPTY_KEY
from .base import ArraySource, Fields
from .plan import Plan, Schema, class_names, describe, numbered
from .table_rows import TableRows

_SPLITS = contract.SPLITS
_MEDMNIST = {"train": contract.TRAIN, "val": contract.VALIDATION, "test": contract.TEST}
_MAX_RATIO = 500  # of unpacked to packed bytes: measurements and even drawings stay below, nothing but zeros do not
_SPARSE = {"data", "format", "shape"}  # what scipy.sparse.save_npz writes of every kind
_FREE_BYTES = 64 << 20  # that an array may take at any ratio
_BLOCK = 1 << 24
_HEADERS: dict[tuple[int, int], Callable[[BinaryIO], tuple[tuple[int, ...], bool, np.dtype]]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class _Part(NamedTuple):
    """Arrays of the same length in one archive, by the names of their members."""

    split: str | None
    x: str
    labels: str | None
    keys: str | None


class Npz(ArraySource):
    """An ``.npz`` archive, a folder of them, or a pattern.

    An archive holds ``x`` `[N, ...]`, and as it likes ``y``, ``label`` or ``labels`` (integers `[N]`) and ``keys`` or
    ``key`` (text or integers `[N]`); or in Keras's way ``x_train``, ``x_test`` and ``x_validation``, each with its
    ``y_train`` and ``keys_train``, which are its splits; or in MedMNIST's way ``train_images`` and ``train_labels``,
    ``val_`` and ``test_``; or one array of any name, such as ``np.savez``'s ``arr_0``. Of several archives called
    ``train.npz``, ``test.npz`` and ``validation.npz`` each is a split. Dtypes and shapes are as for ``npy``. Rows
    without keys are numbered after the split, or after the file where there are several. Other arrays are not read.
    Other names of the arrays are given as those of columns are, with ``_train`` and so on behind them or not.

    An array is unpacked into memory as a whole, in each worker process, whatever the unit takes of it; two are kept.
    Many archives with rows of one split are therefore unpacked again for every shard: make the shards large.
    """

    takes = ("key", "column", "label", "dtype", "missing")

    block_bytes = 64 << 20

    def plan(self) -> Plan:
        """See ``Source.plan``."""
        found = find_files(self.input_path, (".npz",))
        stems = {file: os.path.splitext(file)[0] for file in found.files}
        by_name = len(stems) > 1 and set(stems.values()) <= set(_SPLITS)
        rows = TableRows()
        arrays: list[tuple[np.ndarray, np.ndarray | None]] = []
        for file, stem in stems.items():
            parts = _parts(found.path(file), self.fields)
            found = found.beside(_entries(found.path(file)), [name for part in parts for name in part[1:]])
            for part in parts:
                x, labels = _load(found.path(file), part)
                arrays.append((x, labels))
                names = [stem if len(stems) > 1 else None, part.split]
                prefix = "/".join(name for name in names if name) or "row"
                keys = _keys(found.path(file), part.keys, len(x)) if part.keys else numbered(prefix, len(x))
                split = stem if by_name and part.split is None else part.split
                empty = {row: EMPTY_KEY for row, key in enumerate(keys) if not key}
                rows.add(f"{file}/{part.x}", [key or None for key in keys], np.arange(len(x)), empty, split)
        inputs = [describe(found.path(file), found.root) for file in found.files]
        return rows.plan(self._schema(arrays), inputs, found)

    def arrays(self, file: str) -> tuple[np.ndarray, np.ndarray | None]:
        """See ``ArraySource.arrays``; the file is an archive and, behind a slash, the array in it."""
        root = root_of(self.input_path)
        archive = owner(file, lambda above: storage.is_file(os.path.join(root, *above.split("/"))))
        path, name = os.path.join(root, *archive.split("/")), file[len(archive) + 1 :]
        [part] = [part for part in _parts(path, self.fields) if part.x == name]
        return _load(path, part)

    def _schema(self, arrays: list[tuple[np.ndarray, np.ndarray | None]]) -> Schema:
        layouts = {layout_of(x, self.fields.dtype) for x, _ in arrays}
        if len(layouts) > 1:
            raise PipelineError(
                f"the arrays in {self.input_path} differ: {sorted(map(str, layouts))}; expected one kind"
            )
        labels = [labels for _, labels in arrays if labels is not None]
        if 0 < len(labels) < len(arrays):
            raise PipelineError(f"{self.input_path} has labels for some of its arrays only: add the others")
        return Schema(*layouts.pop(), class_names(labels) if labels else None)


def _entries(path: str) -> dict[str, zipfile.ZipInfo]:
    """The arrays of an archive by name."""
    listing = [
        entry
        for entry in open_zip(path)[1]
        if entry.orig_filename.endswith(".npy") and not is_hidden(entry.orig_filename)
    ]
    entries = {entry.orig_filename.removesuffix(".npy"): entry for entry in listing}
    if len(entries) < len(listing):
        raise PipelineError(f"{path} holds an array twice: save it again with np.savez")
    return entries


def _parts(path: str, fields: Fields) -> list[_Part]:
    names = _entries(path)
    x = fields.column or contract.X

    def part(split: str | None) -> _Part:
        suffix = f"_{split}" if split else ""

        def one(option: str, given: str | None, *stems: str) -> str | None:
            found = [name for stem in ([given] if given else stems) if (name := stem + suffix) in names]
            if given and not found:
                raise PipelineError(f"{path} holds no array {given + suffix}, {_those(names)}: name another {option}")
            if len(found) > 1:
                raise PipelineError(f"{path} holds both {' and '.join(found)}: keep one of them, or name it: {option}")
            return found[0] if found else None

        labels = one("--label", fields.label, "y", "label", "labels")
        return _Part(split, x + suffix, labels, one("--key", fields.key, "keys", "key"))

    own: list[str | None] = [split for split in _SPLITS if f"{x}_{split}" in names]
    is_named = bool(fields.given().keys() & {"key", "column", "label"})
    medical = [] if is_named else [split for split in _MEDMNIST if f"{split}_images" in names]
    kinds = (x in names) + bool(own) + bool(medical)
    if kinds == 0 and len(names) == 1 and not is_named:
        return [_Part(None, next(iter(names)), None, None)]
    if kinds != 1:
        expected = "x, or x_train and x_test, or train_images and test_images, or one array of any name"
        expected = f"{x}, or {x}_train and {x}_test" if fields.column else expected
        if names.keys() >= _SPARSE:
            raise PipelineError(
                f"{path} is a sparse matrix of SciPy, expected arrays with every number there: save "
                "scipy.sparse.load_npz(...).toarray() by np.save, a part at a time where it is large"
            )
        raise PipelineError(
            f"{path} holds {_those(names)}, expected {expected}: --column names the array with the observations, "
            "--label and --key those with classes and keys"
        )
    if medical:
        labels = {split: name if (name := f"{split}_labels") in names else None for split in medical}
        return [_Part(_MEDMNIST[split], f"{split}_images", labels[split], None) for split in medical]
    return [part(split) for split in own or [None]]


def _those(names: Collection[str]) -> str:
    return f"the arrays {sorted(names)[:10]}"


def _load(path: str, part: _Part) -> tuple[np.ndarray, np.ndarray | None]:
    """Rows `[N, ...]` and labels `[N]`; the last two such pairs unpacked in this process are kept."""
    return _unpacked(path, part, *storage.identify(path))


@functools.lru_cache(maxsize=2)
def _unpacked(path: str, part: _Part, _size: int, _modified: int) -> tuple[np.ndarray, np.ndarray | None]:
    x = check_rows(_array(path, part.x), f"{part.x} in {path}")
    if part.labels is None:
        return x, None
    labels = _array(path, part.labels)
    labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels  # as Keras has those of CIFAR
    return x, check_labels(labels, len(x), f"{part.labels} in {path}")


def _keys(path: str, name: str, rows: int) -> list[str]:
    keys = _array(path, name)
    if keys.dtype.kind not in "USiu" or keys.shape != (rows,):
        raise PipelineError(
            f"{name} in {path} holds {keys.dtype} {list(keys.shape)}, expected text or integers, shape [{rows}]"
        )
    try:
        return [key.decode() if isinstance(key, bytes) else str(key) for key in keys.tolist()]
    except UnicodeDecodeError as error:
        raise PipelineError(f"{name} in {path} holds a key that is not UTF-8: {error}") from error


def _array(path: str, name: str) -> np.ndarray:
    """One array, unpacked. What it declares is held against the archive's directory before memory is taken."""
    entry = _entries(path)[name]
    if refusal := zip_refusal(entry):
        raise PipelineError(f"{name} in {path} is not read: {refusal}")
    if entry.file_size > max(_FREE_BYTES, _MAX_RATIO * entry.compress_size):
        raise PipelineError(
            f"{name} in {path} unpacks from {entry.compress_size:,} to {entry.file_size:,} bytes, expected at most "
            f"{_MAX_RATIO} times as much: unpack it yourself if you trust it, and use --source npy"
        )
    try:
        with open_zip(path)[0].open(entry) as file:
            return _parse(file, entry.file_size)  # type: ignore[arg-type]
    except Exception as error:  # zlib, zipfile and NumPy's parser of headers have no common class
        raise PipelineError(f"{name} in {path} cannot be read as an array: {first_line(error)}") from error


def _parse(file: BinaryIO, size: int) -> np.ndarray:
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"format {version}, expected one of {sorted(_HEADERS)}")
    with reading_header:
        shape, fortran_order, dtype = _HEADERS[version](file)
    if dtype.hasobject or dtype.kind not in "uifUS":
        why = ": objects would have to be unpickled" if dtype.hasobject else ", such as .astype('float32') gives"
        raise ValueError(f"dtype {dtype}, expected numbers or text{why}")
    count = functools.reduce(lambda a, b: a * b, shape, 1)  # in whole numbers, which do not overflow
    if min(shape, default=0) < 0 or count * dtype.itemsize != size - file.tell():
        raise ValueError(f"{dtype} {list(shape)} does not take {size - file.tell()} bytes")
    array = np.empty(count, dtype)
    raw, done = array.view(np.uint8), 0
    while block := file.read(_BLOCK):  # the last read holds the checksum against what came
        raw[done : done + len(block)] = np.frombuffer(block, np.uint8)
        done += len(block)
    if done != len(raw):
        raise ValueError(f"{done} bytes, expected {len(raw)}")
    return array.reshape(shape, order="F" if fortran_order else "C")
