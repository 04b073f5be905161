"""What the sources of named fields share: gathering their rows on the driver, and classes by name."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ..errors import PipelineError, Rejection, RowError
from ..formats.arrays import grey
from ..formats.files import Found
from .base import Fields
from .plan import MAX_CLASSES, Input, Plan, Schema, by_number, class_names, located, together


@dataclasses.dataclass
class TableRows:
    """The rows of some files, as they are found.

    Example:
        >>> rows = TableRows()
        >>> rows.add("a.csv", ["one", None], [0, 9], {1: "the key is empty"})
        >>> rows.plan(Schema((2,), "float32", None), [], Found("", ())).rows["key"].to_pylist(), rows.rejected[0].key
        (['one'], 'a.csv:9')
    """

    rejected: list[Rejection] = dataclasses.field(default_factory=list)
    _tables: list[pa.Table] = dataclasses.field(default_factory=list)

    def add(
        self,
        file: str,
        keys: Sequence[Any],
        positions: Sequence[int] | np.ndarray,
        reasons: dict[int, str],
        split: str | None = None,
    ) -> None:
        """Takes the rows of a block, and rejects those that have a reason, by their index in it."""
        for row, reason in sorted(reasons.items()):
            key = f"{file}:{positions[row]}" if keys[row] is None else keys[row]
            self.rejected.append(Rejection(key, file, int(positions[row]), reason))
        if reasons:
            good = [row for row in range(len(keys)) if row not in reasons]
            keys, positions = [keys[row] for row in good], [positions[row] for row in good]
        if len(keys):
            self._tables.append(located(keys, file, positions, split))

    def plan(self, schema: Schema, inputs: list[Input], found: Found) -> Plan:
        """The plan.

        Raises:
            PipelineError: There are no rows.
        """
        if not self._tables:
            if not self.rejected:
                raise PipelineError(
                    f"there are no rows in {', '.join(map(found.path, found.files[:3]))}: expected one at least"
                )
            first = self.rejected[0]
            raise PipelineError(
                f"none of the {len(self.rejected)} rows can be taken; the first, {first.source}:{first.position}: "
                f"{first.reason}"
            )
        return Plan(schema, together(self._tables), inputs, self.rejected, found.hidden, found.unread)


class Classes:
    """The classes that a column of labels names: integers from 0 up, or words.

    Example:
        >>> classes = Classes()
        >>> classes.add(["cat", None, "dog"])
        >>> classes.names("rows.csv")
        ('cat', 'dog')
    """

    def __init__(self) -> None:
        self._found: set[Any] = set()

    def add(self, labels: Iterable[Any]) -> None:
        """Takes a block's labels, integers or text; None is a row without."""
        self._found.update(label for label in labels if label is not None and label != "")
        if len(self._found) > MAX_CLASSES:
            raise PipelineError(f"more than {MAX_CLASSES} different labels, expected classes: name another --label")

    def names(self, path: str) -> tuple[str, ...]:
        """Names of the classes, in their order.

        Raises:
            PipelineError: No row has a label.
        """
        numbers = [label for label in self._found if isinstance(label, int) and label >= 0]
        words = [label for label in self._found if isinstance(label, str)]
        if not numbers and not words:
            raise PipelineError(f"no row of {path} has a label: name another --label")
        return by_number(path, tuple(sorted(words))) if words else class_names([np.array(numbers)])


class ClassIndex:
    """From labels to class indices.

    Example:
        >>> ClassIndex(("cat", "dog")).of("dog")
        1
    """

    def __init__(self, names: Sequence[str] | None):
        self._index = {name: position for position, name in enumerate(names or ())}

    def of(self, label: Any) -> int:
        """The class of a label, an integer or text.

        Raises:
            RowError: It is none of them.
        """
        if label is None or label == "":
            raise RowError("the label is null")
        if (found := self._index.get(str(label))) is None:
            raise RowError(f"label {label}, expected one of {len(self._index)} classes")
        return found


def raw_layout(fields: Fields) -> tuple[tuple[int, ...], str] | None:
    """Shape and dtype of raw bytes, or None where no shape is given: bytes are then encoded images.

    Raises:
        PipelineError: The options make no sense.

    Example:
        >>> raw_layout(Fields(shape=(28, 28)))
        ((28, 28, 1), 'uint8')
    """
    if fields.shape is None:
        if fields.dtype is not None:
            raise PipelineError("--dtype says what raw bytes hold, whose shape must be known: give --shape too")
        return None
    if not fields.shape or min(fields.shape) < 1:
        raise PipelineError(f"--shape is {list(fields.shape)}, expected sizes of 1 or more")
    if fields.dtype not in (None, "uint8", "float32"):
        raise PipelineError(f"--dtype is {fields.dtype}, expected uint8 or float32")
    dtype = fields.dtype or "uint8"
    return grey(fields.shape, dtype), dtype
