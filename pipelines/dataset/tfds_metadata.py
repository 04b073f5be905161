"""What TensorFlow Datasets reads beside the shards."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import contract
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
    template = tfds.core.ShardedFileTemplate(
        data_dir=output.path,
        template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        dataset_name=name,
        filetype_suffix="tfrecord",
    )
    tfds.folder_dataset.write_metadata(
        data_dir=output.path,
        features=feature.FeaturesDict(features),
        split_infos=[
            tfds.core.SplitInfo(split, lengths[split], sizes[split], filename_template=template) for split in lengths
        ],
        version=_DATASET_VERSION,
        filename_template=template,
        check_data=False,  # counts and checksums are verified already, and it would load TensorFlow
    )
    return [contract.DATASET_INFO, contract.FEATURES, *([f"{contract.LABEL}.labels.txt"] if schema.labels else [])]
