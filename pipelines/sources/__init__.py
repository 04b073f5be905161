"""Raw formats, one class each: what rows there are, and how to read one.

A source does two things. On the driver it makes a **plan**, cheaply: the key of each row, its split where the
format has splits of its own, and a reference (a file and a position in it), but no row's content. In a worker
it **reads** the rows of a file at some positions, together, and says of each bad one why it is bad. So only
references cross a runner, and the plan decides the output before any image is decoded.

Images are uint8 ``[H, W, C]``, grey ones with C = 1. Vectors and other arrays may be float32, all finite.
Every file is taken for hostile: sizes are checked before memory is taken, nothing is unpickled, links are
not followed. A bad row is rejected with a reason; a file that is broken as a whole raises ``PipelineError``
and names the file.

To add a format: subclass ``Source`` in a module of its own and write ``plan`` and ``read`` (or derive from
``RowSource`` and write ``open``, where rows are read one by one; or from ``ArraySource`` and write ``arrays``, where
files are arrays), and add the class to ``SOURCES``.
"""

from ..errors import PipelineError
from .archived_images import ArchivedImages
from .base import MAX_PIXELS, Batch, Fields, Source
from .csv import Csv
from .digits import Digits
from .idx import Idx
from .images import Images
from .npy import Npy
from .npz import Npz
from .parquet import Parquet
from .plan import Input, Plan, Schema
from .tensorflow_datasets import Tfds
from .tfrecord import TfRecord

__all__ = [
    "KINDS",
    "MAX_PIXELS",
    "SOURCES",
    "Batch",
    "Fields",
    "Input",
    "Plan",
    "Schema",
    "Source",
    "make_source",
]

SOURCES: dict[str, type[Source]] = {
    "idx": Idx,
    "digits": Digits,
    "npy": Npy,
    "npz": Npz,
    "images": Images,
    "csv": Csv,
    "parquet": Parquet,
    "tfrecord": TfRecord,
    "tfds": Tfds,
}
KINDS = ", ".join("tfds:NAME" if kind == "tfds" else kind for kind in SOURCES)


def make_source(
    kind: str, input_path: str | None, max_pixels: int = MAX_PIXELS, fields: Fields | None = None
) -> Source:
    """The source for a kind as the command line spells it.

    Args:
        kind: A name in ``SOURCES``; ``tfds:NAME`` for TensorFlow Datasets.
        input_path: See the class of the kind.
        max_pixels: Largest image, height times width.
        fields: Names and layout of the fields of a row, for the kinds that have them.

    Raises:
        PipelineError: No such kind, or it needs an input, or it has no use for one of the fields.

    Example:
        >>> np.save("images.npy", np.zeros([3, 28, 28], np.uint8))
        >>> make_source("npy", "images.npy").plan().schema.shape
        (28, 28, 1)
    """
    name, _, argument = str(kind).partition(":")
    if name not in SOURCES or (name == "tfds") != bool(argument):
        raise PipelineError(f"unknown source {kind!r}, expected one of {KINDS}")
    if SOURCES[name] is Digits and input_path:
        raise PipelineError(f"source digits is embedded and reads no files: leave out --input {input_path}")
    archived = name == "images" and (input_path or "").lower().endswith(ArchivedImages.SUFFIXES)
    return (ArchivedImages if archived else SOURCES[name])(kind, input_path, max_pixels, fields)
