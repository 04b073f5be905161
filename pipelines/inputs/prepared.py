"""A prepared dataset as the embedding job's input.

The metadata are read as the plain JSON they are, so that a worker that embeds needs no TensorFlow Datasets.
"""

import dataclasses
import os
from collections.abc import Iterator, Sequence
from typing import Any

from .. import checksums, contract, storage
from ..errors import PipelineError
from ..formats import tfrecords
from ..formats.files import Content
from ..formats.standardization import Standardization
from ..manifest import Manifest
from ..sources.base import Fields
from .base import Block, BlockReference, Rows, block_rows, unknown_split
from .examples import Features, parse

_METADATA = (contract.DATASET_INFO, contract.FEATURES)


@dataclasses.dataclass(frozen=True)
class Prepared(Rows):
    """A prepared dataset.

    Attributes:
        shards: Split, file and number of rows of each shard, in order.
        features: Which of the records' features are read.
        others: Those that are not, beside the label.
        is_standardized: See ``Rows.is_standardized``.
        columns_sha256: See ``Rows.columns_sha256``.

    Example:
        >>> from tfvae.pipelines import preprocess
        >>> preprocess.run("digits", None, "prepared/digits").rows
        {'train': 1607, 'test': 190}
        >>> dataset = open_prepared("prepared/digits")
        >>> [block] = dataset.read(dataset.blocks("test")[0])
        >>> block.x.shape
        (190, 8, 8, 1)
    """

    shards: tuple[tuple[str, str, int], ...]
    features: Features
    others: tuple[str, ...] = ()
    is_standardized: bool = False
    columns_sha256: str | None = None

    @property
    def unread(self) -> tuple[str, ...]:
        """See ``Rows.unread``."""
        return self.others

    def blocks(self, split: str | None) -> list[BlockReference]:
        """See ``Rows.blocks``; None is the test split."""
        wanted = split or contract.TEST
        splits = list(dict.fromkeys(name for name, _, _ in self.shards))
        if wanted not in [*splits, "all"]:
            raise unknown_split(self.path, wanted, splits)
        step = block_rows(self.shape or (), self.dtype)
        return [
            BlockReference(name, file, first, min(step, rows - first))
            for name, file, rows in self.shards
            if wanted in ("all", name)
            for first in range(0, rows, step)
        ]

    def read(self, block: BlockReference) -> Iterator[Block]:
        """See ``Rows.read``; a unit is one part."""
        path = os.path.join(self.path, block.file)
        try:
            with storage.open_to_read(path) as file:
                size = storage.identify(path).size
                serialized = list(tfrecords.read_records(file, path, block.first, block.rows, size))
        except OSError as error:
            raise PipelineError(f"{path} cannot be read: {error.strerror}") from error
        dtype = self.stored or self.dtype
        yield parse(block.file, block.first, serialized, self.features, self.shape or (), dtype, self.missing)


@dataclasses.dataclass(frozen=True)
class Preparation:
    """How the raw data of a prepared dataset became its rows: what other raw data are read by.

    Attributes:
        source: The kind of the raw data, as ``pipelines.preprocess`` spells it.
        fields: How their fields are called, and what their columns hold.
        standardization: By what the columns were standardized; None where they were not.
        columns_sha256: See ``checksums.columns_sha256``.

    Example:
        >>> from tfvae.pipelines import preprocess
        >>> with open("rows.csv", "w") as file:
        ...     _ = file.write("height,colour\\n1.8,red\\n1.7,blue\\n1.9,red\\n")
        >>> _ = preprocess.run("csv", "rows.csv", "prepared/rows", test_fraction=0, categories=["colour"])
        >>> preparation = Preparation.of("prepared/rows")
        >>> preparation.source, preparation.fields.columns
        ('csv', (('height', None), ('colour', ('blue', 'red'))))
    """

    source: str
    fields: Fields
    standardization: Standardization | None
    columns_sha256: str | None

    @classmethod
    def of(cls, path: str) -> "Preparation":
        """That of a prepared dataset.

        Raises:
            PipelineError: It is no complete prepared dataset, or its manifest does not say it.
        """
        manifest = Manifest.find(path)
        if manifest is None or manifest.record.get("kind") != "prepared":
            name = contract.MANIFEST
            raise PipelineError(f"{path} is no complete prepared dataset (no {name} of one): prepare it first")
        try:
            told = manifest.standardized
            units = None if told is None else Standardization.from_json(told)
            source = manifest.options["source"]
            if not isinstance(source, str):
                raise TypeError(f"source is {source!r}")
            return cls(source, _fields(manifest), units, manifest.columns_sha256)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise PipelineError(
                f"{manifest.path} does not say how the dataset was prepared: prepare it again"
            ) from error


def _fields(manifest: Manifest) -> Fields:
    given: dict[str, Any] = {field.name: manifest.options.get(field.name) for field in dataclasses.fields(Fields)}
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    columns = [(str(name), words and tuple(map(str, words))) for name, words in manifest.record.get("columns") or ()]
    return Fields(**{**given, "columns": tuple(columns) or None})


