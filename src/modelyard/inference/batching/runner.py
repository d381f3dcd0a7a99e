"""Where a batch runs: in this thread, in a thread of its own, or in another process."""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

Array = np.ndarray[Any, Any]
Done = Callable[[dict[str, Array] | None, Exception | None, float], None]
"""Takes the outputs, or what went wrong, and the seconds that the run took. Called once, on the event loop."""


class Runner(Protocol):
    """Runs batches of one model. Belongs to one event loop."""

    @property
    def capacity(self) -> int:
        """How many runs are worth having under way at once."""

    def start(self, batch: dict[str, Array], rows: int, done: Done) -> None:
        """Run `batch`; `done` is called before this returns when the run is done inline, else later."""

    def close(self) -> None:
        """Let go of threads and connections. Nothing is under way any more."""
