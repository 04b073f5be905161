"""What is done beside the model where a store is far away: the next rows are read, the last part is sent.

One of each at a time, so that memory stays bounded: a worker holds a block that the model works on, one that was read
ahead, and a part that is being sent. A disk is near, and a job there is read, embedded and written in turn.
"""

import concurrent.futures
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_END: Any = object()


class ReadAhead(Generic[_Item]):
    """The items of an iterator, of which the next one is made in a thread while the caller works on one.

    The first is begun at once. What the iterator raises is raised where its item would be given.

    Example:
        >>> list(ReadAhead(iter([1, 2])))
        [1, 2]
    """

    def __init__(self, items: Iterator[_Item]):
        self._items, self._thread = items, concurrent.futures.ThreadPoolExecutor(1, "read-ahead")
        self._next = self._begin()

    def _begin(self) -> "concurrent.futures.Future[_Item]":
        return self._thread.submit(next, self._items, _END)

    def __iter__(self) -> Iterator[_Item]:
        try:
            while (item := self._next.result()) is not _END:
                self._next = self._begin()
                yield item
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Lets the rest be."""
        self._thread.shutdown(wait=False, cancel_futures=True)


class OneBehind(Generic[_Result]):
    """Calls that are made in a thread, one at a time and in their order: whoever asks for the next waits for the last.

    Example:
        >>> behind = OneBehind()
        >>> behind.call(lambda: "the first"), behind.call(lambda: "the second"), behind.wait(), behind.wait()
        ([], ['the first'], ['the second'], [])
    """

    def __init__(self) -> None:
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "one-behind")
        self._last: concurrent.futures.Future[_Result] | None = None

    def call(self, work: Callable[[], _Result]) -> list[_Result]:
        """Begins a call, once the one before has ended, whose result it returns; or raises what that one raised."""
        before = self.wait()
        self._last = self._thread.submit(work)
        return before

    def wait(self) -> list[_Result]:
        """The result of the last call, if there was one of which nobody has it."""
        last, self._last = self._last, None
        return [] if last is None else [last.result()]

    def end(self) -> None:
        """Waits, whatever comes of it."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._last = None
