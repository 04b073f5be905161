"""What is done in threads keeps its order, holds one thing at a time and fails where it would have failed in turn."""

import threading

import pytest

from pipelines.embedding.beside import OneBehind, ReadAhead


def counted(made: list[int], count: int, fails: bool = False):
    for number in range(count):
        made.append(number)
        yield number
    if fails:
        raise OSError("the store is gone")


def test_items_come_in_their_order_and_one_is_made_ahead():
    made: list[int] = []
    for number in ReadAhead(counted(made, 20)):
        assert made == list(range(len(made))) and len(made) <= number + 2
    assert len(made) == 20


def test_what_reading_raises_comes_after_the_items_before_it():
    seen: list[int] = []
    with pytest.raises(OSError, match="the store is gone"):
        seen.extend(ReadAhead(counted([], 3, fails=True)))
    assert seen == [0, 1, 2]


def test_who_stops_early_makes_no_more_than_one():
    made: list[int] = []
    ahead = ReadAhead(counted(made, 20))
    assert next(iter(ahead)) == 0
    ahead.abandon()
    assert len(made) <= 2


def test_a_call_begins_when_the_one_before_has_ended():
    behind, running, seen = OneBehind[int](), threading.Semaphore(1), []

    def work(number: int) -> int:
        assert running.acquire(blocking=False)
        running.release()
        return number

    for number in range(10):
        seen += behind.call(lambda number=number: work(number))
    assert seen == list(range(9)) and behind.wait() == [9] and behind.wait() == []


def test_a_call_that_fails_is_told_to_who_asks_next_and_once():
    behind = OneBehind[int]()
    behind.call(lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        behind.call(lambda: 2)
    assert behind.call(lambda: 3) == [] and behind.wait() == [3]
    behind.end()
