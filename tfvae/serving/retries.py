"""What a server refused or failed to do, and which of it is worth asking again.

Every signature is a pure function of its inputs: a request that may or may not have been answered can be sent again
without harm. What passes is waited out with pauses that double and are drawn at random, so that many clients whom one
server turned away do not come back in step. A server that says how long to wait is given that time.
"""

import random
import time
from collections.abc import Callable
from typing import TypeVar

Answer = TypeVar("Answer")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 10.0  # seconds
_LONGEST_WAIT = 60.0  # seconds that a server may ask for: who asks for more is not asked again


class ServingError(RuntimeError):
    """A request that the server refused, or an answer that is none.

    Attributes:
        code: gRPC's name of the status, such as ``INVALID_ARGUMENT``; ``HTTP 400`` and the like over REST;
            ``CONNECTION`` where no answer came; ``BAD_ANSWER`` where it is not what the server would say.
        message: The server's words.
        rows: First and last row of the input that the request carried, or None.

    Example:
        >>> str(ServingError("HTTP 400", "x has shape [2 7]", (64, 65)))
        'rows 64 to 65: HTTP 400: x has shape [2 7]'
    """

    def __init__(
        self, code: str, message: str, rows: tuple[int, int] | None = None, passing: bool = False, wait: float = 0.0
    ):
        super().__init__(code, message, rows)
        self.code, self.message, self.rows = code, message, rows
        self.passing = passing  # whether the same request may succeed later
        self.wait = wait  # seconds that the server asks for before it does

    def __str__(self) -> str:
        where = f"rows {self.rows[0]} to {self.rows[1]}: " if self.rows else ""
        return f"{where}{self.code}: {self.message}"


def persist(ask: Callable[[], Answer], retries: int) -> Answer:
    """The answer to ``ask``, called again up to ``retries`` times while it fails with a passing error.

    Raises:
        ServingError: The last of them, or the first that does not pass.

    Example:
        >>> answers = iter([ServingError("UNAVAILABLE", "starting", passing=True), 7])
        >>> def ask():
        ...     answer = next(answers)
        ...     if isinstance(answer, ServingError):
        ...         raise answer
        ...     return answer
        >>> persist(ask, retries=1)
        7
    """
    for attempt in range(retries):
        try:
            return ask()
        except ServingError as error:
            if not error.passing or error.wait > _LONGEST_WAIT:
                raise
            wait = error.wait
        pause = min(_FIRST_PAUSE * 2**attempt, _LONGEST_PAUSE)
        time.sleep(wait + random.uniform(pause / 2, pause))
    return ask()
