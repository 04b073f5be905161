"""Every format of ``pipelines.sources`` as the embedding job's input: the source plans the rows and reads them.

So a row has the key and the values that it has in a prepared dataset. The driver writes the list of each unit's rows to
a small file, which the worker reads; formats that are read faster in another way have inputs of their own.
"""

import dataclasses
import functools
import hashlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from .. import checksums, contract, storage
from ..errors import PipelineError, Rejection
from ..formats.files import Content, owner
from ..sources import Fields, Plan, Schema, Source, make_source
from ..sources.work_lists import read_work_list, write_work_list
from .base import Block, BlockReference, Rows, Writing, block_rows, is_row_of


@dataclasses.dataclass(frozen=True)
class Listed(Rows):
    """The rows of a source.

    Attributes:
        source: Plans and reads them.
        schema: What each row looks like in the source.
        keep: Name under which the output takes the label over, if it does.
        plan: The rows, on the driver; it does not travel to the workers.
        folder: Where the lists of the units' rows lie.

    Example:
        >>> dataset = open_listed("digits", None, "key", "x", ()).fitted([64], "uint8").listed_in("lists")
        >>> os.makedirs("lists")
        >>> dataset.write_lists(lambda name: open(name, "wb"), "lists", dataset.blocks("all"))
        >>> [block] = dataset.read(dataset.blocks("all")[0])
        >>> block.keys[:2], block.x.shape
        (['digits-00000', 'digits-00001'], (1797, 64))
    """

    source: Source
    schema: Schema
    keep: tuple[str, ...]
    plan: Plan | None = dataclasses.field(compare=False, repr=False)
    folder: str = ""

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)} | {"plan": None}

    @property
    def rejected(self) -> Sequence[Rejection]:
        """See ``Rows.rejected``."""
        return self._plan.rejected

    @property
    def hidden(self) -> int:
        """See ``Rows.hidden``."""
        return self._plan.hidden

    @property
    def unread(self) -> tuple[str, ...]:
        """See ``Rows.unread``."""
        return self._plan.unread

    @property
    def columns_sha256(self) -> str | None:
        """See ``Rows.columns_sha256``."""
        return checksums.columns_sha256({"columns": self.schema.columns})

    @property
    def is_far(self) -> bool:
        """See ``Rows.is_far``: a source keeps files open, or copies of them, for all who ask."""
        return False

    def blocks(self, split: str | None) -> list[BlockReference]:
        """See ``Rows.blocks``; None is all of them."""
        splits = self._splits()
        if split in self._plan.lost:
            raise PipelineError(
                f"{self.path} has no row of split {split!r} that is left: all have keys of rows before them, give the "
                "rows of each split keys of their own"
            )
        if split not in (None, "all", *splits):
            expected = f"expected one of {splits}" if splits != ["all"] else "it has none of its own: leave it out"
            raise PipelineError(f"{self.path} has no split {split!r}, {expected}")
        step = block_rows(self.schema.shape, self.schema.dtype)
        blocks = []
        for name in splits if split in (None, "all") else [split]:
            files = self._plan.rows["file"].take(pa.array(self._members[name])).combine_chunks()
            ends = [*(np.flatnonzero(np.diff(files.indices.to_numpy())) + 1).tolist(), len(files)]
            first = 0
            for end in ends:  # a unit's rows lie in one file
                file = files[first].as_py()
                blocks += [BlockReference(name, file, at, min(step, end - at)) for at in range(first, end, step)]
                first = end
        return blocks

    def files_of(self, block: BlockReference) -> Sequence[str]:
        """See ``Rows.files_of``; of formats whose rows lie in several files at once all of them."""
        return [self._owners[block.file]] if self._owners else sorted(self.contents)

    def digest(self, block: BlockReference) -> Any:
        """See ``Rows.digest``: which rows of the file, which others may make fewer, and how they are read."""
        rows = self._plan.rows.take(pa.array(self._members[block.split][block.first : block.first + block.rows]))
        named = hashlib.sha256(storage.to_json([rows[name].to_pylist() for name in ("key", "position")]))
        files = [[file, self.contents[file].sha256] for file in self.files_of(block)]
        kept = str(self._kept(np.zeros(0, np.int64)).schema) if self.keep else ""
        return [files, self.schema.dtype, self.schema.shape, self.schema.columns, kept, named.hexdigest()]

    def _splits(self) -> list[str]:
        return [split or "all" for split in self._plan.rows["split"].unique().to_pylist()]

    @functools.cached_property
    def _members(self) -> dict[str, np.ndarray]:
        names = np.where(self._plan.splits == "", "all", self._plan.splits)
        return {split: np.flatnonzero(names == split) for split in self._splits()}

    @functools.cached_property
    def _owners(self) -> dict[str, str]:
        """The file of the input that holds each file of the plan, itself or as a member; empty where others matter."""
        places = self._plan.rows["file"].unique().to_pylist()
        owners = {place: owner(place, self.contents.__contains__) for place in places}
        return owners if {*owners.values()} == self.contents.keys() else {}

    @property
    def _plan(self) -> Plan:
        assert self.plan is not None, "only the driver asks what rows there are"
        return self.plan

    def listed_in(self, folder: str) -> "Listed":
        """See ``Rows.listed_in``."""
        return dataclasses.replace(self, folder=folder)

    def write_lists(self, writing: Writing, folder: str, blocks: Sequence[BlockReference]) -> None:
        """See ``Rows.write_lists``."""
        for block in blocks:
            rows = self._members[block.split][block.first : block.first + block.rows]
            with writing(f"{folder}/{_name(block)}") as file:
                write_work_list(file, self._plan, rows, {})

    def read(self, block: BlockReference) -> Iterator[Block]:
        """See ``Rows.read``."""
        work = read_work_list(os.path.join(self.folder, _name(block)))
        positions = work.rows["position"].to_numpy()
        for rows, batch in work.read(self.source, self.schema):
            good = rows[batch.good]
            reasons = {int(rows[i]): reason for i, reason in batch.reasons.items()}
            x = batch.x.reshape(len(good), *(self.shape or ()))
            yield Block(
                block.file,
                work.keys(good),
                x,
                positions[good],
                work.rejections(reasons),
                self._kept(batch.labels) if self.keep else None,
            )

    def _kept(self, labels: np.ndarray | None) -> pa.Table:
        """The classes by name; by number where their names are numbers."""
        names = self.schema.labels or ()
        numbers = all(name.isascii() and name.isdigit() for name in names)
        classes = pa.array([int(name) for name in names], pa.int64()) if numbers else pa.array(names, pa.string())
        return pa.table({self.keep[0]: classes.take(pa.array(labels))})

    def fitted(self, shape: Sequence[int | None], dtype: str) -> "Listed":
        """See ``Rows.fitted``: a row of as many values takes the signature's shape."""
        known = tuple(size for size in shape if size is not None)
        if len(known) < len(shape) or not self.may_be(dtype) or not is_row_of(self.schema.shape, known):
            raise PipelineError(
                f"the signature takes {dtype} {list(shape)}, the rows of {self.path} are {self.dtype} "
                f"{list(self.schema.shape)}: name another --signature, or embed with a model for such rows"
            )
        return dataclasses.replace(self, shape=known, dtype=dtype, stored=self.dtype)


