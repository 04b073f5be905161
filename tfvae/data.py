"""Prepared datasets as Keras wants them: arrays in memory, or a stream of batches.

A prepared dataset is a TFDS directory whose examples hold a ``key``, the observation ``x`` and, where the source has
one, a ``label``. It is read through TFDS, so that nothing here depends on how it was written.
"""

import contextlib
import functools
import os
from typing import Any, overload

import numpy as np
import tensorflow as tf

from tfvae.arguments import check_at_least, check_kind, check_path, check_truth, check_whole, check_words
from tfvae.pipelines import checksums, contract, extras, storage
from tfvae.pipelines.manifest import Manifest

PathLike = str | os.PathLike[str]
Names = list[str] | tuple[str, ...]

_ROWS_AT_ONCE = 1024


_copies = contextlib.ExitStack()  # of datasets in stores: gone when the process ends


def _on_this_machine(directory: PathLike) -> str:
    """The folder of a prepared dataset that TFDS can read: a copy of one in a store, held against its manifest."""
    check_path(in_stores=True, directory=directory)
    path = os.fspath(directory)
    if not storage.is_address(path):
        return path
    path = storage.absolute(path)
    manifest = os.path.join(path, contract.MANIFEST)
    return _copied(path, storage.sha256(manifest)) if storage.exists(manifest) else path


def _prepared(directory: PathLike) -> str:
    folder = _on_this_machine(directory)
    if not os.path.exists(os.path.join(folder, contract.DATASET_INFO)):
        raise ValueError(contract.no_dataset(directory))
    return folder


@functools.cache
def _copied(path: str, manifest_sha256: str) -> str:
    folder = _copies.enter_context(storage.local_folder(path, but=(contract.WORK,)))
    manifest = Manifest.find(folder)
    if manifest and (damaged := checksums.changed(folder, manifest.files().values())):
        raise ValueError(f"{path}/{damaged[0]} is not as it was written: the command that prepared it makes it again.")
    return folder


def open_dataset(directory: PathLike) -> Any:
    """The TFDS builder of a prepared dataset.

    Raises:
        ValueError: If the directory holds none, or one without ``x``.
    """
    with extras.needed("pipelines"):
        import tensorflow_datasets as tfds  # half a second that only readers of datasets should pay

    folder = _prepared(directory)
    storage.refuse_other_encodings(folder)
    builder = tfds.builder_from_directory(folder)
    if contract.X not in (builder.info.features or {}):
        raise ValueError(f"The dataset in {directory} has no feature x, only {sorted(builder.info.features)}.")
    return builder


def identity(directory: PathLike) -> dict[str, Any]:
    """Which dataset lies there: its ``name``, its ``folder`` (no path) and the ``manifest_sha256``, None without one.

    With a manifest, ``standardized`` says whether its columns were, and ``columns_sha256`` differs where columns have
    other names, words or units, or come in another order.

    Raises:
        ValueError: If the directory holds no dataset.

    Example:
        >>> identity(DIGITS)["name"], len(identity(DIGITS)["manifest_sha256"])
        ('digits', 64)
    """
    manifest = Manifest.find(_on_this_machine(directory))
    return {
        "name": open_dataset(directory).info.name,
        "folder": os.path.basename(storage.absolute(directory)) or None,
        "manifest_sha256": manifest and storage.sha256(manifest.path),
        "standardized": manifest and manifest.standardized is not None,
        "columns_sha256": manifest and manifest.columns_sha256,
    }


def has_missing(directory: PathLike) -> bool:
    """Whether the dataset was prepared so that numbers of x may be missing: NaN, for ``likelihoods.missing``.

    Example:
        >>> has_missing(DIGITS)
        False
    """
    manifest = Manifest.find(_prepared(directory))
    return manifest is not None and manifest.has_missing