def open_prepared(path: str, keep: tuple[str, ...] = ()) -> Prepared:
    """A prepared dataset, from its metadata; its ``label`` can be kept.

    Raises:
        PipelineError: It is not there, not complete, or its observations are not stored as raw bytes.

    Example:
        >>> from tfvae.pipelines import preprocess
        >>> preprocess.run("digits", None, "prepared/digits").rows
        {'train': 1607, 'test': 190}
        >>> open_prepared("prepared/digits").shape
        (8, 8, 1)
    """
    if not storage.exists(os.path.join(path, contract.DATASET_INFO)):
        raise PipelineError(f"{path} is not a prepared dataset (it has no {contract.DATASET_INFO}): run tfvae prepare")
    manifest = Manifest.find(path)
    if manifest:
        _refuse_damaged_metadata(path, manifest)
    info = storage.read_json(os.path.join(path, contract.DATASET_INFO))
    try:
        shape, dtype, labels, names = _observation(storage.read_json(os.path.join(path, contract.FEATURES)))
        shards = tuple(_shards(info))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise PipelineError(
            f"the metadata of {path} cannot be understood ({type(error).__name__}: {error}): "
            "expected a TFDS folder of "
            "TFRecords with the features key (text) and x (a uint8 or float32 tensor stored as bytes)"
        ) from error
    signature = contract.signature(contract.EMBED, dtype)
    unknown = [name for name in keep if name not in labels]
    if unknown:
        raise PipelineError(f"{path} has no feature {unknown[0]!r} to keep, expected one of {labels}")
    dtypes = {contract.KEY: "string", contract.X: "string"} | dict.fromkeys(keep, "int64")
    features = Features(contract.KEY, contract.X, keep, dtypes)
    others = tuple(sorted({*names} - {*dtypes, contract.LABEL}))
    sums = _listed_checksums(path, manifest, shards) if manifest else _own_checksums(path, shards)
    contents = {file: Content(sha256) for file, sha256 in sums.items()}
    prepared = Prepared(path, shape, dtype, signature, contents, shards, features, others)
    return prepared if manifest is None else _as_told(prepared, manifest)


def _as_told(prepared: Prepared, manifest: Manifest) -> Prepared:
    return dataclasses.replace(
        prepared,
        missing=manifest.has_missing,
        is_standardized=manifest.standardized is not None,
        columns_sha256=manifest.columns_sha256,
    )


def _refuse_damaged_metadata(path: str, manifest: Manifest) -> None:
    if damaged := checksums.changed(path, [entry for name, entry in manifest.files().items() if name in _METADATA]):
        raise PipelineError(
            f"{path}/{damaged[0]} is not as it was written: the command that prepared the dataset makes it again"
        )


def _observation(features: dict[str, Any]) -> tuple[tuple[int, ...], str, list[str], list[str]]:
    """Shape and dtype of x, the features that hold a class index, and all."""
    named = features["featuresDict"]["features"]
    tensor = named[contract.X]["tensor"]
    if contract.KEY not in named or tensor.get("encoding") != "bytes" or tensor["dtype"] not in ("uint8", "float32"):
        raise ValueError(f"x is {tensor.get('dtype')} with encoding {tensor.get('encoding')}, features {sorted(named)}")
    shape = tuple(int(size) for size in tensor["shape"].get("dimensions", []))
    if any(size < 1 for size in shape):
        raise ValueError(f"x has shape {list(shape)}")
    return shape, tensor["dtype"], [name for name, feature in named.items() if "classLabel" in feature], [*named]


def _shards(info: dict[str, Any]) -> list[tuple[str, str, int]]:
    if info["fileFormat"] != "tfrecord":
        raise ValueError(f"file format {info['fileFormat']}")
    shards = []
    for split in info["splits"]:
        lengths = [int(length) for length in split["shardLengths"]]
        for index, rows in enumerate(lengths):
            file = split["filepathTemplate"].format(
                DATASET=info["name"],
                SPLIT=split["name"],
                FILEFORMAT="tfrecord",
                SHARD_X_OF_Y=f"{index:05d}-of-{len(lengths):05d}",
            )
            if file != os.path.basename(file):
                raise ValueError(f"shard {file!r} leaves the folder")
            shards.append((split["name"], file, rows))
    return shards


def _listed_checksums(path: str, manifest: Manifest, shards: Sequence[tuple[str, str, int]]) -> dict[str, str]:
    """The SHA-256 of each shard, of those that are as long as the manifest says."""
    listed = manifest.files()
    for _, file, _ in shards:
        found = storage.size(os.path.join(path, file))
        if file not in listed or found != listed[file]["bytes"]:
            raise PipelineError(
                f"{path}/{file} has {found} bytes, "
                f"the manifest says {listed.get(file, {}).get('bytes')}: "
                "it is truncated or changed; prepare the dataset again"
            )
    return {file: listed[file]["sha256"] for _, file, _ in shards}


def _own_checksums(path: str, shards: Sequence[tuple[str, str, int]]) -> dict[str, str]:
    """The same of the dataset of another program, which are computed."""
    if storage.exists(os.path.join(path, contract.WORK)):
        raise PipelineError(
            f"{path} is not complete (it has no {contract.MANIFEST}): run its preparation again to finish it"
        )
    files = [file for _, file, _ in shards]
    missing = [file for file in files if storage.size(os.path.join(path, file)) is None]
    if missing:
        raise PipelineError(f"{path} lacks {len(missing)} of its shards, the first is {missing[0]}")
    return {file: storage.sha256(os.path.join(path, file)) for file in files}
