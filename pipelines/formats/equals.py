"""Which rows equal an earlier one: by their digests, in memory or, where there are too many, by way of files."""

import contextlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from .. import storage

_MOST_FILES = 256
_ROWS_A_FILE = 1 << 21


def later_of_equals(digests: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows that have an earlier row's digest, in rising order, and of each the first that has it.

    Args:
        digests: Integers `[N, W]`, long enough for no two different rows to have the same.

    Returns:
        Two arrays of row numbers, int64 `[M]`.

    Example:
        >>> later_of_equals(np.uint64([[7, 7], [0, 1], [7, 7], [0, 1], [7, 7]]))
        (array([2, 3, 4]), array([0, 1, 0]))
    """
    suspects = _with_equal_words(digests[:, 0])  # sorting one word takes a tenth of sorting them all
    digests = digests[suspects]
    order = np.lexsort(digests.T)  # stable: among equals the earlier row comes first
    begins = np.ones(len(order), bool)
    begins[1:] = (digests[order[1:]] != digests[order[:-1]]).any(axis=1)
    first = order[np.maximum.accumulate(np.where(begins, np.arange(len(order)), 0))]
    later = np.flatnonzero(~begins)
    later = later[np.argsort(order[later])]
    return suspects[order[later]], suspects[first[later]]


def _with_equal_words(words: np.ndarray) -> np.ndarray:
    """The rows whose word another row has too, in rising order."""
    ordered = np.sort(words)
    if (ordered[1:] != ordered[:-1]).all():  # as nearly always
        return np.zeros(0, np.int64)
    order = np.argsort(words)
    equal = np.diff(words[order]) == 0
    return np.sort(order[np.r_[equal, False] | np.r_[False, equal]])


def later_of_many(digests: Iterable[np.ndarray], rows: int, folder: str) -> tuple[np.ndarray, np.ndarray]:
    """The same of many rows, whose digests come in blocks: many are sorted by way of unnamed files.

    Memory stays the same however many rows there are.

    Args:
        digests: Blocks of digests, integers of 64 bits `[n, W]`, in the order of the rows.
        rows: How many rows there are at most.
        folder: Where the files lie until the function returns.

    Example:
        >>> later_of_many(iter([np.int64([[7, 7], [0, 1]]), np.int64([[7, 7]])]), 3, ".")
        (array([2]), array([0]))
    """
    count = min(_MOST_FILES, 1 + rows // _ROWS_A_FILE)
    if count == 1:
        return later_of_equals(np.concatenate([*digests] or [np.zeros([0, 1], np.int64)]))
    seen = 0
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(storage.scratch(folder)) for _ in range(count)]
        for block in digests:
            numbered = np.column_stack([block.view(np.int64), np.arange(seen, seen + len(block))])
            shares = (block[:, 0].view(np.uint64) % np.uint64(count)).astype(np.uint8)
            ends = np.bincount(shares, minlength=count).cumsum()
            for file, some in zip(files, np.split(numbered[shares.argsort(kind="stable")], ends[:-1]), strict=True):
                file.write(some.tobytes())
            seen += len(block)
            width = numbered.shape[1]
        found = [_later_in(file, width) for file in files] if seen else []
    later, first = (np.concatenate([pair[i] for pair in found] or [np.zeros(0, np.int64)]) for i in (0, 1))
    order = np.argsort(later)
    return later[order], first[order]


def _later_in(file: Any, width: int) -> tuple[np.ndarray, np.ndarray]:
    file.seek(0)
    rows = np.frombuffer(file.read(), np.int64).reshape(-1, width)
    later, first = later_of_equals(rows[:, :-1])
    return rows[later, -1], rows[first, -1]
