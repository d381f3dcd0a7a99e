"""Where a batch runs: in this thread, in a thread of its own, or in another process."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np

Array = np.ndarray[Any, Any]
Done = Callable[[dict[str, Array] | None, Exception | None, float], None]
"""Takes the outputs, or what went wrong, and the seconds that the run took. Called once, on the event loop."""


class Terms(NamedTuple):
    """What a run elsewhere has to know of its callers.

    `deadline` (of `time.perf_counter`) is the latest of theirs; `is_wanted` says whether one of them still waits;
    `alone` that it is one call of a batch that failed.
    """

    deadline: float
    is_wanted: Callable[[], bool]
    calls: int
    alone: bool


class Runner(Protocol):
    """Runs batches of one model. Belongs to one event loop. With `takes_terms`, `start` is given a run's `Terms`."""

    takes_terms: bool

    @property
    def capacity(self) -> int:
        """How many runs are worth having under way at once."""

    def start(self, batch: dict[str, Array], rows: int, done: Done, terms: Terms | None = None) -> None:
        """Run `batch`; `done` is called before this returns when the run is done inline, else later."""

    def close(self) -> None:
        """Let go of threads and connections. Nothing is under way any more."""
