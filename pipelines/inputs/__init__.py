"""What ``pipelines.embed`` reads: a prepared dataset, and all that ``pipelines.preprocess`` reads.

Parquet, TFRecord and image files have ways of their own, by blocks; every other format comes through its source (see
``pipelines.inputs.listed``). The keys and the values of the rows are those of the source in either case.
"""

import dataclasses
import itertools
import os
import types
from collections.abc import Mapping, Sequence

from .. import contract, storage
from ..errors import PipelineError
from ..formats import archives, csv_text
from ..formats import images as image_files
from ..formats import tfrecords as record_files
from ..formats.files import Content, files_with_suffix, has_suffix, is_hidden
from ..formats.parquet import INTEGERS
from ..sources import idx
from ..sources.base import Fields
from ..sources.images import Images
from .base import Rows
from .images import open_images
from .listed import open_listed
from .parquet import open_parquet
from .prepared import Preparation, open_prepared
from .tfrecords import open_tfrecords

__all__ = ["Fields", "Preparation", "open_input"]

RESERVED = (contract.KEY, *contract.OUTPUTS[contract.EMBED], contract.ROW_SCORE)
# What a file is, by its name; where a user names other files, by their first bytes.
_SUFFIXES = {
    "Parquet": (".parquet",),
    "TFRecord": record_files.SUFFIXES,
    "images": image_files.SUFFIXES,
    "archives": archives.SUFFIXES,
    "CSV": csv_text.SUFFIXES,
    "npy": (".npy",),
    "npz": (".npz",),
    "IDX": idx.SUFFIXES,
}
_LISTED = {"archives": "images", "CSV": "csv", "npy": "npy", "npz": "npz", "IDX": "idx"}  # the kind of the source
_KINDS = "Parquet, TFRecord, CSV, npy, npz, IDX, image or archive files"


def open_input(
    path: str,
    key: str = contract.KEY,
    column: str = contract.X,
    keep: Sequence[str] = (),
    fields: Fields | None = None,
    known: Mapping[str, Content] = types.MappingProxyType({}),
    source: str | None = None,
    later: bool = False,
) -> Rows:
    """The rows of a prepared dataset, of files of one kind, of ``digits`` or of ``tfds:NAME``.

    Args:
        path: What to read: a prepared dataset (a folder with ``dataset_info.json``); or files of a kind that
            ``pipelines.preprocess`` reads: one, a folder or a pattern.
        key: Column of CSV or Parquet files, or feature of TFRecord files, with the key.
        column: Column of Parquet files, or feature of TFRecord files, with the observation.
        keep: The same that the output takes over; other inputs can keep their label.
        fields: What else is known of the columns; ``key`` and ``column`` are taken from there where they are not given.
        known: What was in files of the input; one of the same size and time is not read again to be hashed.
        source: The kind of the files, as ``pipelines.preprocess`` spells it, where there are some of several kinds.
        later: Whether small files of a store may be unread until their rows are: see ``Content`` in ``formats.files``.

    Raises:
        PipelineError: There is nothing of the kind, or it lacks a column.
    """
    for name in keep:
        if name in RESERVED:
            raise PipelineError(f"column {name!r} cannot be kept: the output has one of its own by that name")
    fields = fields or Fields()
    key = fields.key or key if key == contract.KEY else key
    column = fields.column or column if column == contract.X else column
    named = (key, column) != (contract.KEY, contract.X)
    path = storage.path_of(path)
    if path.startswith("tfds:") or (path == "digits" and not storage.exists(path)):
        return open_listed(path, None, key, column, tuple(keep), fields)
    path = storage.absolute(path)
    if storage.is_folder(path) and (storage.exists(os.path.join(path, contract.DATASET_INFO)) or _is_unfinished(path)):
        if named:
            raise PipelineError(f"{path} is a prepared dataset, whose columns are key and x: leave --key and --column")
        prepared = open_prepared(path, tuple(keep))
        return dataclasses.replace(prepared, missing=prepared.missing or bool(fields.missing))
    if not storage.exists(path) and not any(c in path for c in "*?["):
        raise PipelineError(f"{path} is not there: expected a prepared dataset, or {_KINDS}")
    kind = _kind(path, source)
    if kind in _LISTED:
        return open_listed(_LISTED[kind], path, key, column, tuple(keep), fields)
    if fields.columns:
        raise PipelineError(
            f"{path} names {kind} files, expected a CSV file, as --prepared-with was made from: leave it out"
        )
    if kind == "images" and fields.resize:
        return open_listed("images", path, key, column, tuple(keep), fields)
    for option in ("no_header", "drop", "resize"):
        if option in fields.given():
            raise PipelineError(
                f"{path} names {kind} files, for which --{option.replace('_', '-')} says nothing: leave it out"
            )
    if kind == "images":
        if named or fields.missing:
            raise PipelineError(f"{path} names images, which have no columns: leave the column options out")
        return open_images(path, *Images("images", path).checked_files(), known, tuple(keep), later)
    found = files_with_suffix(path, _SUFFIXES[kind])
    if not found.files:
        found = files_with_suffix(path, ("",))
    named_files = (path, found, key, column, tuple(keep), known)
    opened = open_parquet(*named_files, later) if kind == "Parquet" else open_tfrecords(*named_files)
    opened = dataclasses.replace(opened, missing=bool(fields.missing))
    if not fields.dtype or opened.dtype not in ("uint8", "bytes", INTEGERS):
        return opened
    dtype = INTEGERS if opened.dtype == "uint8" else opened.dtype  # as they were prepared, whatever the numbers
    return dataclasses.replace(opened, dtype=dtype, signature=contract.signature(contract.EMBED, fields.dtype))


def _is_unfinished(path: str) -> bool:
    return storage.exists(os.path.join(path, "_work"))


def _kind(path: str, source: str | None) -> str:
    """What the files are that ``path`` names; of several kinds those of the source."""
    found = files_with_suffix(path, tuple(itertools.chain.from_iterable(_SUFFIXES.values())), links=True)
    kinds = [kind for kind, suffixes in _SUFFIXES.items() if any(has_suffix(file, suffixes) for file in found.files)]
    if len(kinds) > 1:
        wanted = [kind for kind in kinds if kind.lower() == source]
        if not wanted:
            suffix = next(
                suffix for suffix in _SUFFIXES[kinds[0]] if any(has_suffix(f, (suffix,)) for f in found.files)
            )
            raise PipelineError(
                f"{path} holds files of more than one kind ({', '.join(kinds)}): name one by a pattern, such as "
                f"{os.path.join(path, '**', '*' + suffix)}, or by --prepared-with a dataset of that kind"
            )
        return wanted[0]
    if kinds:
        return kinds[0]
    found = files_with_suffix(path, ("",))
    names = storage.files_below(path) if storage.is_folder(path) else found.files
    if any(image_files.is_named_so(name) for name in names if not is_hidden(name)):
        return "images"
    if storage.is_folder(path) or not found.files:
        raise PipelineError(f"{path} names no {_KINDS} and is no prepared dataset either{archives.told(sorted(names))}")
    with found.open(found.files[0]) as file:
        head = file.read(12)
    if head[:4] == b"PAR1":
        return "Parquet"
    if head and record_files.is_record_header(head):
        return "TFRecord"
    told = archives.told(found.files)
    raise PipelineError(f"{found.path(found.files[0])} is none of {_KINDS}: its name does not say what it is{told}")
