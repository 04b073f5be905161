"""Where the ``tfvae`` command begins and ends: Ctrl-C and SIGTERM are answered while all else is imported, and after.

In between, what the command itself says holds: see ``pipelines.stops``. This module imports nothing that Python has not
imported by itself, so that the time before it is the interpreter's own, and that of the package's first line.
"""

import contextlib
import os
import signal
import sys
from typing import Any

_NUMBERS = signal.SIGINT, signal.SIGTERM


def _ends(number: int, sentence: str) -> None:
    with contextlib.suppress(OSError, RuntimeError, ValueError):  # a reader that is gone; a line that is half-way out
        sys.stdout.flush()
    with contextlib.suppress(OSError):
        os.write(2, f"\nStopped: {sentence}.\n".encode())
    os._exit(128 + number)


def _before(number: int, frame: Any) -> None:
    _ends(number, "nothing had begun; give the same command again")


def _after(number: int, frame: Any) -> None:
    _ends(number, "the command had ended; what it wrote is whole")


# ``pipelines.stops`` may put its own in the place of the one, and then the other.
_before.is_free, _before.afterwards = True, _after  # type: ignore[attr-defined]


def _answer_by(handler: Any, *others: Any) -> None:
    for number in _NUMBERS:
        if signal.getsignal(number) in others:
            signal.signal(number, handler)


def main(**more: Any) -> None:
    """The ``tfvae`` command, as ``cli.main`` has it.

    Example:
        >>> main(args=["runs", "."], standalone_mode=False)
        . holds no run.
    """
    before = {number: signal.getsignal(number) for number in _NUMBERS}
    _answer_by(_before, signal.SIG_DFL, signal.default_int_handler)
    try:
        from tfvae import cli

        cli.main(**more)
    except OSError as error:  # of a command's own they are told: this is of what it prints
        if not more.get("standalone_mode", True):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python would try the rest again at its end
        os.write(2, f"error: what the command says could not be printed: {error.strerror}\n".encode())
        sys.exit(1)
    finally:
        if more.get("standalone_mode", True):
            _answer_by(_after, _before)
        else:
            for number, handler in before.items():
                signal.signal(number, handler)
