"""What a worker reports of its shard, and what the driver makes of all reports.

The facts of a shard travel in its commit record as plain JSON values: counts of labels, moments, the first images. They
are added up in the order of the shards, so that the sum does not depend on who did which shard when.
"""

import functools
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..jobs.commits import Unit
from ..sources import Batch, Schema
from . import thumbnails
from .moments import ColumnMoments, Moments, combine, has_columns

VERSION = 2  # of the facts: a shard whose record tells less is written again


class Tally:
    """Counts, label counts, moments and first images of the rows of a shard.

    Args:
        schema: What every row looks like.
        shown: From how many of the shard's first references an image is kept; 0 where rows are no images.

    Example:
        >>> tally = Tally(Schema((2,), "uint8", ("cat", "dog")), shown=0)
        >>> tally.add(Batch(np.arange(2), np.uint8([[0, 1], [2, 3]]), np.array([1, 1]), {}), rows=np.arange(2))
        >>> tally.rows, tally.facts()["labels"]
        (2, {'1': 2})
    """

    def __init__(self, schema: Schema, shown: int) -> None:
        self.rows = 0
        self._by_column, self._shown = has_columns(schema.shape, schema.dtype), shown
        self._labels: dict[int, int] = {}
        self._moments = Moments()
        self._columns: list[ColumnMoments] = []
        self._pictures: list[np.ndarray] = []

    def add(self, batch: Batch, rows: np.ndarray) -> None:
        """Takes in what was read; ``rows`` are the numbers of those references within the shard."""
        if len(batch.x) == 0:
            return
        self.rows += len(batch.x)
        self._moments = self._moments + Moments.of(batch.x)
        if self._by_column:
            own = ColumnMoments.of(batch.x)
            self._columns = [self._columns[0] + own] if self._columns else [own]
        if rows[0] < self._shown:
            self._pictures.append(thumbnails.thumbnails(batch.x[rows[batch.good] < self._shown]))
        if batch.labels is not None:
            for label, count in zip(*np.unique(batch.labels, return_counts=True), strict=True):
                self._labels[int(label)] = self._labels.get(int(label), 0) + int(count)

    def facts(self) -> dict[str, Any]:
        """What the driver needs of the shard."""
        return {
            "labels": {str(label): count for label, count in self._labels.items()},
            "moments": self._moments.to_json(),
            "columns": [columns.to_json() for columns in self._columns],
            "pictures": [thumbnails.to_json(x) for x in self._pictures],
        }


def statistics(schema: Schema, units: Sequence[Unit], commits: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Per split: rows, rows of each label, moments of x, and of float vectors those of each column."""
    splits: dict[str, Any] = {}
    for split in dict.fromkeys(unit.task["split"] for unit in units):
        mine = [commit for unit, commit in zip(units, commits, strict=True) if unit.task["split"] == split]
        facts = [commit["facts"] for commit in mine]
        splits[split] = {"rows": sum(commit["rows"] for commit in mine)}
        if schema.labels:
            counts = [sum(f["labels"].get(str(i), 0) for f in facts) for i in range(len(schema.labels))]
            splits[split]["labels"] = dict(zip(schema.labels, counts, strict=True))
        splits[split]["x"] = combine(Moments.from_json(f["moments"]) for f in facts).summary()
        if has_columns(schema.shape, schema.dtype):
            columns = (ColumnMoments.from_json(value) for f in facts for value in f["columns"])
            splits[split]["columns"] = functools.reduce(operator.add, columns).summary()
    return {"shape": list(schema.shape), "dtype": schema.dtype, "splits": splits}


def pictures(schema: Schema, units: Sequence[Unit], commits: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
    """By split its first rows as images, ``[N, h, w, c]``; a split without is not there."""
    parts: dict[str, list[np.ndarray]] = {}
    for unit, commit in zip(units, commits, strict=True):
        for value in commit["facts"]["pictures"]:
            parts.setdefault(unit.task["split"], []).append(thumbnails.from_json(value, schema.dtype))
    return {split: np.concatenate(found) for split, found in parts.items()}
