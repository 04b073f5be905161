"""Prepared datasets as Keras wants them: arrays in memory, or a stream of batches.

A prepared dataset is a TFDS directory whose examples hold a ``key``, the observation ``x`` and, where the source has
one, a ``label``. It is read through TFDS, so that nothing here depends on how it was written.
"""

import hashlib
import os
from typing import Any

import numpy as np
import tensorflow as tf

from pipelines import contract

_ROWS_AT_ONCE = 1024
_HASHED_AT_ONCE = 1 << 20


def open_dataset(directory: str | os.PathLike[str]) -> Any:
    """The TFDS builder of a prepared dataset.

    Raises:
        ValueError: If the directory holds none, or one without ``x``.
    """
    import tensorflow_datasets as tfds  # half a second that only readers of datasets should pay

    if not os.path.exists(os.path.join(directory, contract.DATASET_INFO)):
        raise ValueError(
            f"{directory} is no prepared dataset (it has no {contract.DATASET_INFO}): make one with tfvae prepare."
        )
    builder = tfds.builder_from_directory(os.fspath(directory))
    if contract.X not in (builder.info.features or {}):
        raise ValueError(f"The dataset in {directory} has no feature x, only {sorted(builder.info.features)}.")
    return builder


def identity(directory: str | os.PathLike[str]) -> dict[str, str | None]:
    """Which dataset lies there: its ``name``, its ``folder`` (no path) and the ``manifest_sha256``, None without one.

    Raises:
        ValueError: If the directory holds no dataset.

    Example:
        >>> identity(DIGITS)["name"], len(identity(DIGITS)["manifest_sha256"])
        ('digits', 64)
    """
    manifest = os.path.join(directory, contract.MANIFEST)
    return {
        "name": open_dataset(directory).info.name,
        "folder": os.path.basename(os.path.abspath(directory)) or None,
        "manifest_sha256": sha256(manifest) if os.path.isfile(manifest) else None,
    }


def sha256(path: str | os.PathLike[str]) -> str:
    """Hexadecimal SHA-256 of a file of any size."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_HASHED_AT_ONCE):
            digest.update(block)
    return digest.hexdigest()


def _read(directory: str | os.PathLike[str], split: str, feature: str, **options: Any) -> tf.data.Dataset:
    builder = open_dataset(directory)
    if split not in builder.info.splits:
        raise ValueError(f"{directory} has no split {split!r}, only {', '.join(sorted(builder.info.splits))}.")
    return builder.as_dataset(split=split, **options).map(
        lambda example: example[feature], num_parallel_calls=tf.data.AUTOTUNE
    )


def load(directory: str | os.PathLike[str], split: str = contract.TRAIN, feature: str = contract.X) -> np.ndarray:
    """One feature of a split as one array, ``[N, *shape]``, in the dataset's order and dtype.

    Raises:
        ValueError: If there is no such dataset, split or feature.

    Example:
        >>> x = load(DIGITS, "test")
        >>> x.shape[1:], x.dtype
        ((8, 8, 1), dtype('uint8'))
        >>> labels = load(DIGITS, "test", "label")
        >>> labels.shape == x.shape[:1]
        True
    """
    builder = open_dataset(directory)
    if feature not in builder.info.features:
        raise ValueError(f"{directory} has no feature {feature!r}, only {', '.join(sorted(builder.info.features))}.")
    batches = list(_read(directory, split, feature).batch(_ROWS_AT_ONCE).as_numpy_iterator())
    spec = builder.info.features[feature]
    return np.concatenate(batches) if batches else np.zeros([0, *spec.shape], spec.np_dtype)


def stream(
    directory: str | os.PathLike[str],
    split: str = contract.TRAIN,
    batch_size: int = 100,
    shuffle: bool = True,
    seed: int = 0,
) -> tf.data.Dataset:
    """Batches of x ``[B, *shape]`` from disk, for data that do not fit in memory; the last one may be shorter.

    Rows lie in the shards in the order of a hash of their keys; a shuffle mixes the shards and a window of 10,000 rows.

    Example:
        >>> next(iter(stream(DIGITS, "train", batch_size=32))).shape
        TensorShape([32, 8, 8, 1])
    """
    if not shuffle:
        return _read(directory, split, contract.X).batch(batch_size).prefetch(tf.data.AUTOTUNE)
    rows = _read(directory, split, contract.X, shuffle_files=True).shuffle(10_000, seed=seed)
    return rows.batch(batch_size).prefetch(tf.data.AUTOTUNE)
