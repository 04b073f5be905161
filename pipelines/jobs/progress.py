"""The progress of a job, as a person sees it: a bar on a terminal, a plain line now and then in a log."""

import contextlib
import dataclasses
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple, TextIO

import tqdm

_LOG_SECONDS = 10.0  # between two lines of a log: a night's job stays readable
_COLUMNS = 120  # of a terminal that does not tell


class State(NamedTuple):
    """How far a job is, earlier runs of it included.

    Attributes:
        units_done: Units of work that are committed.
        units: Units in the plan.
        rows_done: Rows of the committed units, good and rejected.
        rows: Rows in the plan.
        rejected: How many of ``rows_done`` were rejected.
    """

    units_done: int
    units: int
    rows_done: int
    rows: int
    rejected: int


Progress = Callable[[State], None]


@dataclasses.dataclass
class _Meter:
    """Rate and time left, by this run alone: what earlier runs did took none of its time."""

    clock: Callable[[], float]
    first: State | None = None
    started: float = 0.0

    def line(self, state: State) -> str:
        """One line about a state. The first state is where this run starts."""
        if self.first is None:
            self.first, self.started = state, self.clock()
        seconds = self.clock() - self.started
        rate = (state.rows_done - self.first.rows_done) / max(seconds, 1e-9)
        parts = [  # a narrow terminal cuts the last ones off
            f"{state.units_done:,}/{state.units:,} units",
            f"{state.rows_done:,}/{state.rows:,} rows",
            *_time(state, seconds, rate),
            f"{rate:,.0f} rows/s",
            f"{state.rejected:,} rejected",
        ]
        return ", ".join(parts)


def _time(state: State, seconds: float, rate: float) -> list[str]:
    """What is left, or at the end what it took; nothing while there is no rate to tell it by."""
    if state.units_done == state.units:
        return [f"done in {tqdm.tqdm.format_interval(seconds)}"]
    return [f"{tqdm.tqdm.format_interval((state.rows - state.rows_done) / rate)} left"] if rate > 0 else []


@contextlib.contextmanager
def progress_bar(
    title: str, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
) -> Iterator[Progress]:
    """Units, rows, rows a second, time left and rejected rows so far, while a job runs.

    On a terminal a bar that is drawn over; elsewhere a line every ten seconds and one at the end. A job that has
    nothing to do prints nothing.

    Args:
        title: What the job is called.
        stream: Where to; by default standard error.
        clock: Seconds, from any start.

    Example:
        >>> from tfvae.pipelines import preprocess
        >>> with progress_bar("prepare", sys.stdout) as progress:  # doctest: +ELLIPSIS
        ...     summary = preprocess.run("digits", None, "prepared/digits", progress=progress)
        prepare: 2/2 units, 1,797/1,797 rows, done in ... rows/s, 0 rejected
    """
    out, meter = stream or sys.stderr, _Meter(clock)
    with (_bar if out.isatty() else _log)(title, out, meter) as progress:
        yield progress


@contextlib.contextmanager
def _bar(title: str, out: TextIO, meter: _Meter) -> Iterator[Progress]:
    bar_format = title + " {percentage:3.0f}%|{bar:10}| {desc}"
    with contextlib.ExitStack() as stack:
        bars: list[tqdm.tqdm] = []  # drawn when there is something to say

        def progress(state: State) -> None:
            line = meter.line(state)
            if not bars:
                size = {"ncols": _width(out), "nrows": 2}  # lines enough for one bar, whatever the terminal says
                bar = tqdm.tqdm(desc=line, total=state.rows, file=out, bar_format=bar_format, **size)
                bars.append(stack.enter_context(bar))
            bars[0].n = state.rows_done
            bars[0].set_description_str(line)

        yield progress


def _width(out: TextIO) -> int:
    """Columns of the terminal. Some say 0, of containers for one, and tqdm would cut the line down to nothing."""
    with contextlib.suppress(OSError):  # of a stream that is no file
        return os.get_terminal_size(out.fileno()).columns or _COLUMNS
    return _COLUMNS


@contextlib.contextmanager
def _log(title: str, out: TextIO, meter: _Meter) -> Iterator[Progress]:
    line, said, due = "", "", 0.0

    def say() -> None:
        nonlocal said
        said = line
        print(line, file=out, flush=True)

    def progress(state: State) -> None:
        nonlocal line, due
        now = meter.clock()
        due = due if line else now + _LOG_SECONDS
        line = f"{title}: {meter.line(state)}"
        if now >= due:
            due = now + _LOG_SECONDS
            say()

    try:
        yield progress
    finally:
        if line != said:
            say()
