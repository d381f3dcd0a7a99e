"""What all connections of one listener share: settings, the coarse clock, the counters, the open connections."""

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from modelyard.foundation.http.hosts import HostPolicy, TrustedProxies
from modelyard.foundation.http.limits import EdgeLimits, RouteRule, RouteRules
from modelyard.foundation.http.recall import HeadMemory
from modelyard.foundation.http.refusal import ErrorWriter, inference_errors
from modelyard.foundation.http.wire import Prefixes

AccessLog = Callable[[str, str, int, float, int], None]
"""(method, raw path, status, seconds, bytes sent), called once an answer; must be cheap and must not raise."""
JointLog = Callable[[str, str, int, float, Sequence[int]], None]
"""The same for several answers of one kind, each with its size."""

_TICK_S: Final = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeSettings:
    """How a listener behaves."""

    limits: EdgeLimits = field(default_factory=EdgeLimits)
    hosts: HostPolicy = field(default_factory=HostPolicy)
    proxies: TrustedProxies = field(default_factory=TrustedProxies)
    routes: RouteRules | None = None
    errors: ErrorWriter = inference_errors
    access_log: AccessLog | None = None
    joint_log: JointLog | None = None
    """Takes answers that leave together; without it `access_log` gets them one by one."""


class Swept(Protocol):
    """A connection, as the clock sees it."""

    deadline: float

    @property
    def is_busy(self) -> bool:
        """Whether a request is being received or answered."""

    def expire(self, now: float) -> None:
        """The deadline has come."""

    def close_idle(self) -> None:
        """Close now, if nothing is under way."""

    def close_after_answer(self) -> None:
        """The next answer is the last."""

    def abort(self) -> None:
        """Drop the connection."""


class Edge:
    """The shared part of a listener. One timer serves all its connections: nothing is scheduled per request."""

    def __init__(self, settings: EdgeSettings, loop: asyncio.AbstractEventLoop) -> None:
        limits = settings.limits
        self.settings = settings
        self.limits = limits
        self.loop = loop
        self.errors = settings.errors
        self.access_log = settings.access_log
        self.log_many = settings.joint_log or _one_by_one(settings.access_log)
        self.default_rule = RouteRule(max_body_bytes=limits.max_body_bytes)
        self.prefixes = Prefixes()
        self.memory = HeadMemory()
        self.id_prefix = os.urandom(6).hex()
        self.id_prefix_bytes = self.id_prefix.encode()
        self.requests = 0
        self.numbers = 0
        """Of the requests that were answered by themselves; their ids come from it."""
        self.buffered = 0
        self.draining = False
        self.connections: set[Swept] = set()
        shortest = min(limits.receipt_deadline_s, limits.idle_s, limits.write_deadline_s, limits.half_close_grace_s)
        self._tick_s = max(0.01, min(_TICK_S, shortest / 10))
        self._timer: asyncio.TimerHandle | None = None
        self.now = 0.0
        self.idle_at = 0.0
        self.receipt_at = 0.0
        self._sweep()

    def stop(self) -> None:
        """Stop the clock."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def begin_drain(self) -> None:
        """From now on each connection's next answer is its last."""
        self.draining = True
        for connection in self.connections:
            connection.close_after_answer()

    def reserve(self, size: int) -> bool:
        """Take `size` bytes of the memory for bodies; False when there is not that much left."""
        if self.buffered + size > self.limits.max_buffered_bytes:
            return False
        self.buffered += size
        return True

    def _sweep(self) -> None:
        now = self.now = self.loop.time()
        self.idle_at = now + self.limits.idle_s
        self.receipt_at = now + self.limits.receipt_deadline_s - self._tick_s
        self.prefixes.refresh()
        for connection in [each for each in self.connections if each.deadline <= now]:
            connection.expire(now)
        self._timer = self.loop.call_later(self._tick_s, self._sweep)


def _one_by_one(log: AccessLog | None) -> JointLog | None:
    if log is None:
        return None

    def log_many(method: str, path: str, status: int, seconds: float, sizes: Sequence[int]) -> None:
        for size in sizes:
            log(method, path, status, seconds, size)

    return log_many
