"""NumPy's own files: one array, or a folder of splits."""

import os

import numpy as np

from .. import contract, storage
from ..errors import PipelineError
from ..formats.arrays import check_labels, check_rows, layout_of, load_npy
from ..formats.files import is_hidden
from .base import ArraySource
from .plan import Plan, Schema, class_names, concatenated, describe


class Npy(ArraySource):
    """An ``.npy`` file `[N, ...]` of uint8, float32 or float64 (which becomes float32), or a folder of them.

    A folder holds ``train.npy`` and, as it likes, ``test.npy`` and ``validation.npy``, which are its
    splits, each with a ``train_labels.npy`` beside it (integers `[N]`). uint8 `[N, H, W]` is read as grey
    images `[H, W, 1]`.
    """

    _SPLITS = contract.SPLITS
    takes = ("dtype", "missing")
    looks_below = False

    def plan(self) -> Plan:
        """See ``Source.plan``."""
        found = self._files()
        arrays = [_npy(self._file(name)) for _, name in found]
        schemas = {layout_of(array, self.fields.dtype) for array in arrays}
        if len(schemas) > 1:
            raise PipelineError(
                f"the arrays in {self.input_path} differ: {sorted(map(str, schemas))}; expected one kind"
            )
        labels = [
            y for (_, name), x in zip(found, arrays, strict=True) if (y := self._labels(name, len(x))) is not None
        ]
        if 0 < len(labels) < len(found):
            raise PipelineError(f"{self.input_path} has labels for some splits only: add the others")
        shape, dtype = schemas.pop()
        schema = Schema(shape, dtype, class_names(labels) if labels else None)
        names = [name for _, name in found] + [own for _, name in found if (own := self._labels_name(name))]
        inputs = [describe(self._file(name), self._root) for name in names]
        parts = [(name, split or "row", split, len(x)) for (split, name), x in zip(found, arrays, strict=True)]
        others = () if storage.is_file(self.input_path) else sorted({*self._names().values()} - {*names})
        return concatenated(schema, parts, inputs, [name for name in others if not is_hidden(name)])

    def arrays(self, file: str) -> tuple[np.ndarray, np.ndarray | None]:
        """See ``ArraySource.arrays``."""
        array = _npy(self._file(file))
        return array, self._labels(file, len(array))

    @property
    def _root(self) -> str:
        return self.input_path if storage.is_folder(self.input_path) else os.path.dirname(self.input_path) or "."

    def _file(self, name: str) -> str:
        return os.path.join(self._root, name)

    def _files(self) -> list[tuple[str | None, str]]:
        if storage.is_file(self.input_path):
            return [(None, os.path.basename(self.input_path))]
        names = self._names()
        found: list[tuple[str | None, str]] = [
            (split, names[f"{split}.npy"]) for split in self._SPLITS if f"{split}.npy" in names
        ]
        if not found:
            raise PipelineError(f"{self.input_path} is neither an .npy file nor a folder with a train.npy")
        return found

    def _names(self) -> dict[str, str]:
        """The files of the folder by their names in small letters."""
        if not storage.is_folder(self.input_path):
            return {}
        return {entry.name.lower(): entry.name for entry in storage.entries(self.input_path) if not entry.is_folder}

    def _labels_name(self, name: str) -> str | None:
        return self._names().get(name.lower().removesuffix(".npy") + "_labels.npy")

    def _labels(self, name: str, rows: int) -> np.ndarray | None:
        if (labels := self._labels_name(name)) is None:
            return None
        return check_labels(load_npy(self._file(labels)), rows, self._file(labels))


def _npy(path: str) -> np.ndarray:
    return check_rows(load_npy(path), path)
