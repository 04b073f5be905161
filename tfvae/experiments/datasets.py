"""Data that several papers have, read from the files that everyone has."""

import contextlib
import pathlib
import zipfile
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tfvae.pipelines import storage
from tfvae.pipelines.formats import idx
from tfvae.pipelines.formats.arrays import load_npy


def mnist(directory: str) -> tuple[np.ndarray, np.ndarray]:
    """MNIST from its four IDX files in ``directory``, greyscale in [0, 1], float32 ``[60000, 784]``, ``[10000, 784]``.

    Raises:
        FileNotFoundError: They are not there; it says what was expected.
        ValueError: For a file that holds no images.
    """
    train, test = (_images(directory, prefix) for prefix in ("train", "t10k"))
    return _greys(train), _greys(test)


def silhouettes(path: str) -> tuple[np.ndarray, np.ndarray]:
    """Caltech-101 silhouettes of 28 x 28 from an .npz, of 0 and 1, float32: 4,100 to train on and 2,307 to test.

    Raises:
        FileNotFoundError: It is not there.
        ValueError: For a file without the two arrays.
    """
    with _arrays(path, ["train_data", "test_data"], "Caltech-101 silhouettes, NumPy's .npz") as file:
        return file["train_data"].astype(np.float32), file["test_data"].astype(np.float32)


def faces(path: str, divisor: int = 256) -> np.ndarray:
    """Frey Face from its .npy file, uint8 ``[1965, 28, 20]``, as float32 ``[1965, 560]``; by 255 they are levels.

    Raises:
        FileNotFoundError: It is not there.
        ValueError: For a file that holds something else.
    """
    _check_there(path, "Frey Face, NumPy's .npy of bytes [1965, 28, 20]")
    faces = load_npy(path)
    if faces.dtype != np.uint8 or faces.size == 0 or faces.size % 560:
        raise ValueError(f"{path} holds {faces.dtype} {list(faces.shape)}, expected bytes of faces, [1965, 28, 20].")
    return faces.reshape(-1, 560).astype(np.float32) / divisor


def cells(path: str) -> np.ndarray:
    """Counts of genes from the ``counts`` of an .npz, float32 ``[N, G]``.

    Raises:
        FileNotFoundError: It is not there.
        ValueError: For a file without them.
    """
    with _arrays(path, ["counts"], "blood cells, NumPy's .npz of counts [N, G]") as file:
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


def _check_there(path: str, what: str) -> None:
    if not storage.is_file(path):
        raise FileNotFoundError(
            f"{path} is not there, expected {what}: name the folder above with --data-dir (data_dir=). "
            "docs/results/published.md says what it holds, and where the files come from."
        )


@contextlib.contextmanager
def _arrays(path: str, names: Sequence[str], what: str) -> Iterator[Any]:
    """The arrays of an .npz file, which has these at least."""
    _check_there(path, what)
    try:
        file = np.load(path, allow_pickle=False)
        found = file.files
    except (AttributeError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} cannot be read, expected {what}: {error}") from error
    with file:
        missing = sorted({*names} - {*found})
        if missing:
            raise ValueError(f"{path} has no {' and no '.join(missing)}, only {', '.join(found)}.")
        yield file


def _greys(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), 784).astype(np.float32) / 255


def _images(directory: str, prefix: str) -> np.ndarray:
    path = str(pathlib.Path(directory) / f"{prefix}-images-idx3-ubyte")
    if not storage.is_file(path):
        _check_there(path := f"{path}.gz", "the IDX files of MNIST, or Fashion-MNIST, gzipped or not")
    images = idx.read(path)
    if images.dtype != np.uint8 or images.shape[1:] != (28, 28):
        raise ValueError(
            f"{path} holds {images.dtype} {list(images.shape)}, expected the bytes of pictures, [N, 28, 28]."
        )
    return images
