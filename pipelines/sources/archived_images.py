"""Images in tar and zip archives, read where they lie."""

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import storage
from ..errors import PipelineError, Rejection, RowError
from ..formats import archives
from ..formats.files import find_files, is_hidden, root_of
from ..formats.images import SUFFIXES, foreign
from .base import Opened, RowSource
from .images import label_of, schema_of
from .pictures import Pictures
from .plan import Plan, Schema, describe
from .table_rows import ClassIndex, TableRows


class ArchivedImages(RowSource):
    """PNG and JPEG images of a ``.tar``, ``.tar.gz``, ``.tar.bz2``, ``.tar.xz`` or ``.zip`` file, or of several.

    The key is the path in the archive; where a pattern names them, the archive's own path goes before it. The label is
    the name of the parent folder in the archive, when the images lie in sub-folders, or what a folder ``label=VALUE``
    says. A member that is listed twice is
    a duplicate, of which the first counts. The position of a row is its place among the archive's members.

    Links, devices, absolute paths and ``..`` are rejected, whatever they would be. A ``.tar.gz`` is unpacked from the
    last known state before each image (see ``pipelines.formats.seekable_gzip``), which costs some milliseconds, a
    ``.tar.bz2`` or ``.tar.xz`` from its front for each shard: ``.tar`` and ``.zip`` are faster.
    """

    SUFFIXES = archives.SUFFIXES
    takes = ("resize", "crop")

    def plan(self) -> Plan:
        """See ``Source.plan``."""
        found = find_files(self.input_path, self.SUFFIXES)
        rows, hidden = TableRows(), 0
        others: list[str] = []
        names: list[str] = []
        first: list[Callable[[], Any]] = []
        shapes: list[tuple[int, ...] | None] = []
        for file in found.files:
            path, prefix = found.path(file), f"{file}/" if self._several else ""
            content = archives.open_member(path, self._pictures.limit)
            positions: list[int] = []
            for position, member in enumerate(archives.members(path)):
                wanted, other = member.name.lower().endswith(SUFFIXES), foreign(member.name)
                if is_hidden(member.name):
                    hidden += wanted or other is not None
                elif reason := member.refused or other:
                    rows.rejected.append(Rejection(prefix + member.name, file, position, reason))
                elif wanted:
                    first = first or [functools.partial(self._header, content, position)]
                    positions.append(position)
                    names.append(member.name)
                    shapes.append(self._shape(content, position))
                else:
                    others.append(member.name)
            rows.add(file, [prefix + name for name in names[len(names) - len(positions) :]], positions, {})
        if not names:
            raise PipelineError(f"{self.input_path} holds no PNG or JPEG file that can be read{_why(rows.rejected)}")
        inputs = [describe(found.path(file), found.root) for file in found.files]
        found = dataclasses.replace(found.beside(others), hidden=found.hidden + hidden)
        return rows.plan(schema_of(self.input_path, names, shapes, first[0]), inputs, found)

    def open(self, file: str, schema: Schema) -> Opened:
        """See ``RowSource.open``; the position is that of a member."""
        path = os.path.join(root_of(self.input_path), *file.split("/"))
        content, listing = archives.open_member(path, self._pictures.limit), archives.members(path)
        index = ClassIndex(schema.labels)

        def row(position: int) -> tuple[np.ndarray, int | None]:
            label = index.of(label_of(listing[position].name)) if schema.labels else None
            return self._pictures.pixels(content(position), schema), label

        return row

    @property
    def _several(self) -> bool:
        return not storage.is_file(self.input_path)

    @property
    def _pictures(self) -> Pictures:
        return Pictures.of(self.max_pixels, self.fields)

    def _header(self, content: Callable[[int], bytes], position: int) -> tuple[int, ...]:
        return self._pictures.header(content(position))

    def _shape(self, content: Callable[[int], bytes], position: int) -> tuple[int, ...] | None:
        try:
            return self._header(content, position)
        except RowError:
            return None  # the worker says why


def _why(rejected: Sequence[Rejection]) -> str:
    """Why the members of an archive are none of its rows, by the first of them."""
    return (
        f"; the first of {len(rejected)} that are rejected, {rejected[0].key}: {rejected[0].reason}" if rejected else ""
    )
