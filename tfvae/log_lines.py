"""Standard error for machines: each line is a JSON object with ``time``, ``level``, ``logger`` and ``message``.

Messages of Python's logging and warnings come as they are, one object each; whatever else is written to standard error
by Python, progress and errors of commands for two, is an object a line, by the logger ``tfvae``. Where there is a
traceback it is the object's ``traceback``. Programs that ask whether this is a terminal are told that it is none.
"""

import datetime
import io
import json
import logging
import sys
import types
from typing import TextIO

_ERROR = "error: "  # with which the commands begin what they end with


def begin() -> None:
    """Write standard error so from here on, in this process."""
    lines = Lines(sys.stderr)
    sys.stderr = lines
    handler = logging.StreamHandler(lines.out)
    handler.setFormatter(Formatter())
    logging.basicConfig(handlers=[handler], force=True)
    logging.captureWarnings(True)
    sys.excepthook = _unforeseen


class Formatter(logging.Formatter):
    """A message of Python's logging as an object in a line.

    Example:
        >>> record = logging.makeLogRecord({"name": "tfvae.runs", "levelname": "INFO", "msg": "begun", "created": 0.0})
        >>> Formatter().format(record)
        '{"time": "1970-01-01T00:00:00.000Z", "level": "info", "logger": "tfvae.runs", "message": "begun"}'
    """

    def format(self, record: logging.LogRecord) -> str:
        """See ``logging.Formatter``."""
        when = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        told = {
            "time": f"{when:%Y-%m-%dT%H:%M:%S}.{when.microsecond // 1000:03}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            told["traceback"] = self.formatException(record.exc_info)
        return json.dumps(told)


class Lines(io.TextIOBase):
    """A stream of text that writes each of its lines to ``out`` as an object; empty ones are left out."""

    encoding = "utf-8"

    def __init__(self, out: TextIO):
        self.out, self._begun = out, ""

    def write(self, text: str) -> int:
        """See ``io.TextIOBase``."""
        *lines, self._begun = (self._begun + text).replace("\r", "\n").split("\n")
        for line in filter(str.strip, lines):
            level = logging.ERROR if line.startswith(_ERROR) else logging.INFO
            message = line.removeprefix(_ERROR).strip()
            record = logging.LogRecord("tfvae", level, "", 0, message, None, None)
            self.out.write(Formatter().format(record) + "\n")
        return len(text)

    def flush(self) -> None:
        """See ``io.TextIOBase``; a line that has not ended waits for its end."""
        self.out.flush()

    def fileno(self) -> int:
        """That of ``out``."""
        return self.out.fileno()


def _unforeseen(kind: type[BaseException], error: BaseException, trace: types.TracebackType | None) -> None:
    logging.getLogger("tfvae").critical("%s: %s", kind.__name__, error, exc_info=(kind, error, trace))
