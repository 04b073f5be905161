"""Blocks of CSV text read by Arrow, where each row is plainly one line.

Arrow is a hundred times faster than a row at a time, and more lenient: it takes quotes in odd places and ``nan(1)``. So
it is asked only about text that every reader understands alike; what it refuses, or reads as no finite number, is for
``pipelines.formats.csv_text``, whose answer counts. Both round a number to the nearest float64.
"""

from collections.abc import Sequence
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.csv

from .csv_text import BOM

LONGEST_LINE = 1 << 17  # Python's reader takes no cell that is longer
NULLS = ("", "NA", "N/A", "NULL", "null", "None", "nan", "NaN", "?", "-")  # so that one does not refuse a block
_COMMA, _QUOTE, _NEWLINE, _RETURN = b',"\n\r'


def line_starts(text: bytes) -> np.ndarray | None:
    """Where each row of some whole lines begins, int64 ``[N]``; None where a row may be more or less than a line.

    Example:
        >>> line_starts(b'1,2\\n\\n"3",4\\n').tolist(), line_starts(b'"1\\n",2\\n')
        ([0, 5], None)
    """
    if b"\0" in text or text.startswith(BOM) or (b"\r" in text and text.count(b"\r") != text.count(b"\r\n")):
        return None
    content = np.frombuffer(text, np.uint8)
    ends = np.flatnonzero(content == _NEWLINE) + 1
    if not text.endswith(b"\n"):
        ends = np.append(ends, len(text))
    starts = np.append(0, ends[:-1])
    if len(text) == 0 or (ends - starts).max() > LONGEST_LINE:
        return None
    if b'"' in text and not _are_plain(np.flatnonzero(content == _QUOTE), content, ends):
        return None
    return starts[(content[starts] != _NEWLINE) & (content[starts] != _RETURN)]


def _are_plain(quotes: np.ndarray, content: np.ndarray, ends: np.ndarray) -> bool:
    """Whether quotes come in pairs, each around a whole cell of one line."""
    if len(quotes) % 2:
        return False
    opening, closing = quotes[::2], quotes[1::2]
    before = np.where(opening == 0, _NEWLINE, content[opening - 1])
    after = np.where(closing + 1 == len(content), _NEWLINE, content[np.minimum(closing + 1, len(content) - 1)])
    same_line = np.searchsorted(ends, opening, "right") == np.searchsorted(ends, closing, "right")
    around = np.isin(before, [_COMMA, _NEWLINE]) & np.isin(after, [_COMMA, _NEWLINE, _RETURN])
    return bool((same_line & around).all())


def read_block(text: bytes, width: int, numbers: Sequence[int], texts: Sequence[int]) -> pa.Table | None:
    """Some columns of whole lines, called by their numbers: float64, null where Arrow sees none, and text.

    None where a line has not so many cells, or one holds neither a number nor a usual word for none.

    Example:
        >>> read_block(b"a,1e3,4\\nb,,5\\n", 3, numbers=[1], texts=[0]).to_pydict()
        {'1': [1000.0, None], '0': ['a', 'b']}
    """
    types = {str(i): pa.float64() for i in numbers} | {str(i): pa.string() for i in texts}
    try:
        return pyarrow.csv.read_csv(
            pa.BufferReader(text),
            pyarrow.csv.ReadOptions(column_names=[str(i) for i in range(width)]),
            pyarrow.csv.ParseOptions(),
            pyarrow.csv.ConvertOptions(
                column_types=types or {"0": pa.binary()}, include_columns=list(types) or ["0"], null_values=NULLS
            ),
        )
    except pa.ArrowInvalid:
        return None


def lines_at(stream: BinaryIO, positions: np.ndarray) -> bytes:
    """The lines that begin at these offsets, int64 ``[N]``, in order; none of a file that has become shorter."""
    lines = []
    try:
        for position in positions.tolist():
            stream.seek(position)
            lines.append(stream.readline())
    except ValueError:
        return b""
    return b"".join(lines)
