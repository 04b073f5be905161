"""Rows in units of the training rows' own spread: what is found before shards are written, and applied as they are."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from ..errors import PipelineError
from ..formats.arrays import finite_rows
from ..formats.standardization import REASON, Standardization
from ..sources import Batch, Plan, Source
from .moments import MAX_COLUMNS, ColumnMoments, has_columns

_READ_ROWS = 1 << 14  # at once
_ALL_WHOLE = 2.0**24  # below it float32 has every whole number
_ROUNDED = 0.01  # of a standard deviation: what is rounded by more is not what was given


def standardized(batch: Batch, standardize: Standardization | None) -> Batch:
    """The same rows in such units, without those that are then not finite."""
    if standardize is None or len(batch.good) == 0:
        return batch
    x = standardize(batch.x)
    finite = finite_rows(x, missing=True)  # what is NaN came so
    labels = None if batch.labels is None else batch.labels[finite]
    return Batch(
        batch.good[finite], x[finite], labels, batch.reasons | dict.fromkeys(batch.good[~finite].tolist(), REASON)
    )


def training_units(
    source: Source, plan: Plan, train: Sequence[np.ndarray], reasons: Mapping[int, str]
) -> Standardization:
    """Mean and deviation of the columns of the training rows that are not rejected; those are read for it.

    ``train`` has the numbers of the rows of each shard.

    Raises:
        PipelineError: Rows are no vectors of floats, none of them is good, or float32 has lost what a column says.
    """
    shape, dtype = plan.schema.shape, plan.schema.dtype
    if not has_columns(shape, dtype):
        are_bytes = dtype == "uint8" and has_columns(shape, "float32")
        raise PipelineError(
            f"--standardize is for vectors of at most {MAX_COLUMNS:,} float32, the rows are {dtype} {list(shape)}: "
            f"leave it out{', or take bytes as numbers, --dtype float32' * are_bytes}"
        )
    moments: ColumnMoments | None = None
    whole = np.ones(shape, bool)
    for members in train:
        for rows in np.array_split(members, -(-len(members) // _READ_ROWS)):
            kept = np.array([row for row in rows.tolist() if row not in reasons], np.int64)
            x = source.read_rows(plan.rows.take(pa.array(kept)), plan.schema).x
            if len(x):
                own = ColumnMoments.of(x)
                moments = own if moments is None else moments + own
                whole &= ((x == np.rint(x)) | np.isnan(x)).all(axis=0)
    if moments is None:
        raise PipelineError("no row of split 'train' is good, and there is nothing to standardize by")
    summary = moments.summary()
    columns = plan.schema.columns or [(str(i), None) for i in range(shape[0])]
    names = [name for name, words in columns for _ in words or [name]]
    numbers = np.array([words is None for _, words in columns for _ in words or [""]])
    _refuse_coarse(names, numbers & ~(whole & (moments.largest < _ALL_WHOLE)), moments)
    return Standardization.of(np.array(summary["mean"]), np.array(summary["std"]), numbers)


def _refuse_coarse(names: Sequence[str], looked_at: np.ndarray, moments: ColumnMoments) -> None:
    """Raise PipelineError where float32 has rounded a column by more than a hundredth of its spread."""
    spread, step = moments.std, np.spacing(moments.largest.astype(np.float32))
    told = np.where(spread > 0, 0.5 * step > _ROUNDED * spread, moments.largest >= _ALL_WHOLE)
    for i in np.flatnonzero(looked_at & told).tolist():
        raise PipelineError(
            f"column {names[i]!r} has numbers up to {moments.largest[i]:.10g} that float32 holds to {0.5 * step[i]:g}, "
            f"and their standard deviation is {spread[i]:g}: too much of what tells them apart is lost. Take a number "
            f"near {moments.mean[i]:.10g} off before, or --drop the column"
        )
