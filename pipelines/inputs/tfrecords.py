"""TFRecord files of ``tf.Example`` as the embedding job's input: a key, one feature of observations, features to keep.

The observation is one text (raw values, or an encoded PNG or JPEG) or a list of floats of one length. The driver walks
over the records' lengths to number them and remembers where each unit of work begins, so that a worker goes straight
there and the cost grows with the rows, not with their square.
"""

import concurrent.futures
import dataclasses
import itertools
from collections.abc import Iterator, Mapping

from .. import contract
from ..errors import PipelineError
from ..formats import tfrecords
from ..formats.files import Content, Found
from .base import Block, BlockReference, ColumnRows, block_rows
from .examples import Features, dtypes_of, parse

UNIT_ROWS = 32768
_HEADS = 64  # records, of which the first that has the features says what they hold


@dataclasses.dataclass(frozen=True)
class TFRecords(ColumnRows):
    """TFRecord files whose records have the same features.

    Attributes:
        features: Which of the features are read.
        rows: How many records each file has.
        starts: At which bytes of each file the units of work begin.

    Example:
        >>> from tfvae.pipelines.inputs import open_input
        >>> with open("rows.tfrecord", "wb") as file:
        ...     written = file.write(tfrecords.framed(["a", "b"], np.uint8([[0, 1], [2, 3]])))
        >>> dataset = open_input("rows.tfrecord").fitted([2], "uint8")
        >>> [block] = dataset.read(dataset.blocks("all")[0])
        >>> block.keys, block.x.tolist()
        (['a', 'b'], [[0, 1], [2, 3]])
    """

    features: Features
    rows: dict[str, int] = dataclasses.field(hash=False)
    starts: dict[str, list[int]] = dataclasses.field(hash=False)

    def units(self) -> list[BlockReference]:
        """See ``WholeRows.units``."""
        return [
            BlockReference("all", file, first, min(UNIT_ROWS, rows - first))
            for file, rows in self.rows.items()
            for first in range(0, rows, UNIT_ROWS)
        ]

    def read(self, block: BlockReference) -> Iterator[Block]:
        """See ``Rows.read``."""
        path, step = self.found.path(block.file), block_rows(self.shape or (), self.dtype)
        offset = self.starts[block.file][block.first // UNIT_ROWS]
        try:
            file, size = tfrecords.open_records(path)
            with file:
                file.seek(offset)
                serialized = tfrecords.read_records(file, path, 0, block.rows, size, offset)
                for first in range(block.first, block.first + block.rows, step):
                    part = list(itertools.islice(serialized, min(step, block.first + block.rows - first)))
                    yield parse(
                        block.file, first, part, self.features, self.shape or (), self.dtype, self.missing, True
                    )
        except OSError as error:
            raise PipelineError(f"{path} cannot be read: {error.strerror}") from error


def open_tfrecords(
    path: str, found: Found, key: str, column: str, keep: tuple[str, ...], known: Mapping[str, Content]
) -> TFRecords:
    """TFRecord files, each hashed unless it is known, and numbered records, of which the first say what features hold.

    Raises:
        PipelineError: They hold no rows, or a feature is absent or of no use.
    """
    rows: dict[str, int] = {}
    starts: dict[str, list[int]] = {}
    with concurrent.futures.ThreadPoolExecutor(1) as beside:
        hashing = beside.submit(found.contents, known)
        for file in found.files:
            raw, total = tfrecords.open_records(found.path(file))
            with raw:
                rows[file], starts[file] = tfrecords.index_records(raw, found.path(file), total, UNIT_ROWS)
        contents = hashing.result()
    first = next((file for file in found.files if rows[file]), None)
    if first is None:
        raise PipelineError(f"{path} holds no rows")
    raw, total = tfrecords.open_records(found.path(first))
    with raw:
        heads = list(tfrecords.read_records(raw, found.path(first), 0, min(rows[first], _HEADS), total))
    head, dtypes, size, is_image = dtypes_of(heads, found.path(first), key, column, keep)
    shape, dtype = None, "bytes"
    signature = contract.signature(contract.EMBED, "string" if is_image else "uint8")
    if dtypes[column] == "float32":
        shape, dtype, signature = (size,), "float32", contract.signature(contract.EMBED, "float32")
    features = Features(key if key in dtypes else None, column, keep, dtypes)
    found = found.beside(tfrecords.feature_names(head), (key, column, *keep, contract.LABEL))
    return TFRecords(path, shape, dtype, signature, contents, found, key, column, keep, features, rows, starts)
