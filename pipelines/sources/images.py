"""Image files: found without following links, decoded without trusting them."""

import functools
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from .. import contract, storage
from ..errors import PipelineError, Rejection, RowError
from ..formats import archives
from ..formats.files import Found, folder_values, is_hidden
from ..formats.images import SUFFIXES, foreign, read_encoded
from ..formats.text import is_utf8, shown
from .base import Opened, RowSource
from .pictures import Pictures, common_shape
from .plan import Input, Plan, Schema, by_number, class_names, located
from .table_rows import ClassIndex


class Images(RowSource):
    """PNG and JPEG files in a folder, or those that match a pattern (``**`` is any number of folders), or one.

    The key is the path relative to the folder (for a pattern: to its part without wildcards). The label is the name of
    the parent folder, when the images lie in sub-folders, or what a folder ``label=VALUE`` says. The shape of the rows
    is the commonest one, or with ``resize`` that (see ``pipelines.formats.resizing``). Pixels are otherwise those that
    are stored, whatever orientation the EXIF says; see ``pipelines.formats.images``.
    """

    takes = ("resize", "crop")

    def plan(self) -> Plan:
        """See ``Source.plan``."""
        found, rejected = self.files()
        files = found.files
        looks = storage.map_files(self._look, files, found.are_far)
        first = functools.partial(self._header, files[0])
        schema = schema_of(self.input_path, files, [shape for _, shape in looks], first)
        inputs = [found for found, _ in looks]
        each = pa.array(files, pa.string()).dictionary_encode()
        none = located(files, "", np.zeros(len(files), np.int64))
        return Plan(schema, none.set_column(2, "file", each), inputs, rejected, found.hidden, found.unread)

    def open(self, file: str, schema: Schema) -> Opened:
        """See ``RowSource.open``; the position is always 0."""
        index = ClassIndex(schema.labels)
        return lambda _: (
            self._pictures.pixels(self._content(file), schema),
            index.of(label_of(file)) if schema.labels else None,
        )

    @property
    def _pictures(self) -> Pictures:
        return Pictures.of(self.max_pixels, self.fields)

    @functools.cached_property
    def parts(self) -> tuple[str, list[str]]:
        """The folder, and the pattern's parts below it."""
        if storage.is_file(self.input_path):
            folder, name = os.path.split(self.input_path)
            return folder or ".", [storage.escaped(name)]
        if storage.is_folder(self.input_path):  # which may be called what would else be a pattern
            return self.input_path, ["**", "*"]
        parts = self.input_path.split("/")
        magic = next((i for i, part in enumerate(parts) if any(c in part for c in "*?[")), len(parts))
        if magic == len(parts):
            raise PipelineError(f"{self.input_path} is neither a folder nor a pattern of files")
        return "/".join(parts[:magic]) or ("/" if self.input_path.startswith("/") else "."), parts[magic:]

    def checked_files(self) -> tuple[Found, list[Rejection]]:
        """See ``files``, for those who need neither shapes nor labels: what ``plan`` refuses is refused alike."""
        found, rejected = self.files()
        first = functools.partial(self._header, found.files[0])
        _refuse_unreadable(self.input_path, found.files, map(self._shape, found.files), first)
        label_names(self.input_path, found.files)
        return found, rejected

    def files(self) -> tuple[Found, list[Rejection]]:
        """The images, and what is not followed.

        Raises:
            PipelineError: There is no image.
        """
        root, pattern = self.parts
        files, rejected, unread, hidden = [], [], [], 0
        named_itself = storage.is_file(self.input_path)
        for path, entry in [_itself(self.input_path)] if named_itself else _walk(root):
            other = foreign(path)
            reason = _refusal(path, entry) or other
            linked_folder = entry.is_link and entry.is_folder
            named = storage.matches(path.split("/"), pattern)
            wanted = (path.lower().endswith(SUFFIXES) or other) and named
            if is_hidden(path) and not named_itself:
                hidden += bool(wanted)
            elif reason is None and wanted:
                files.append(path)
            elif reason is not None and (wanted or linked_folder):
                name = shown(path)
                rejected.append(Rejection(name, name, 0, reason))
            elif named:
                unread.append(path)
        rejected.sort(key=lambda row: row.key)
        if not files:
            first = f", the first is {rejected[0].key}: {rejected[0].reason}" if rejected else ""
            raise PipelineError(
                f"{self.input_path} matches no PNG or JPEG file that can be read ({len(rejected)} rejected{first})"
                f"{archives.told(unread)}"
            )
        return Found(root, tuple(sorted(files)), hidden, tuple(sorted(unread))), rejected

    def _content(self, file: str) -> bytes:
        return read_encoded(os.path.join(self.parts[0], file), self._pictures.limit)

    def _header(self, file: str) -> tuple[int, ...]:
        return self._pictures.header(self._content(file))

    def _shape(self, file: str) -> tuple[int, ...] | None:
        try:
            return self._header(file)
        except RowError:
            return None

    def _look(self, file: str) -> tuple[Input, tuple[int, ...] | None]:
        """Size, checksum and, where the header is sound, the shape that the pixels will have."""
        try:
            content = self._content(file)
        except RowError:
            return Input(file, 0, ""), None
        found = Input(file, len(content), hashlib.sha256(content).hexdigest())
        return found, self._pictures.shape(content)


