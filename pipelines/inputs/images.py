"""Image files as the embedding job's input: the model decodes them, and the key is the path below the folder."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from .. import contract
from ..errors import PipelineError, Rejection, RowError
from ..formats.files import Content, Found
from ..formats.images import encoded_limit, read_encoded
from ..sources.base import MAX_PIXELS
from ..sources.images import label_names, label_of
from .base import BLOCK_BYTES, Block, BlockReference, WholeRows

UNIT_IMAGES = 1024
_SMALL, _MOST_SMALL = UNIT_IMAGES // 2, 16  # units of fewer images are joined when there are so many of them
MAX_BYTES = encoded_limit(MAX_PIXELS)  # of one file, which is read whole


@dataclasses.dataclass(frozen=True)
class Images(WholeRows):
    """PNG and JPEG files.

    A unit of work is a run of them, called after its first.

    Attributes:
        runs: The files of each unit.
        refused: Files that are not opened: links, and names that are not UTF-8.
        label: The type of the label that the output takes over, by the files' folders; None where it takes none.

    Example:
        >>> import PIL.Image
        >>> PIL.Image.new("L", (2, 2)).save("a.png")
        >>> from tfvae.pipelines.inputs import open_input
        >>> dataset = open_input("a.png")
        >>> [block] = dataset.read(dataset.blocks("all")[0])
        >>> block.keys, block.x[0][:4]
        (['a.png'], b'\\x89PNG')
    """

    runs: tuple[tuple[str, ...], ...]
    refused: tuple[Rejection, ...] = ()
    label: pa.DataType | None = None

    @property
    def rejected(self) -> Sequence[Rejection]:
        """See ``Rows.rejected``."""
        return self.refused

    def units(self) -> list[BlockReference]:
        """See ``WholeRows.units``."""
        return [BlockReference("all", run[0], 0, len(run), run) for run in self.runs]

    def files_of(self, block: BlockReference) -> Sequence[str]:
        """See ``Rows.files_of``."""
        return block.files

    def digest(self, block: BlockReference) -> Any:
        """See ``Rows.digest``."""
        files = [[file, self.contents[file].sha256] for file in block.files]
        return [*files, ["label", str(self.label)]] if self.label else files

    def continuing(self, earlier: Iterable[Mapping[str, str]]) -> "Images":
        """See ``Rows.continuing``: files that are new make units of their own, until there are many small ones."""
        stays = [tuple(unit) for unit in earlier if all(self._is(file, sha256) for file, sha256 in unit.items())]
        if sum(len(run) < _SMALL for run in stays) >= _MOST_SMALL:
            stays = [run for run in stays if len(run) >= _SMALL]
        done = {file for run in stays for file in run}
        left = [file for file in self.found.files if file not in done]
        return dataclasses.replace(self, runs=(*stays, *_runs(left)))

    def _is(self, file: str, sha256: str) -> bool:
        return file in self.contents and self.contents[file].sha256 == sha256

    def read(self, block: BlockReference) -> Iterator[Block]:
        """See ``Rows.read``. A file that cannot be read is a bad row."""
        contents: list[bytes] = []
        keys: list[str] = []
        rejected: list[Rejection] = []
        for file in block.files:
            try:
                contents.append(read_encoded(self.found.path(file), MAX_BYTES))
                self.found.note(file, contents[-1])
                keys.append(file)
            except RowError as error:
                rejected.append(Rejection(file, file, 0, str(error)))
            if sum(map(len, contents)) >= BLOCK_BYTES:
                yield self._block(keys, contents, rejected)
                contents, keys, rejected = [], [], []
        if keys or rejected:
            yield self._block(keys, contents, rejected)

    def _block(self, keys: list[str], contents: list[bytes], rejected: list[Rejection]) -> Block:
        x = np.array([*contents, None], object)[:-1]  # the None keeps NumPy from looking into equal lengths
        kept = None
        if self.label:
            names = [str(label_of(key)) for key in keys]
            values = pa.array([int(name) for name in names] if pa.types.is_integer(self.label) else names, self.label)
            kept = pa.table({contract.LABEL: values})
        return Block("", keys, x, np.zeros(len(keys), np.int64), rejected, kept, files=keys)


def open_images(
    path: str,
    found: Found,
    refused: Sequence[Rejection],
    known: Mapping[str, Content],
    keep: Sequence[str] = (),
    later: bool = False,
) -> Images:
    """Image files, each hashed but those that are known, beside those that are not to be opened.

    One that cannot be read has no checksum, and is looked at by every run. See ``Found.contents`` for ``later``.

    Raises:
        PipelineError: Something is to be kept that is no label, or there are none.
    """
    signature, runs = contract.signature(contract.EMBED, "string"), _runs(found.files)
    contents = found.contents(known, but_unreadable=True, later=found.files if later else ())
    return Images(path, (), "string", signature, contents, found, runs, tuple(refused), _label(path, found, keep))


def _label(path: str, found: Found, keep: Sequence[str]) -> pa.DataType | None:
    if not keep:
        return None
    if list(keep) != [contract.LABEL]:
        raise PipelineError(f"{path} names images, which have at most a label to keep, not {list(keep)}")
    if (names := label_names(path, found.files)) is None:
        raise PipelineError(f"{path} has no labels to keep: they are the names of folders in which the images lie")
    return pa.int64() if all(name.isascii() and name.isdigit() for name in names) else pa.string()


def _runs(files: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(files[first : first + UNIT_IMAGES]) for first in range(0, len(files), UNIT_IMAGES))
