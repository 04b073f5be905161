"""A side of a comparison in a process of its own, which works when it is its turn and waits when it is not."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, TextIO

Work = Callable[[], tuple[int, list[float]]]


def take_turns(work: Work, parameters: int | None = None) -> None:
    """The child's part: for each line that comes in, work, and answer with rows, seconds and losses as JSON.

    Args:
        work: Trains for one turn and returns the rows that it went over and the loss of each epoch.
        parameters: How many numbers the model learns, for the driver to compare.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a framework prints is no answer
    for _ in sys.stdin:
        started = time.perf_counter()
        rows, losses = work()
        print(json.dumps([rows, time.perf_counter() - started, losses, parameters]), file=answers, flush=True)


class Side:
    """The driver's part: a child that is called for its turns.

    Args:
        python: The interpreter of the side's environment.
        arguments: What it runs, after ``-m``.

    Attributes:
        losses: Of each epoch of each turn so far.
        first: Seconds of the first turn, which traces and compiles.
        parameters: How many numbers its model learns, where it says so.
    """

    def __init__(self, python: str, arguments: Sequence[str]):
        command = [python, "-m", *arguments]
        self._child: Any = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._name = " ".join(arguments)
        self.losses: list[float] = []
        self.first: float | None = None
        self.parameters: int | None = None

    def __call__(self) -> float:
        """One turn; returns rows a second."""
        requests: TextIO = self._child.stdin
        requests.write("\n")
        requests.flush()
        answer = self._child.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self._name} ended with {self._child.wait()}")
        rows, seconds, losses, self.parameters = json.loads(answer)
        self.losses += losses
        self.first = self.first or seconds
        return rows / seconds

    def close(self) -> None:
        """Ends the child."""
        self._child.stdin.close()
        self._child.wait()