def _name(block: BlockReference) -> str:
    return f"{block.split}-{block.first:012d}"


def open_listed(
    kind: str, path: str | None, key: str, column: str, keep: tuple[str, ...], known: Fields | None = None
) -> Listed:
    """The rows of a source, planned.

    Args:
        kind: As ``pipelines.preprocess --source`` spells it.
        path: As its ``--input``.
        key, column: Names that the user gave, or those of the contract.
        keep: At most one name, of the label.
        known: What else is known of the fields.

    Raises:
        PipelineError: See ``make_source`` and ``Source.plan``; or there is no such label.
    """
    named = make_source(kind, path).takes
    label = keep[0] if keep and keep[0] != contract.LABEL and "label" in named else None
    if len(keep) > 1 or (keep and keep[0] != contract.LABEL and label is None):
        raise PipelineError(f"{path or kind} has at most a label to keep, not {list(keep)}")
    fields = Fields(key if key != contract.KEY else None, column if column != contract.X else None, label)
    fields = fields.over(known or Fields())
    source = make_source(kind, path, fields=fields)
    plan = source.plan().without_repeated_keys()
    if keep and plan.schema.labels is None:
        raise PipelineError(f"{path or kind} has no labels to keep")
    contents = {file: Content(sha256, size) for file, size, sha256 in plan.inputs}
    schema = plan.schema
    signature = contract.signature(contract.EMBED, schema.dtype)
    return Listed(path or kind, schema.shape, schema.dtype, signature, contents, source, schema, keep, plan)
