"""What TensorFlow Datasets reads beside the shards."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import contract, storage
from ..jobs.commits import Output, Unit
from ..sources import Schema

_DATASET_VERSION = "1.0.0"  # of the TFDS metadata; the format's own version is in the manifest


def write_tfds_metadata(
    output: Output, name: str, schema: Schema, units: Sequence[Unit], commits: Sequence[dict[str, Any]]
) -> list[str]:
    """Writes what ``tfds.builder_from_directory`` reads and returns the names of the files."""
    import tensorflow_datasets as tfds

    feature = tfds.features
    x = feature.Tensor(shape=schema.shape, dtype=np.dtype(schema.dtype), encoding=feature.Encoding.BYTES)
    features: dict[str, Any] = {contract.KEY: feature.Text(), contract.X: x}
    if schema.labels:
        features[contract.LABEL] = feature.ClassLabel(names=list(schema.labels))
    lengths: dict[str, list[int]] = {}
    sizes: dict[str, int] = {}
    for unit, commit in zip(units, commits, strict=True):
        lengths.setdefault(unit.task["split"], []).append(commit["rows"])
        sizes[unit.task["split"]] = sizes.get(unit.task["split"], 0) + commit["files"][0]["bytes"]
    names = [contract.DATASET_INFO, contract.FEATURES, *([f"{contract.LABEL}.labels.txt"] if schema.labels else [])]
    with storage.temporary_folder() as folder:
        for unit in units:  # TFDS looks for the names of the shards, and not into them
            with storage.replacing(f"{folder}/{unit.files[0]}", folder, lasting=False):
                pass
        template = tfds.core.ShardedFileTemplate(
            data_dir=folder,
            template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
            dataset_name=name,
            filetype_suffix="tfrecord",
        )
        splits = [
            tfds.core.SplitInfo(split, lengths[split], sizes[split], filename_template=template) for split in lengths
        ]
        tfds.folder_dataset.write_metadata(
            data_dir=folder,
            features=feature.FeaturesDict(features),
            split_infos=splits,
            version=_DATASET_VERSION,
            filename_template=template,
            check_data=False,  # counts and checksums are verified already, and it would load TensorFlow
        )
        for file in names:
            with output.writing(file) as copy:
                copy.write(storage.read(f"{folder}/{file}"))
    return names
