"""What the services of this server have to do, for those whose number of workers follows it.

A look four times a second, not a count a request: a service that nobody scales costs nothing here.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import zip_longest
from time import monotonic
from typing import Final

from modelyard.domain.routing import ServiceLoad
from modelyard.inference.routing.measures import REQUEST_DURATION
from modelyard.inference.routing.services import Service

LOOK_EVERY_S: Final = 0.25
_QUANTILE: Final = 0.95


class _Meter:
    """The figures of one service since it was last reported."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._received = service.measures.received.value
        self._reported = self._received
        self._reported_at = self._asked_at = monotonic()
        self._sum = 0.0
        self._looks = 0
        self._counts = self._latencies()
        self.waiting = 0

    def look(self) -> bool:
        """Take a sample; whether requests have just begun to wait for a first worker."""
        service, received = self._service, self._service.measures.received.value
        if received != self._received or service.in_flight:
            self._received, self._asked_at = received, monotonic()
        self._sum += service.in_flight
        self._looks += 1
        before, self.waiting = self.waiting, service.in_flight if service.has_no_worker else 0
        return self.waiting > 0 and not before

    def report(self) -> ServiceLoad:
        """The means since the last report."""
        now, service = monotonic(), self._service
        counts = self._latencies()
        load = ServiceLoad(
            project=service.project,
            service=service.name,
            in_flight=self._sum / self._looks if self._looks else float(service.in_flight),
            rate=(self._received - self._reported) / max(now - self._reported_at, LOOK_EVERY_S),
            latency_ms=_quantile_ms(_since(self._counts, counts)),
            waiting=self.waiting,
            quiet_s=now - self._asked_at,
        )
        self._reported, self._reported_at, self._counts = self._received, now, counts
        self._sum = self._looks = 0
        return load

    def _latencies(self) -> list[float]:
        return self._service.latency_counts()


class LoadMeters:
    """Meters for the services that are scaled. `on_waiting` asks for a report at once."""

    def __init__(self, *, on_waiting: Callable[[], None]) -> None:
        self._meters: dict[Service, _Meter] = {}
        self._on_waiting = on_waiting

    def follow(self, services: Iterable[Service]) -> None:
        """Meter these services from now on, and no others."""
        wanted = {service for service in services if service.goal.scaled}
        self._meters = {service: self._meters.get(service) or _Meter(service) for service in wanted}

    def look(self) -> None:
        """Take a sample of each; to be called every `LOOK_EVERY_S`."""
        began = [meter for meter in self._meters.values() if meter.look()]
        if began:
            self._on_waiting()

    def report(self) -> tuple[ServiceLoad, ...]:
        """The loads since the last report."""
        return tuple(meter.report() for meter in self._meters.values())


def _since(before: Sequence[float], now: Sequence[float]) -> list[float]:
    """What came since; a revision that went away meanwhile takes its counts with it."""
    return [max(0.0, b - a) for a, b in zip_longest(before, now, fillvalue=0.0)]


def _quantile_ms(counts: Sequence[float]) -> float | None:
    """The 95th percentile in milliseconds, evenly spread within its bucket; None without an observation."""
    bounds, total = REQUEST_DURATION.buckets, sum(counts)
    if total <= 0:
        return None
    wanted, seen = _QUANTILE * total, 0.0
    for index, count in enumerate(counts):
        if count and seen + count >= wanted:
            low = bounds[index - 1] if index else 0.0
            high = bounds[index] if index < len(bounds) else bounds[-1]
            return 1000 * (low + (high - low) * (wanted - seen) / count)
        seen += count
    return 1000 * bounds[-1]
