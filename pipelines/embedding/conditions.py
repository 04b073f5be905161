"""The condition of each row, for a model that asks for one: a column that travels with the rows as one that is kept."""

import dataclasses

import numpy as np
import pyarrow as pa

from ..formats.parquet import one_array, tensors
from ..inputs.base import Block


def take_condition(block: Block, column: str, shape: tuple[int, ...], keep: bool) -> tuple[Block, np.ndarray]:
    """The rows whose condition can be taken, the others rejected, and the conditions, float32 ``[N, *shape]``.

    Args:
        block: Rows that keep the column.
        column: Its name. It holds numbers, or lists of them.
        shape: A condition's shape, as the model's signature has it.
        keep: Whether the output takes the column over.

    Example:
        >>> kept = pa.table({"digit": [7, None]})
        >>> block = Block("rows.parquet", ["a", "b"], np.zeros([2, 4], np.float32), np.arange(2), [], kept)
        >>> block, condition = take_condition(block, "digit", (1,), keep=False)
        >>> condition.tolist(), block.rejected[0].reason
        ([[7.0]], "the condition 'digit' has values that are not finite")
    """
    assert block.kept is not None, "the job keeps the column of the condition"
    array = one_array(block.kept.column(column))
    if _is_number(array.type):
        array = pa.FixedSizeListArray.from_arrays(array.cast(pa.float32(), safe=False), 1)
    size = int(np.prod(shape))
    if pa.types.is_fixed_size_list(array.type) and array.type.list_size != size:
        reasons = dict.fromkeys(range(len(block)), f"x has {array.type.list_size} values, expected {size}")
        good, condition = np.zeros(0, np.int64), np.zeros((0, *shape), np.float32)
    else:
        reasons = {}
        good, condition = tensors(array, shape, "float32", reasons)
    if reasons:
        says = {row: f"the condition {column!r}{reason.removeprefix('x')}" for row, reason in reasons.items()}
        block = block.take(good, [block.rejection(row, reason) for row, reason in says.items()])
    if not keep and block.kept is not None:
        kept = block.kept.drop_columns([column])
        block = dataclasses.replace(block, kept=kept if kept.num_columns else None)
    return block, condition


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
