"""Checkpoints on disk: a folder each, its arrays in an ``.npz`` file and, written last, a record with their checksums.

Without its record a checkpoint is not there; one whose bytes have changed since is damaged, and is not read. Nothing is
pickled.
"""

import os
import re

import numpy as np

from tfvae.engine.course import State
from tfvae.pipelines import checksums, storage

RECORD, ARRAYS = "checkpoint.json", "arrays.npz"
_POINT = re.compile(r"epoch-\d{6,}-step-\d{9,}")
_BEST = re.compile(r"best-epoch-\d{6,}")


def point(epoch: int, steps: int) -> str:
    """The name of the checkpoint after so many whole epochs and steps of the next one.

    Example:
        >>> point(2, 50)
        'epoch-000002-step-000000050'
    """
    return f"epoch-{epoch:06d}-step-{steps:09d}"


def best(epoch: int) -> str:
    """The name of the weights after so many epochs, if they are the best so far.

    Example:
        >>> best(2)
        'best-epoch-000002'
    """
    return f"best-epoch-{epoch:06d}"


def points(folder: str) -> list[str]:
    """The names of the checkpoints in a folder, those of earlier points first."""
    return [name for name in storage.names(folder) if _POINT.fullmatch(name) and _is_there(folder, name)]


def bests(folder: str) -> list[str]:
    """The names of the best weights in a folder, the earlier and worse ones first."""
    return [name for name in storage.names(folder) if _BEST.fullmatch(name) and _is_there(folder, name)]


def _is_there(folder: str, name: str) -> bool:
    return storage.is_file(os.path.join(folder, name, RECORD))


def write(folder: str, name: str, state: State) -> None:
    """Write a checkpoint, whole or not at all.

    Raises:
        OSError: It cannot be written; nothing of it is left.
    """
    place = os.path.join(folder, name)
    remove(folder, name)
    try:
        with storage.replacing(os.path.join(place, ARRAYS), place) as file:
            np.savez(file, allow_pickle=False, **{key: np.asarray(array) for key, array in state.arrays.items()})
        record = {"files": [checksums.describe(place, ARRAYS)], "state": state.facts}
        with storage.replacing(os.path.join(place, RECORD), place) as file:
            file.write(checksums.record_bytes(record))
    except OSError:
        remove(folder, name)
        raise


def read(folder: str, name: str) -> State:
    """A checkpoint as it was written.

    Raises:
        DamagedError: It is not.
    """
    place = os.path.join(folder, name)
    record = checksums.read_record(os.path.join(place, RECORD))
    if changed := checksums.changed(place, checksums.entries(record)):
        raise checksums.DamagedError(f"{os.path.join(place, changed[0])} is damaged: it is not as it was written")
    with storage.open_to_read(os.path.join(place, ARRAYS)) as file, np.load(file, allow_pickle=False) as arrays:
        return State(dict(arrays), record["state"])


def remove(folder: str, name: str) -> None:
    """Remove a checkpoint, its record first."""
    place = os.path.join(folder, name)
    for file in sorted(storage.names(place), key=lambda file: file != RECORD):
        storage.remove(os.path.join(place, file))
    storage.remove_folder_if_empty(place)


def prune(folder: str, keep: int) -> None:
    """Leave the last few checkpoints, and of the best weights those that were so at one of them."""
    last = points(folder)[-keep:]
    for name in points(folder)[:-keep]:
        remove(folder, name)
    for name in [name for name in bests(folder) if _epochs(name) <= _epochs(last[0])][:-1]:
        remove(folder, name)


def remove_after(folder: str, name: str) -> None:
    """Remove what was written after a checkpoint."""
    later = [one for one in points(folder) if one > name]
    for one in [*later, *(one for one in bests(folder) if _epochs(one) > _epochs(name))]:
        remove(folder, one)


def _epochs(name: str) -> int:
    return int(name.split("epoch-")[1].split("-")[0])
