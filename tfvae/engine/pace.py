"""How many steps a program runs: about a second's worth, so that Ctrl-C is answered and a progress bar moves.

A group of batches runs in parts. Each is a call of the one compiled program, whose number of steps is an argument: the
parts change when a person hears of the training, never what is computed.
"""

import time
from collections.abc import Callable
from typing import TypeVar

SHORT, LONG = 0.5, 1.0  # seconds: a program of fewer runs twice as many steps next time, one of more as many as fit

Result = TypeVar("Result")


class Pace:
    """The steps of the next program: one at first, and from then on by the time that the last one took.

    Example:
        >>> pace = Pace()
        >>> pace.heed(1, 0.01), pace.heed(2, 0.02), pace.heed(4, 0.7), pace.heed(4, 1.1)
        (2, 4, 4, 2)
    """

    def __init__(self) -> None:
        self.steps = 1

    def heed(self, steps: int, seconds: float) -> int:
        """Learn from a program of so many steps; gives the steps of the next one."""
        if seconds > LONG:
            self.steps = 1 << max(0, int(steps * LONG / seconds).bit_length() - 1)
        elif seconds < SHORT and steps == self.steps:  # a shorter one was the rest of a group, and says nothing
            self.steps *= 2
        return self.steps

    def parts(
        self,
        num_steps: int,
        run: Callable[[int, int], Result],
        between: Callable[[int, Result], bool],
        start: int = 0,
    ) -> Result:
        """``run(start, stop)`` on part after part of a group of ``num_steps``; gives the last one's result.

        Args:
            num_steps: Steps in the group.
            run: Runs its steps and waits for them.
            between: ``between(stop, result)``, called between two parts; False ends the group there.
            start: How many of them were done before.
        """
        while True:
            stop, began = min(start + self.steps, num_steps), time.perf_counter()
            result = run(start, stop)
            self.heed(stop - start, time.perf_counter() - began)
            if stop == num_steps or not between(stop, result):
                return result
            start = stop

    def through(self, num_steps: int, state: Result, run: Callable[[int, int, Result], Result]) -> Result:
        """The state after all the steps, of which ``run(start, stop, state)`` makes some and gives the state then.

        Example:
            >>> Pace().through(5, [], lambda start, stop, done: [*done, range(start, stop)])
            [range(0, 1), range(1, 3), range(3, 5)]
        """

        def part(start: int, stop: int) -> Result:
            nonlocal state
            state = run(start, stop, state)
            return state

        return self.parts(num_steps, part, lambda stop, state: True)