def _read(directory: PathLike, split: str, features: str | Names, **options: Any) -> tf.data.Dataset:
    """The rows of a split, each a tensor or, of several features, a mapping of them."""
    check_kind("split", split, str, "the name of one, such as 'train'")
    builder = open_dataset(directory)
    if split not in builder.info.splits:
        raise ValueError(f"{directory} has no split {split!r}, only {', '.join(sorted(builder.info.splits))}.")
    check_words(features=[features] if isinstance(features, str) else features)
    if not features:
        raise ValueError(f"features names none, expected some of {', '.join(sorted(builder.info.features))}.")
    for name in [features] if isinstance(features, str) else features:
        if name not in builder.info.features:
            raise ValueError(f"{directory} has no feature {name!r}, only {', '.join(sorted(builder.info.features))}.")
    return builder.as_dataset(split=split, **options).map(
        lambda row: row[features] if isinstance(features, str) else {name: row[name] for name in features},
        num_parallel_calls=tf.data.AUTOTUNE,
    )


def _no_rows(spec: tf.TensorSpec) -> np.ndarray:
    return np.zeros([0, *spec.shape], spec.dtype.as_numpy_dtype)


@overload
def load(directory: PathLike, split: str = ..., features: str = ...) -> np.ndarray: ...
@overload
def load(directory: PathLike, split: str, features: Names) -> dict[str, np.ndarray]: ...
@overload
def load(directory: PathLike, *, features: Names) -> dict[str, np.ndarray]: ...


def load(
    directory: PathLike, split: str = contract.TRAIN, features: str | Names = contract.X
) -> np.ndarray | dict[str, np.ndarray]:
    """One feature of a split as an array, ``[N, *shape]``, or several by their names, in the dataset's order and dtype.

    Several are what ``fit`` takes of rows that are more than x: ``load(directory, features=["x", "condition"])``.

    Raises:
        ValueError: If there is no such dataset, split or feature.

    Example:
        >>> x = load(DIGITS, "test")
        >>> x.shape[1:], x.dtype
        ((8, 8, 1), dtype('uint8'))
        >>> rows = load(DIGITS, "test", ["x", "label"])
        >>> rows["label"].shape == rows["x"].shape[:1]
        True
    """
    rows = _read(directory, split, features)
    batches = list(rows.batch(_ROWS_AT_ONCE).as_numpy_iterator())
    if not batches:
        return tf.nest.map_structure(
            lambda spec: np.zeros([0, *spec.shape], spec.dtype.as_numpy_dtype), rows.element_spec
        )
    return tf.nest.map_structure(lambda *parts: np.concatenate(parts), *batches)


def stream(
    directory: PathLike,
    split: str = contract.TRAIN,
    batch_size: int = 100,
    shuffle: bool = True,
    seed: int = 0,
    features: str | Names = contract.X,
) -> tf.data.Dataset:
    """Batches ``[B, *shape]`` from disk, for data that do not fit in memory; the last one may be shorter.

    Rows lie in the shards in the order of a hash of their keys; a shuffle mixes the shards and a window of 10,000 rows,
    in another order in each pass, which the seed fixes. Several ``features`` come by their names, as in ``load``.

    Example:
        >>> next(iter(stream(DIGITS, "train", batch_size=32))).shape
        TensorShape([32, 8, 8, 1])
    """
    check_at_least(1, batch_size=batch_size)
    check_truth(shuffle=shuffle)
    check_whole(seed=seed)
    if not shuffle:
        return _read(directory, split, features).batch(batch_size).prefetch(tf.data.AUTOTUNE)
    with extras.needed("pipelines"):
        import tensorflow_datasets as tfds  # as above

    by_seed = tfds.ReadConfig(shuffle_seed=seed)  # without it the order of files is another one in each process
    rows = _read(directory, split, features, shuffle_files=True, read_config=by_seed).shuffle(10_000, seed=seed)
    return rows.batch(batch_size).prefetch(tf.data.AUTOTUNE)
