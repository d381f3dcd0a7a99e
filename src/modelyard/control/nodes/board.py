"""What model servers said last, and since when they have said anything. Kept in memory: heartbeats are no records."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from modelyard.domain.routing import ServerReport
from modelyard.foundation.clock import Clock

SILENT_AFTER_S: Final = 10.0
FORGOTTEN_AFTER_S: Final = 300.0
GATHERING_S: Final = 6.0
"""Servers report every two seconds: one that did not within three rounds is not there."""


@dataclass(frozen=True, slots=True)
class Heard:
    """A report and when it came (seconds of the monotonic clock)."""

    report: ServerReport
    at: float


class Board:
    """The last report of every server. Threads may call at the same time.

    Where several control planes share the records, each has a name (`plane`), and a server is known everywhere by that
    of its control plane and its own, as `plane/server`.

    After a start, what the first servers say is not yet what all of them say: until `expected` servers have reported,
    or had the time to, the board is not complete.
    """

    def __init__(self, clock: Clock, *, expected: int = 0, plane: str = "") -> None:
        self.plane = plane
        self._clock = clock
        self._has_news = True
        self._expected = expected
        self._opened_at = clock.monotonic()
        self._heard: dict[str, Heard] = {}
        self._alive_since: float | None = None
        self._lock = threading.Lock()
        self._listeners: list[Callable[[], None]] = []

    def listen(self, listener: Callable[[], None]) -> None:
        """Call `listener` (quick, from any thread) when a report says something new."""
        self._listeners.append(listener)

    def take(self, report: ServerReport) -> None:
        """A server reports. An older process that used the same name is forgotten."""
        if self.plane and "/" not in report.server:
            report = replace(report, server=f"{self.plane}/{report.server}")
        with self._lock:
            now = self._clock.monotonic()
            if not self._alive(now):
                self._alive_since = self._clock.now().timestamp()
            before = self._heard.get(report.server)
            self._heard[report.server] = Heard(report, now)
            self._heard = {name: heard for name, heard in self._heard.items() if now - heard.at < FORGOTTEN_AFTER_S}
            news = before is None or _content(before.report) != _content(report)
        if news:
            self._has_news |= self._is_own(report)
            for listener in self._listeners:
                listener()

    def alive(self) -> tuple[ServerReport, ...]:
        """Servers that reported within the last seconds, by name."""
        with self._lock:
            return self._alive(self._clock.monotonic())

    def own(self) -> tuple[ServerReport, ...]:
        """Those of them that report to this control plane."""
        return tuple(report for report in self.alive() if self._is_own(report))

    def news_of_own(self) -> bool:
        """Whether one of these said something new since this was asked last."""
        before, self._has_news = self._has_news, False
        return before

    @property
    def is_complete(self) -> bool:
        """Whether what is known is of all servers, so that "all of them" can be said."""
        with self._lock:
            now = self._clock.monotonic()
            own = [report for report in self._alive(now) if self._is_own(report)]
            return len(own) >= self._expected or now - self._opened_at >= GATHERING_S

    def silent(self) -> tuple[ServerReport, ...]:
        """Servers that reported some time ago, and no longer do."""
        with self._lock:
            now = self._clock.monotonic()
            return tuple(heard.report for _, heard in sorted(self._heard.items()) if now - heard.at >= SILENT_AFTER_S)

    @property
    def alive_since(self) -> float:
        """Unix seconds since which there has been at least one live server without a gap; 0 before the first."""
        return self._alive_since or 0.0

    def age_s(self, server: str) -> float | None:
        """Seconds since this server reported, None when it never did."""
        with self._lock:
            heard = self._heard.get(server)
            return None if heard is None else self._clock.monotonic() - heard.at

    def _is_own(self, report: ServerReport) -> bool:
        return not self.plane or report.server.startswith(f"{self.plane}/")

    def _alive(self, now: float) -> tuple[ServerReport, ...]:
        return tuple(heard.report for _, heard in sorted(self._heard.items()) if now - heard.at < SILENT_AFTER_S)


def _content(report: ServerReport) -> tuple[object, ...]:
    waiting = tuple((load.project, load.service) for load in report.loads if load.waiting)
    return report.table_revision, report.backends, report.pid, report.table_refused, waiting
