"""Time, handed in: what decides by the clock gets one of these, so that tests decide what time it is."""

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Wall time and a monotonic time that never goes back."""

    def now(self) -> datetime:
        """The time of day, aware and in UTC."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary start; only differences mean something."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """The time of day, aware and in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds since the machine started."""
        return time.monotonic()


class SetClock:
    """A clock that stands still until it is told to move; both readings move together."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._start = start
        self._passed = timedelta()

    def now(self) -> datetime:
        """The start and what has passed since."""
        return self._start + self._passed

    def monotonic(self) -> float:
        """Seconds that have passed since the start."""
        return self._passed.total_seconds()

    def pass_time(self, **amount: float) -> None:
        """Move by `timedelta(**amount)`: `pass_time(minutes=15)`."""
        self._passed += timedelta(**amount)
