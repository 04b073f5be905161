"""Standard error as JSON: every line of every command is one object, whatever it is that speaks."""

import contextlib
import datetime
import io
import json
import logging
import subprocess
import sys
import warnings
from collections.abc import Iterator

import pytest

from tfvae import log_lines

FACTS = {"time", "level", "logger", "message"}


@contextlib.contextmanager
def beginning() -> Iterator[io.StringIO]:
    """Standard error as it is after ``begin``; everything is as it was afterwards."""
    out, root = io.StringIO(), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", out)
        patch.setattr(sys, "excepthook", sys.excepthook)
        root.handlers = []
        try:
            log_lines.begin()
            yield out
        finally:
            logging.captureWarnings(False)
            root.handlers, root.level = handlers, level


def test_whatever_speaks_speaks_in_objects():
    with beginning() as out:
        speak()
        assert not sys.stderr.isatty()
    found = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [(one["level"], one["logger"], one["message"].splitlines()[0]) for one in found[:5]] == [
        ("error", "a.b", "of two"),
        ("info", "tfvae", "prepare: 1/2 units"),
        ("info", "tfvae", "prepare: 2/2 units"),
        ("error", "tfvae", "no such file"),
        ("info", "tfvae", "half a line 日本 \udcff"),
    ]
    odd, unforeseen = found[5:]
    assert (odd["level"], odd["logger"]) == ("warning", "py.warnings") and "UserWarning: odd" in odd["message"]
    assert (unforeseen["level"], unforeseen["message"]) == ("critical", "KeyError: 'k'")
    assert unforeseen["traceback"].startswith("Traceback")
    assert all(one.keys() - {"traceback"} == FACTS for one in found)
    now = datetime.datetime.now(datetime.UTC)
    assert all(abs(datetime.datetime.fromisoformat(one["time"]) - now).total_seconds() < 60 for one in found)


def speak() -> None:
    logging.getLogger("a.b").error("of %s\nlines", "two")
    print("prepare: 1/2 units\rprepare: 2/2 units", file=sys.stderr)
    print("error: no such file", file=sys.stderr)
    print("half a", file=sys.stderr, end="")
    print(" line 日本 \udcff", file=sys.stderr)
    print("\n\n", file=sys.stderr)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)  # within the one that pytest has set up
        warnings.warn("odd", UserWarning, stacklevel=1)
        logging.captureWarnings(False)
    try:
        raise KeyError("k")
    except KeyError as error:
        sys.excepthook(KeyError, error, error.__traceback__)


@pytest.mark.slow
def test_commands_tell_their_progress_and_their_errors_in_objects(tmp_path):
    def told(*arguments: str) -> tuple[int, list[dict[str, str]]]:
        line = [sys.executable, "-m", "tfvae", "--log-format", "json", *arguments]
        done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
        assert "{" not in done.stdout  # results are as ever
        return done.returncode, [json.loads(line) for line in done.stderr.splitlines()]

    code, prepared = told("prepare", "--source", "digits", "--output", "prepared")
    assert code == 0 and prepared[-1]["message"].startswith("prepare: 2/2 units, 1,797/1,797 rows")
    code, failed = told("verify", "nothing")
    assert (code, failed[-1]["level"]) == (1, "error") and failed[-1]["message"].startswith("nothing is not there")
    code, misspelt = told("verify")
    assert code == 2 and misspelt[-1]["message"].startswith("Missing argument 'DIRECTORY' (see ")
    assert all(one.keys() == FACTS for one in prepared + failed + misspelt)
