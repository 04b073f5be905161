"""TFRecord files of ``tf.Example`` as the embedding job's input: a key, one feature of observations, features to keep.

The observation is one text (raw values, or an encoded PNG or JPEG) or a list of floats of one length. The driver walks
over the records' lengths to number them and remembers where each unit of work begins, so that a worker goes straight
there and the cost grows with the rows, not with their square.
"""

import dataclasses
import itertools
import os
from collections.abc import Iterator

from pipelines import records
from pipelines.errors import PipelineError
from pipelines.inputs.base import Block, BlockReference, ColumnRows, block_rows
from pipelines.inputs.examples import Features, parse

UNIT_ROWS = 32768
_BUFFER = 1 << 20


@dataclasses.dataclass(frozen=True)
class TFRecords(ColumnRows):
    """TFRecord files whose records have the same features.

    Attributes:
        features: Which of the features are read.
        rows, starts: Of each file, how many records it has and at which byte each unit of work begins.

    Example:
        >>> from pipelines.inputs import open_input
        >>> with open("rows.tfrecord", "wb") as file:
        ...     written = file.write(records.framed(["a", "b"], np.uint8([[0, 1], [2, 3]])))
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
            with open(path, "rb", _BUFFER) as file:
                file.seek(offset)
                serialized = records.read_records(file, path, 0, block.rows, os.path.getsize(path), offset)
                for first in range(block.first, block.first + block.rows, step):
                    part = list(itertools.islice(serialized, min(step, block.first + block.rows - first)))
                    yield parse(block.file, first, part, self.features, self.shape or (), self.dtype)
        except OSError as error:
            raise PipelineError(f"{path} cannot be read: {error.strerror}") from error
