"""Image files as the embedding job's input: the model decodes them, and the key is the path below the folder."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from .. import contract, storage
from ..errors import PipelineError, Rejection
from ..formats.files import Found
from .base import BLOCK_BYTES, Block, BlockReference, WholeRows

UNIT_IMAGES = 1024
MAX_BYTES = 1 << 28  # of one file, which is read whole


@dataclasses.dataclass(frozen=True)
class Images(WholeRows):
    """PNG and JPEG files.

    A unit of work is a run of them, called after its first.

    Attributes:
        refused: Files that are not opened: links, and names that are not UTF-8.

    Example:
        >>> import PIL.Image
        >>> PIL.Image.new("L", (2, 2)).save("a.png")
        >>> from tfvae.pipelines.inputs import open_input
        >>> dataset = open_input("a.png")
        >>> [block] = dataset.read(dataset.blocks("all")[0])
        >>> block.keys, block.x[0][:4]
        (['a.png'], b'\\x89PNG')
    """

    refused: tuple[Rejection, ...] = ()

    @property
    def rejected(self) -> Sequence[Rejection]:
        """See ``Rows.rejected``."""
        return self.refused

    def units(self) -> list[BlockReference]:
        """See ``WholeRows.units``."""
        return [BlockReference("all", run[0], 0, len(run), run) for run in _runs(self.found.files)]

    def read(self, block: BlockReference) -> Iterator[Block]:
        """See ``Rows.read``. A file that cannot be read is a bad row."""
        contents: list[bytes] = []
        keys: list[str] = []
        rejected: list[Rejection] = []
        for file in block.files:
            try:
                contents.append(_content(self.found.path(file)))
                keys.append(file)
            except (OSError, PipelineError) as error:
                rejected.append(
                    Rejection(file, file, 0, f"cannot be read: {getattr(error, 'strerror', None) or error}")
                )
            if sum(map(len, contents)) >= BLOCK_BYTES:
                yield _block(keys, contents, rejected)
                contents, keys, rejected = [], [], []
        if keys or rejected:
            yield _block(keys, contents, rejected)


def open_images(path: str, found: Found, refused: Sequence[Rejection]) -> Images:
    """Image files, each hashed, beside those that are not to be opened."""
    hashes = found.checksums()
    checksums = {run[0]: storage.fingerprint([hashes[file] for file in run]) for run in _runs(found.files)}
    return Images(path, (), "string", contract.signature(contract.EMBED, "string"), checksums, found, tuple(refused))


def _runs(files: Sequence[str]) -> list[tuple[str, ...]]:
    return [tuple(files[first : first + UNIT_IMAGES]) for first in range(0, len(files), UNIT_IMAGES)]


def _content(path: str) -> bytes:
    size = storage.identify(path).size
    if size > MAX_BYTES:
        raise PipelineError(f"the file has {size} bytes, expected at most {MAX_BYTES}")
    return storage.read(path)


def _block(keys: list[str], contents: list[bytes], rejected: list[Rejection]) -> Block:
    x = np.array([*contents, None], object)[:-1]  # the None keeps NumPy from looking into equal lengths
    return Block("", keys, x, np.zeros(len(keys), np.int64), rejected, own_files=True)
