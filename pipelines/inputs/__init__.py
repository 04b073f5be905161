"""What ``pipelines.embed`` reads: a prepared dataset, Parquet files, TFRecord files of ``tf.Example``, or images."""

import itertools
import os
from collections.abc import Sequence

from pipelines import contract, storage
from pipelines.errors import PipelineError
from pipelines.formats.files import Found, files_with_suffix, has_suffix
from pipelines.formats.tfrecords import is_record_header
from pipelines.inputs import images
from pipelines.inputs.base import Rows
from pipelines.inputs.parquet import open_parquet
from pipelines.inputs.prepared import open_prepared
from pipelines.inputs.tfrecords import open_tfrecords

RESERVED = (contract.KEY, *contract.OUTPUTS[contract.EMBED], contract.ROW_SCORE)
# What a file is, by its name; where a user names other files, by their first bytes.
_SUFFIXES = {"Parquet": (".parquet",), "TFRecord": (".tfrecord", ".tfrecords"), "images": images.SUFFIXES}


def open_input(path: str, key: str = contract.KEY, column: str = contract.X, keep: Sequence[str] = ()) -> Rows:
    """The rows of a prepared dataset (a folder with ``dataset_info.json``) or of files of one kind.

    Args:
        path: What to read: a prepared dataset; or Parquet, TFRecord or image files: one, a folder or a pattern.
        key: Column of Parquet files, or feature of TFRecord files, with the key.
        column: The same with the observation.
        keep: The same that the output takes over; a prepared dataset can keep its ``label``.

    Raises:
        PipelineError: There is nothing of the kind, or it lacks a column.
    """
    for name in keep:
        if name in RESERVED:
            raise PipelineError(f"column {name!r} cannot be kept: the output has one of its own by that name")
    named = (key, column) != (contract.KEY, contract.X)
    if storage.is_folder(path) and (storage.exists(os.path.join(path, contract.DATASET_INFO)) or _is_unfinished(path)):
        if named:
            raise PipelineError(f"{path} is a prepared dataset, whose columns are key and x: leave --key and --column")
        return open_prepared(path, tuple(keep))
    if not storage.exists(path) and not any(c in path for c in "*?["):
        raise PipelineError(f"{path} is not there: expected a prepared dataset, or Parquet, TFRecord or image files")
    kind, found = _of_one_kind(path)
    if kind == "images":
        if named or keep:
            raise PipelineError(f"{path} names images, which have no columns: leave the column options out")
        return images.open_images(path, found)
    return (open_parquet if kind == "Parquet" else open_tfrecords)(path, found, key, column, tuple(keep))


def _is_unfinished(path: str) -> bool:
    return storage.exists(os.path.join(path, contract.WORK))


def _of_one_kind(path: str) -> tuple[str, Found]:
    """What the files are that ``path`` names, and which they are."""
    found = files_with_suffix(path, tuple(itertools.chain.from_iterable(_SUFFIXES.values())))
    kinds = [kind for kind, suffixes in _SUFFIXES.items() if any(has_suffix(file, suffixes) for file in found.files)]
    if len(kinds) > 1:
        raise PipelineError(f"{path} holds files of more than one kind ({', '.join(kinds)}): name one by a pattern")
    if kinds:
        return kinds[0], found
    found = files_with_suffix(path, ("",))
    if storage.is_folder(path) or not found.files:
        raise PipelineError(f"{path} names no Parquet, TFRecord or image file and is no prepared dataset either")
    with found.open(found.files[0]) as file:
        head = file.read(12)
    kind = "Parquet" if head[:4] == b"PAR1" else "TFRecord" if head and is_record_header(head) else ""
    if not kind:
        raise PipelineError(f"{found.path(found.files[0])} is neither a Parquet, a TFRecord nor an image file")
    return kind, found
