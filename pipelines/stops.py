"""A command that is stopped from outside: by Ctrl-C, or by SIGTERM, as schedulers and containers do it.

It ends with a sentence that says what is there and how to go on, and the exit code that shells expect. Python hands a
signal to the main thread alone, which may be inside of a program of many seconds; what it raises there may be lost in a
callback; and an interpreter that ends waits for its threads, a unit of work of Beam's for one. So another thread hears
of the signal too, and ends the process a second later if it is still there. Nothing is lost by that: what a command
writes is whole at any moment, for it may be killed as well.
"""

import atexit
import contextlib
import functools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
_GRACE, _LAST_WORDS = 1.0, 0.5  # seconds: for the main thread, and then for the sentence
_ANSWERED = 0x80  # beside a signal's number, in a byte to the thread that watches: it is for us, whoever heard it first
ENDED = "the command had ended; what it wrote is whole"
_PLAIN = "nothing that was there before is lost; give the same command again"


class _Answer:
    """How the command that runs now answers; the main thread and the one that watches share it."""

    def __init__(self) -> None:
        self.sentence: Callable[[], str] | None = None
        self.last: list[Callable[[], None]] = []
        self.heard = self.code = 0
        self._unsaid = threading.Lock()
        self._wakes, self.wake = os.pipe()
        os.set_blocking(self.wake, False)
        self._shown = os.dup(2)  # standard error, which may be turned away for a while

    def say(self) -> None:
        """The sentence, once."""
        if self._unsaid.acquire(blocking=False):
            os.dup2(self._shown, 2)
            sys.stderr.write(f"\nStopped: {(self.sentence or (lambda: _PLAIN))()}.\n")
            sys.stderr.flush()

    def watch(self) -> None:
        """In a thread of its own: waits for a signal that is to end the process, and sees to it that it does."""
        while byte := os.read(self._wakes, 1):
            number = byte[0] & ~_ANSWERED
            if number in EXIT_CODES and (byte[0] & _ANSWERED or is_free(number)):
                threading.Event().wait(_GRACE)
                saying = threading.Thread(target=self.say, daemon=True)  # which may wait for a store, or a terminal
                saying.start()
                saying.join(_LAST_WORDS)
                for do in self.last:
                    do()
                os._exit(EXIT_CODES[signal.Signals(number)])
        os.close(self._wakes)
        os.close(self._shown)

    def close(self) -> None:
        """Ends the thread that watches."""
        os.close(self.wake)


_now: _Answer | None = None


def is_free(number: int) -> bool:
    """Whether a signal ends the command, and no part of the program has taken it for something of its own."""
    heard_by = signal.getsignal(number)
    return heard_by in (signal.SIG_DFL, signal.default_int_handler, _hear) or getattr(heard_by, "is_free", False)


def stopped(number: int) -> BaseException:
    """What the main thread raises at a signal that it has got."""
    if _now:
        _now.heard = number
    return KeyboardInterrupt() if number == signal.SIGINT else SystemExit(EXIT_CODES[signal.Signals(number)])


def _hear(number: int, frame: Any) -> None:
    if _now:
        with contextlib.suppress(BlockingIOError):
            os.write(_now.wake, bytes([number | _ANSWERED]))
    others = signal.getsignal(signal.SIGINT)
    if number == signal.SIGTERM and callable(others) and not is_free(signal.SIGINT):
        with contextlib.suppress(KeyboardInterrupt):  # what a library does at Ctrl-C: Beam ends a server of its own
            others(signal.SIGINT, frame)
    raise stopped(number)


def _code(error: BaseException) -> int:
    """The exit code of a command that ended so because it was stopped; 0 if it ended for a reason of its own."""
    if isinstance(error, KeyboardInterrupt):
        return EXIT_CODES[signal.SIGINT]
    if isinstance(error, SystemExit) and error.code == EXIT_CODES[signal.SIGTERM]:
        return EXIT_CODES[signal.SIGTERM]
    return EXIT_CODES[signal.Signals(_now.heard)] if _now and _now.heard else 0  # an import that was cut off, say


@contextlib.contextmanager
def answered() -> Iterator[None]:
    """Around a command: Ctrl-C and SIGTERM end it as the module says. Inside of another one nothing is done.

    Example:
        >>> with answered(), says(lambda: "out is as it was; give the same command again"):
        ...     raise KeyboardInterrupt
        Traceback (most recent call last):
            ...
        SystemExit: 130
    """
    if _now or threading.current_thread() is not threading.main_thread():
        yield
        return
    try:
        with _answering():
            yield
    except KeyboardInterrupt as error:  # while it was left: what came within is a SystemExit
        sys.stderr.write(f"\nStopped: {ENDED}.\n")
        raise SystemExit(EXIT_CODES[signal.SIGINT]) from error


@contextlib.contextmanager
def _answering() -> Iterator[None]:
    global _now
    with contextlib.ExitStack() as stack:
        _now = _Answer()
        stack.callback(_forget)
        atexit.register(_end)  # before others, which are called before it then
        stack.callback(atexit.unregister, _end)
        stack.callback(setattr, sys, "unraisablehook", sys.unraisablehook)
        sys.unraisablehook = functools.partial(_unless_stopped, sys.unraisablehook)
        stack.callback(_now.close)
        stack.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(_now.wake, warn_on_full_buffer=False))
        for number in filter(is_free, EXIT_CODES):
            before = signal.signal(number, _hear)
            stack.callback(signal.signal, number, getattr(before, "afterwards", before))
        threading.Thread(target=_now.watch, name="stops", daemon=True).start()
        try:
            yield
        except BaseException as error:
            if not (code := _code(error)):
                raise
            _now.say()
            if _now.heard:  # the interpreter waits for other threads now: the one that watches goes on
                _now.code = code
                stack.pop_all()
            raise SystemExit(code) from error


def _unless_stopped(show: Callable[[Any], None], lost: Any) -> None:
    """Shows what a callback could not raise, but for what it was stopped by."""
    if not isinstance(lost.exc_value, (KeyboardInterrupt, SystemExit)):
        show(lost)


def _end() -> None:
    """The end of a process that is stopped: to take TensorFlow down takes the interpreter two seconds."""
    if _now and _now.code:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(_now.code)


def _forget() -> None:
    global _now
    _now = None


@contextlib.contextmanager
def at_last(do: Callable[[], None]) -> Iterator[None]:
    """What must be done though the main thread does not come to do it."""
    doing = _now.last if _now else []
    doing.append(do)
    try:
        yield
    finally:
        doing.remove(do)


@contextlib.contextmanager
def says(sentence: Callable[[], str] | None) -> Iterator[None]:
    """What is said of a block that is stopped, without a full stop; of blocks in one another the outer one's."""
    if _now and not _now.sentence:
        _now.sentence = sentence
    yield
