"""CSV text read exactly: where each row begins, and its cells as Python's strict ``csv`` reader finds them."""

import csv
import os
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from .. import storage
from ..errors import PipelineError
from .seekable_gzip import open_gzip
from .text import is_utf8

SUFFIXES = (".csv", ".csv.gz")
BOM = b"\xef\xbb\xbf"
MAX_ROW_BYTES = 16 << 20
_FIRST = 256  # bytes that are looked at for another encoding
_GZIP = b"\x1f\x8b"
_OTHERS = {  # how files of other kinds begin
    b"\x93NUMPY": "an array of NumPy's: say --source npy",
    b"PK\x03\x04": "a zip archive, as .npz and .xlsx files are: say --source npz, or save the sheet as CSV",
    b"PAR1\x15": "a Parquet file: say --source parquet",
    b"\x89PNG": "a picture: say --source images",
    b"\xff\xd8\xff": "a picture: say --source images",
}


def open_csv(path: str, *, mapped: bool = False) -> BinaryIO:
    """The content of a file, plain or gzip whatever its name says; ``mapped`` to read lines here and there.

    Raises:
        PipelineError: It cannot be read.
    """
    try:
        stream = storage.map_file(path) if mapped else storage.open_to_read(path)
        begin = stream.read(len(_GZIP))
        stream.seek(0)
    except OSError as error:
        raise PipelineError(f"{path} cannot be read: {error.strerror}") from error
    if begin != _GZIP:
        return stream
    stream.close()
    return open_gzip(path)


def read_header(stream: BinaryIO, path: str, known: Sequence[str] = (), *, no_header: bool = False) -> tuple[str, ...]:
    """The names of the columns; the stream then stands at the first row.

    Args:
        stream: A file, from ``open_csv``.
        path: What errors call it.
        known: Names by which a header is known for one.
        no_header: The first line is a row: the names are the numbers of the columns, from 0.

    Raises:
        PipelineError: There is no header, or it looks like a row.

    Example:
        >>> import io
        >>> read_header(io.BytesIO(b"height,weight\\n1.8,70\\n"), "x.csv")
        ('height', 'weight')
    """
    begin = stream.read(_FIRST)
    _check_text(path, begin)
    begin = begin[: len(BOM)]
    start = len(BOM) if begin == BOM else 0
    stream.seek(start)
    rows = read_rows(stream, path)
    names = next(rows, (0, []))[1]
    if no_header and names:
        stream.seek(start)
        return tuple(map(str, range(len(names))))
    after = stream.tell()
    if any(map(is_number, names)) and not {*known} & {*names} and _looks_like_a_row(names, next(rows, (0, []))[1]):
        raise PipelineError(
            f"{path} begins with {','.join(names)[:60]!a}, which looks like a row: say --no-header where it is one, "
            "or give every column a name that is no number"
        )
    separator = next((sign for sign in ";\t|" if len(names) == 1 and sign in names[0]), None)
    if separator:
        raise PipelineError(
            f"{path} has one column, {names[0][:60]!a}: its cells seem to be separated by {separator!a}: save it "
            "with commas, and with decimal points"
        )
    if any(not is_utf8(name) for name in names):
        raise PipelineError(f"{path} begins with text that is not UTF-8: save it as such")
    doubtful = [name for name in names if not name.strip() or names.count(name) > 1]
    if not names or doubtful:
        what = f"the columns {doubtful[:5]!a}, which are no names, or not different ones" if names else "no header"
        raise PipelineError(f"{path} has {what}: give every column a name in the first line, or say --no-header")
    stream.seek(after)
    return tuple(names)


def _check_text(path: str, begin: bytes) -> None:
    """Raise PipelineError where a file begins as others than UTF-8 do."""
    for magic, told in _OTHERS.items():
        if begin.startswith(magic):
            raise PipelineError(f"{path} is no CSV file, but {told}")
    if begin[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise PipelineError(f"{path} is UTF-16, expected UTF-8: save it as such")
    if b"\0" in begin:  # of UTF-16, letters of Latin and digits are a NUL and another byte
        order = "LE" if begin[1::2].count(0) > begin[::2].count(0) else "BE"
        raise PipelineError(
            f"{path} begins with NUL bytes among its letters, as UTF-16 does, expected UTF-8: save it as such, by "
            f"iconv -f UTF-16{order} -t UTF-8 {os.path.basename(path)} > utf8.csv, say"
        )


def _looks_like_a_row(names: Sequence[str], second: Sequence[str]) -> bool:
    """Whether the names are numbers wherever the cells below them are."""
    above = [name for name, cell in zip(names, second, strict=False) if is_number(cell)]
    return all(map(is_number, above or names))


class _Lines:
    """The lines of a file, and how far they have been read."""

    def __init__(self, stream: BinaryIO, path: str):
        self.offset = self.start = stream.tell()
        self._stream, self._path = stream, path

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._stream.readline(MAX_ROW_BYTES)
        self.offset += len(line)
        if self.offset - self.start >= MAX_ROW_BYTES:
            raise PipelineError(f"{self._path} has a row of more than {MAX_ROW_BYTES} bytes at byte {self.start}")
        if not line:
            raise StopIteration
        return line.decode("utf-8", "surrogateescape")


def read_rows(stream: BinaryIO, path: str) -> Iterator[tuple[int, list[str]]]:
    """Where each row begins, and its cells; lines without any are passed over. A quoted cell may hold line breaks."""
    lines = _Lines(stream, path)
    reader = csv.reader(lines, strict=True)
    while True:
        lines.start = lines.offset
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            what = (
                "; mend its quotes"
                if "new-line" not in str(error)
                else ", its lines end in CR alone: let them end in LF"
            )
            raise PipelineError(
                f"{path} cannot be read at byte {lines.start}: {str(error).partition(' - ')[0]}{what}"
            ) from error
        if cells:
            yield lines.start, cells


def is_number(cell: str) -> bool:
    """Whether a cell holds a number; Python's float would take 1_000, and the digits of other scripts."""
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell and cell.isascii()
