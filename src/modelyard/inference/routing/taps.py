"""Looking at what a model answers, once a batch and after the answers are sent, without the batcher knowing of it.

A backend that nobody looks at is not wrapped, and costs what it always did.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import numpy as np

from modelyard.inference.batching import Call, Done, Runner, Terms
from modelyard.inference.routing.measures import BackendMeasures

Array = np.ndarray[Any, Any]
_log: Final = logging.getLogger(__name__)


class Tap(Protocol):
    """Is shown every run. Raises nothing that matters: what it raises is logged."""

    def answered(self, calls: Sequence[Call], outputs: Mapping[str, Array] | None, now: float, *, took: float) -> None:
        """The calls of a run have their answers; `outputs` are of the whole run, rows in the calls' order."""


class TappedRunner:
    """A runner that shows the outputs of a run before the batcher hears of it."""

    def __init__(self, inner: Runner, measures: "TappedMeasures") -> None:
        self._inner = inner
        self._measures = measures
        self.takes_terms = inner.takes_terms

    @property
    def capacity(self) -> int:
        """That of the runner itself."""
        return self._inner.capacity

    def start(self, batch: dict[str, Array], rows: int, done: Done, terms: Terms | None = None) -> None:
        """Run it."""

        def seen(outputs: dict[str, Array] | None, error: Exception | None, took: float) -> None:
            self._measures.outputs = outputs
            done(outputs, error, took)
            self._measures.outputs = None

        self._inner.start(batch, rows, seen, terms)

    def close(self) -> None:
        """End it."""
        self._inner.close()


class TappedMeasures:
    """The figures of a backend, and those who look at its runs."""

    def __init__(self, inner: BackendMeasures, taps: Sequence[Tap]) -> None:
        self._inner = inner
        self._taps = tuple(taps)
        self._took = 0.0
        self.outputs: dict[str, Array] | None = None

    def ran(self, calls: list[Call], rows: int, *, began: float, took: float) -> None:
        """A run ended well."""
        self._took = took
        self._inner.ran(calls, rows, began=began, took=took)

    def answered(self, calls: list[Call], now: float) -> None:
        """The calls of a run have their answers, sent already."""
        self._inner.answered(calls, now)
        for tap in self._taps:
            try:
                tap.answered(calls, self.outputs, now, took=self._took)
            except Exception:  # noqa: BLE001  (what is looked at beside must never cost an answer)
                _log.exception("a run cannot be looked at")

    def failed(self, error: Exception, calls: int) -> None:
        """A run raised; the calls it costs are counted as they fail."""
        self._inner.failed(error, calls)