def schema_of(
    path: str, names: Sequence[str], shapes: Sequence[tuple[int, ...] | None], first: Callable[[], Any]
) -> Schema:
    """The schema of images with these relative paths and, where their headers are sound, these shapes.

    ``first`` raises the RowError of the first one, where it has no shape.

    Raises:
        PipelineError: None has a shape, most have different ones, or only some lie in sub-folders.

    Example:
        >>> schema_of("pets", ["cat/1.png", "dog/2.png"], [(8, 8, 1), (8, 8, 1)], lambda: None).labels
        ('cat', 'dog')
    """
    _refuse_unreadable(path, names, shapes, first)
    return Schema(common_shape(path, shapes), "uint8", label_names(path, names))


def _refuse_unreadable(
    path: str, names: Sequence[str], shapes: Iterable[tuple[int, ...] | None], first: Callable[[], Any]
) -> None:
    if any(shapes):
        return
    why = ""
    try:
        first()
    except RowError as error:
        why = f": {error}"
    raise PipelineError(f"none of the {len(names)} images in {path} can be read; the first is {names[0]}{why}")


def label_of(file: str) -> str | int | None:
    """The class of an image by its relative path: of a folder ``label=VALUE``, else of its own folder.

    Example:
        >>> label_of("pets/cat/1.png"), label_of("label=3/day=1/1.png"), label_of("1.png")
        ('cat', 3, None)
    """
    _, *folders = reversed(file.split("/"))
    return folder_values(file).get(contract.LABEL, folders[0] if folders else None)


def label_names(path: str, files: Sequence[str]) -> tuple[str, ...] | None:
    said = [contract.LABEL in folder_values(file) for file in files]
    if any(said) and not all(said):
        raise PipelineError(
            f"{said.count(False)} images lie in no folder {contract.LABEL}=VALUE ({files[said.index(False)]}, ...), "
            f"the others do ({files[said.index(True)]}, ...): move all of them into such folders or none"
        )
    loose = [file for file in files if "/" not in file]
    if loose and len(loose) < len(files):
        raise PipelineError(
            f"{len(loose)} images lie beside sub-folders ({loose[0]}, ...), the others in them: "
            "a label is the name of the parent folder, so move all of them into sub-folders or none"
        )
    labels = {label for file in files if (label := label_of(file)) is not None}
    if any(said) and not labels:
        raise PipelineError(f"no image lies in a folder {contract.LABEL}=VALUE that says a class: name the folders so")
    numbers = [label for label in labels if isinstance(label, int)]
    if labels and len(numbers) == len(labels):  # of folders label=VALUE, as in a table
        return class_names([np.array(numbers)])
    return None if loose else by_number(path, tuple(sorted(map(str, labels))))


def _itself(path: str) -> tuple[str, storage.Entry]:
    """A file that the user names, which may be hidden or a link."""
    name = os.path.basename(path)
    return name, storage.Entry(name, is_file=True, is_folder=False, is_link=False)


def _walk(root: str) -> Iterator[tuple[str, storage.Entry]]:
    """Every entry below a folder with its relative path; links to folders are entries and are not entered."""
    folders = [""]
    while folders:
        folder = folders.pop()
        for entry in storage.entries(os.path.join(root, folder) if folder else root):
            path = f"{folder}/{entry.name}" if folder else entry.name
            if entry.is_folder and not entry.is_link:
                folders.append(path)
            else:
                yield path, entry


def _refusal(path: str, entry: storage.Entry) -> str | None:
    """Why an entry is not opened: it could lead out of the folder, block, or have no name in UTF-8."""
    if entry.is_link:
        return "a link: links are not followed"
    if not entry.is_file:
        return "not a plain file"
    if not is_utf8(path):
        return "the file name is not UTF-8"
    return "the path holds a line break" if "\n" in path or "\r" in path else None
