"""The progress line: what it says, of which run, and when."""

import fcntl
import io
import os
import pty
import re
import struct
import termios

import pytest

from pipelines.jobs.progress import State, progress_bar


class Clock:
    """Seconds that pass when the test says so."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def report(stream: io.StringIO, states: list[tuple[float, State]]) -> list[str]:
    """What is shown after the progress of a job was reported at these seconds."""
    clock = Clock()
    with progress_bar("prepare", stream, clock) as progress:
        for seconds, state in states:
            clock.now = 1000.0 + seconds
            progress(state)
    return [line for line in re.split(r"[\r\n]+", stream.getvalue()) if line.strip()]


def test_a_log_gets_a_line_in_ten_seconds_and_one_at_the_end():
    states = [(second / 2, State(second // 10, 20, 50 * second, 10_000, second // 60)) for second in range(130)]
    lines = report(io.StringIO(), [*states, (70.0, State(20, 20, 10_000, 10_000, 3))])
    assert lines == [
        "prepare: 2/20 units, 1,000/10,000 rows, 01:30 left, 100 rows/s, 0 rejected",
        "prepare: 4/20 units, 2,000/10,000 rows, 01:20 left, 100 rows/s, 0 rejected",
        "prepare: 6/20 units, 3,000/10,000 rows, 01:10 left, 100 rows/s, 1 rejected",
        "prepare: 8/20 units, 4,000/10,000 rows, 01:00 left, 100 rows/s, 1 rejected",
        "prepare: 10/20 units, 5,000/10,000 rows, 00:50 left, 100 rows/s, 1 rejected",
        "prepare: 12/20 units, 6,000/10,000 rows, 00:40 left, 100 rows/s, 2 rejected",
        "prepare: 20/20 units, 10,000/10,000 rows, done in 01:10, 143 rows/s, 3 rejected",
    ]


def test_a_resumed_job_is_timed_by_this_run_alone():
    """9,000 rows were there already: this run did 100 in 10 seconds and has 900 left."""
    lines = report(io.StringIO(), [(0, State(9, 10, 9000, 10_000, 0)), (10, State(9, 10, 9100, 10_000, 0))])
    assert lines[0] == "prepare: 9/10 units, 9,100/10,000 rows, 01:30 left, 10 rows/s, 0 rejected"


def test_no_time_is_told_before_there_is_a_rate():
    lines = report(io.StringIO(), [(0, State(0, 3, 0, 30, 0)), (60, State(0, 3, 0, 30, 0))])
    assert lines[0] == "prepare: 0/3 units, 0/30 rows, 0 rows/s, 0 rejected"


def test_a_job_that_failed_says_how_far_it_came():
    stream = io.StringIO()
    with pytest.raises(RuntimeError), progress_bar("embed", stream, Clock()) as progress:
        progress(State(0, 3, 0, 30, 0))
        progress(State(1, 3, 10, 30, 2))
        raise RuntimeError
    assert re.fullmatch(r"embed: 1/3 units, 10/30 rows, 00:00 left, [\d,]+ rows/s, 2 rejected\n", stream.getvalue())


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_nothing_to_do_prints_nothing(stream):
    assert report(stream, []) == []


def test_a_terminal_gets_a_bar_at_every_report():
    shown = report(Terminal(), [(0, State(0, 4, 0, 40, 0)), (5, State(1, 4, 10, 40, 0)), (20, State(4, 4, 40, 40, 1))])
    assert any("25%" in line and "1/4 units, 10/40 rows, 00:15 left, 2 rows/s" in line for line in shown)
    assert "100%" in shown[-1] and shown[-1].rstrip().endswith(
        "4/4 units, 40/40 rows, done in 00:20, 2 rows/s, 1 rejected"
    )


@pytest.mark.parametrize(("lines", "columns"), [(0, 0), (24, 60), (1, 200)])
def test_a_terminal_of_any_size(lines, columns, monkeypatch):
    """A real one, which may say that it is 0 columns wide."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    with open(theirs, "w") as stream:
        monkeypatch.setattr("sys.stderr", stream)
        with progress_bar("prepare", clock=Clock()) as progress:
            progress(State(0, 4, 0, 40, 0))
    shown = [line.strip() for line in re.split(r"[\r\n]+", os.read(ours, 10_000).decode()) if line.strip()]
    os.close(ours)
    assert all(line.startswith("prepare   0%|") and "0/4 units, 0/40 rows" in line for line in shown) and shown
    assert all(len(line) <= (columns or 120) for line in shown)
