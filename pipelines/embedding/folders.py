"""Folders as Hive writes them, ``country=at/``, for the rows of an output: a column is what the folder says."""

import datetime
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ..errors import PipelineError
from ..formats.files import NULL, folder_values
from ..formats.text import is_utf8
from ..inputs.base import Block

_LONGEST = 200  # bytes of a folder's name, of 255 that file systems take


def by_folder(table: pa.Table, columns: Sequence[str]) -> Iterator[tuple[str, np.ndarray | None]]:
    """The folders below that of the parts, ``/country=at``, and which rows belong to each."""
    if not columns:
        yield "", None
        return
    values = [[_text(value) for value in table[name].to_pylist()] for name in columns]
    rows: dict[tuple[str | None, ...], list[int]] = {}
    for row, key in enumerate(zip(*values, strict=True)):
        rows.setdefault(key, []).append(row)
    quote = lambda text: urllib.parse.quote(text, safe=" ")  # noqa: E731
    for key in sorted(rows, key=str):
        folders = [f"/{quote(name)}={quote(text or '')}" for name, text in zip(columns, key, strict=True)]
        yield "".join(folders), np.array(rows[key])


def _text(value: Any) -> str | None:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "surrogateescape")
    if isinstance(value, bool):
        return str(value).lower()
    return value.isoformat() if isinstance(value, datetime.date) else None if value is None else str(value)


def with_folders(block: Block, columns: Sequence[str]) -> tuple[np.ndarray, Block]:
    """The numbers of the rows that belong to a folder, and those rows; the others are rejected."""
    assert block.kept is not None, "the job keeps the columns of the folders"
    reasons: dict[int, str] = {}
    for name in columns:
        kind = block.kept.schema.field(name).type
        kinds = (pa.types.is_string, pa.types.is_binary, pa.types.is_integer, pa.types.is_boolean, pa.types.is_date)
        if not any(is_kind(kind) for is_kind in kinds):
            raise PipelineError(f"column {name!r} holds {kind}, which makes no folders: name one of text or integers")
        for row, value in enumerate(block.kept[name].to_pylist()):
            text = _text(value)
            if not text:
                reasons.setdefault(row, f"the column {name!r} of the folders is empty")
            elif not is_utf8(text):
                reasons.setdefault(row, f"the column {name!r} of the folders is not UTF-8")
            elif text.upper() == NULL:
                reasons.setdefault(row, f"the column {name!r} of the folders is {text}, by which they mean a null")
            elif len(urllib.parse.quote(f"{name}={text}")) > _LONGEST:
                reasons.setdefault(row, f"the column {name!r} of the folders has more than {_LONGEST} bytes")
    good = np.array([row for row in range(len(block)) if row not in reasons], np.int64)
    rejected = [block.rejection(row, reason) for row, reason in reasons.items()]
    return good, block.take(good, rejected) if reasons else block


def kinds(schema: pa.Schema, columns: Sequence[str]) -> dict[str, str]:
    """What each of the columns holds, which a folder does not say."""
    return {name: str(schema.field(name).type) for name in columns}


def with_columns(table: pa.Table, file: str, kinds: Mapping[str, str]) -> pa.Table:
    """The rows of a file with the columns that its folders say, each of its own kind.

    Example:
        >>> rows = with_columns(pa.table({"key": ["a"]}), "year=2026/of=7/a.parquet", {"year": "int64", "of": "string"})
        >>> rows.to_pylist()
        [{'key': 'a', 'year': 2026, 'of': '7'}]
    """
    for name, value in folder_values(file).items():
        column = urllib.parse.unquote(name)
        kind = pa.type_for_alias(kinds.get(column, "string"))
        texts = pa.array([str(value)] * len(table), pa.string())
        table = table.append_column(column, (texts.cast(pa.date32()) if pa.types.is_date(kind) else texts).cast(kind))
    return table.replace_schema_metadata()
