"""One run on its way through isolated workers, and who holds it."""

from collections.abc import Callable
from time import perf_counter
from typing import Any, Protocol

import numpy as np

from modelyard.inference.batching import Done
from modelyard.inference.routing.frames import pack_tensors

Array = np.ndarray[Any, Any]


class Holder(Protocol):
    """A worker that has a copy in its hands."""

    def drop(self, job: "Job") -> None:
        """Nobody waits for it."""


class Job:
    """A batch. Several workers may hold a copy; the first answer settles it, later ones are discarded.

    `deadline` is of `time.perf_counter`. `is_wanted` says whether anybody waits for it still. `deaths` counts workers
    that ended while they ran it; `calls` is how many requests share it, and `suspected` says that it is one of a batch
    whose worker ended just now.
    """

    __slots__ = (
        "_done",
        "_is_wanted",
        "began",
        "calls",
        "deadline",
        "deaths",
        "holders",
        "number",
        "payload",
        "rows",
        "settled",
        "suspected",
        "tries",
    )

    def __init__(self, number: int, batch: dict[str, Array], rows: int, done: Done) -> None:
        self.number = number
        self.payload = pack_tensors(batch)
        self.rows = rows
        self.began = perf_counter()
        self.deadline = float("inf")
        self.holders: list[Holder] = []
        self.calls = 1
        self.tries = 0
        self.deaths = 0
        self.suspected = False
        self.settled = False
        self._done = done
        self._is_wanted: Callable[[], bool] | None = None

    def bind(self, *, deadline: float, is_wanted: Callable[[], bool], calls: int) -> None:
        """Take over what the callers ask."""
        self.deadline = deadline
        self.calls = calls
        self._is_wanted = is_wanted

    def is_wanted(self, now: float) -> bool:
        """Whether an answer would reach anybody."""
        return not self.settled and now < self.deadline and (self._is_wanted is None or self._is_wanted())

    def settle(self, outputs: dict[str, Array] | None, error: Exception | None) -> None:
        """Answer, once; the payload is let go."""
        if not self.settled:
            self.settled = True
            self.payload = b""
            self._done(outputs, error, perf_counter() - self.began)
