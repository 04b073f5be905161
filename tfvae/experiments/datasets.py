"""Data that several papers have, read from the files that everyone has."""

import pathlib

import numpy as np

from tfvae.pipelines import storage
from tfvae.pipelines.formats import idx


def mnist(directory: str) -> tuple[np.ndarray, np.ndarray]:
    """MNIST from its four IDX files in ``directory``, greyscale in [0, 1], float32 ``[60000, 784]``, ``[10000, 784]``.

    Raises:
        ValueError: For a file that holds no images.
    """
    train, test = (_images(directory, prefix) for prefix in ("train", "t10k"))
    return _greys(train), _greys(test)


def silhouettes(path: str) -> tuple[np.ndarray, np.ndarray]:
    """Caltech-101 silhouettes of 28 x 28 from an .npz, of 0 and 1, float32: 4,100 to train on and 2,307 to test.

    Raises:
        ValueError: For a file without the two arrays.
    """
    with np.load(path, allow_pickle=False) as file:
        missing = {"train_data", "test_data"} - set(file.files)
        if missing:
            raise ValueError(f"{path} has no {' and no '.join(sorted(missing))}, only {', '.join(file.files)}.")
        return file["train_data"].astype(np.float32), file["test_data"].astype(np.float32)


def faces(path: str, divisor: int = 256) -> np.ndarray:
    """Frey Face from its .npy file, uint8 ``[1965, 28, 20]``, as float32 ``[1965, 560]``; by 255 they are levels."""
    return np.load(path, allow_pickle=False).reshape(-1, 560).astype(np.float32) / divisor


def cells(path: str) -> np.ndarray:
    """Counts of genes from the ``counts`` of an .npz, float32 ``[N, G]``.

    Raises:
        ValueError: For a file without them.
    """
    with np.load(path, allow_pickle=False) as file:
        if "counts" not in file.files:
            raise ValueError(f"{path} has no counts, only {', '.join(file.files)}.")
        return file["counts"].astype(np.float32)


def binary(greys: np.ndarray, seed: int) -> np.ndarray:
    """Each pixel drawn once as 0 or 1 by its grey, float32.

    Example:
        >>> binary(np.array([[0.0, 1.0]]), 0).tolist()
        [[0.0, 1.0]]
    """
    return (np.random.default_rng(seed).random(greys.shape) < greys).astype(np.float32)


def first_rows(test: np.ndarray, test_rows: int) -> np.ndarray:
    """The first rows of a test set.

    Raises:
        ValueError: For fewer than one, or more than there are.

    Example:
        >>> first_rows(np.zeros([5, 2]), 3).shape
        (3, 2)
    """
    if not 1 <= test_rows <= len(test):
        raise ValueError(f"test_rows must lie between 1 and {len(test):,}, received {test_rows:,}.")
    return test[:test_rows]


def _greys(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), 784).astype(np.float32) / 255


def _images(directory: str, prefix: str) -> np.ndarray:
    path = str(pathlib.Path(directory) / f"{prefix}-images-idx3-ubyte")
    images = idx.read(path if storage.is_file(path) else f"{path}.gz")
    if images.dtype != np.uint8 or images.shape[1:] != (28, 28):
        raise ValueError(
            f"{path} holds {images.dtype} {list(images.shape)}, expected the bytes of pictures, [N, 28, 28]."
        )
    return images
