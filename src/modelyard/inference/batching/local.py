"""Run a model that this process holds: inline while its runs are short, in a lane of its own while they are not."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any

import numpy as np

from modelyard.inference.batching.lane import Lane
from modelyard.inference.batching.pace import Pace
from modelyard.inference.batching.runner import Done, Terms

Array = np.ndarray[Any, Any]
Run = Callable[[Mapping[str, Array]], dict[str, Array]]
_log = logging.getLogger(__name__)


class LocalRunner:
    """Sees to it that the model runs once at a time, whoever asks."""

    capacity = 1
    takes_terms = False

    def __init__(self, run: Run, pace: Pace, loop: asyncio.AbstractEventLoop, *, name: str = "model") -> None:
        self._run = run
        self._pace = pace
        self._loop = loop
        self._lane = Lane(f"run {name}")
        self._in_lane = 0

    def start(self, batch: dict[str, Array], rows: int, done: Done, terms: Terms | None = None) -> None:
        """Run `batch` now, or in the lane."""
        if self._in_lane or self._pace.is_heavy(rows):
            self.start_aside(batch, rows, done)
            return
        began = perf_counter()
        try:
            outputs = self._run(batch)
        except Exception as error:  # noqa: BLE001  (the plugin edge: a model may raise anything)
            done(None, error, perf_counter() - began)
            return
        took = perf_counter() - began
        self._pace.record(rows, took)
        done(outputs, None, took)

    def start_aside(self, batch: dict[str, Array], rows: int, done: Done) -> None:
        """Run `batch` in the lane, however short it is."""
        self._in_lane += 1
        self._lane.submit(lambda: self._run_in_lane(batch, rows, done))

    def close(self) -> None:
        """End the lane."""
        self._lane.close()

    def _run_in_lane(self, batch: dict[str, Array], rows: int, done: Done) -> None:
        began = perf_counter()
        outputs: dict[str, Array] | None = None
        failure: Exception | None = None
        try:
            outputs = self._run(batch)
        except Exception as error:  # noqa: BLE001  (the plugin edge: a model may raise anything)
            failure = error
        took = perf_counter() - began

        def finish() -> None:
            self._in_lane -= 1
            if failure is None:
                self._pace.record(rows, took)
            done(outputs, failure, took)

        try:
            self._loop.call_soon_threadsafe(finish)
        except RuntimeError:  # the loop has ended while the model ran
            _log.debug("a run ended after its event loop")
