"""Isolated workers of one backend: connections over Unix sockets, health, and another worker when one dies.

A request is the listener's until it is answered. What a dead worker had in hand is sent to another, or waits for its
successor, up to the deadline of the calls; only a request that was in hand of several workers when they died is given
up as the cause. A worker that is silent for too long counts as dead.
"""

import asyncio
import logging
import os
import socket
import struct
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Final, cast

import msgspec
import numpy as np

from modelyard.inference.batching import Done
from modelyard.inference.routing.frames import Failure, FrameReader, Hello, Kind, frame, pack_tensors, unpack_tensors

Array = np.ndarray[Any, Any]
ATTEMPTS: Final = 3
SILENCE_S: Final = 6.0
_PING_EVERY_S: Final = 1.0
_FIRST_PAUSE_S: Final = 0.02
_LONGEST_PAUSE_S: Final = 0.5
_DEPTH: Final = 2
_CREDENTIALS: Final = struct.Struct("3i")
_log = logging.getLogger(__name__)


class WorkerDied(Exception):
    """Several workers died with this request in hand."""


class WorkerFailed(Exception):
    """The model raised inside the worker."""


@dataclass(slots=True, eq=False)
class _Job:
    number: int
    payload: bytes
    done: Done
    began: float
    attempts: int = 0


class _Connection(asyncio.Protocol):
    """One worker that is there."""

    def __init__(self, pool: "WorkerPool", address: str) -> None:
        self._pool = pool
        self._reader = FrameReader()
        self._transport: asyncio.Transport | None = None
        self.address = address
        self.jobs: dict[int, _Job] = {}
        self.hello: Hello | None = None
        self.heard_at = perf_counter()
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.heard_at = perf_counter()
        for kind, number, payload in self._reader.feed(data):
            if kind is Kind.HELLO:
                self.hello = msgspec.msgpack.decode(payload, type=Hello)
                self._pool.arrived(self)
            elif kind in (Kind.ANSWER, Kind.FAILURE):
                job = self.jobs.pop(number, None)
                if job is not None:
                    self._pool.answered(job, kind, payload)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()
        self._pool.departed(self)

    def send(self, job: _Job) -> None:
        """Put `job` into the worker's hands."""
        self.jobs[job.number] = job
        job.attempts += 1
        self._write(frame(Kind.RUN, job.number, job.payload))

    def ping(self) -> None:
        """Ask for a sign of life; end the connection when there was none for too long."""
        if perf_counter() - self.heard_at > SILENCE_S and self._transport is not None:
            _log.warning("a worker is silent", extra={"address": self.address})
            self._transport.abort()
            return
        self._write(frame(Kind.PING, 0))

    def close(self) -> None:
        """End the connection."""
        if self._transport is not None:
            self._transport.abort()

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)


@dataclass(slots=True)
class WorkerPool:
    """A `Runner` over isolated workers. `on_change` is called when one arrives or departs."""

    loop: asyncio.AbstractEventLoop
    digest: str
    on_change: Callable[[], None]
    _keepers: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _live: list[_Connection] = field(default_factory=list)
    _parked: list[_Job] = field(default_factory=list)
    _numbers: int = 0
    _pinger: asyncio.Task[None] | None = None

    @property
    def capacity(self) -> int:
        """Two runs a live worker: one in hand and one on the way."""
        return _DEPTH * len(self._live)

    @property
    def hellos(self) -> Sequence[Hello]:
        """What the live workers said of themselves."""
        return [connection.hello for connection in self._live if connection.hello is not None]

    def follow(self, addresses: Sequence[str]) -> None:
        """Hold a connection to each of `addresses`, and to no other."""
        for address in [known for known in self._keepers if known not in addresses]:
            self._keepers.pop(address).cancel()
        for address in addresses:
            if address not in self._keepers:
                self._keepers[address] = self._task(self._keep(address), f"worker {address}")
        if self._pinger is None:
            self._pinger = self._task(self._ping(), "worker health")

    def start(self, batch: dict[str, Array], rows: int, done: Done) -> None:
        """Send `batch` to the worker with the least in hand."""
        self._numbers += 1
        self._assign(_Job(self._numbers, pack_tensors(batch), done, perf_counter()))

    def close(self) -> None:
        """Let go of all connections."""
        for task in self._keepers.values():
            task.cancel()
        self._keepers.clear()
        if self._pinger is not None:
            self._pinger.cancel()
        for connection in list(self._live):
            connection.close()

    def arrived(self, connection: _Connection) -> None:
        """A worker said hello."""
        assert connection.hello is not None
        if connection.hello.digest != self.digest:
            _log.error("a worker holds another model than the table names", extra={"address": connection.address})
            connection.close()
            return
        self._live.append(connection)
        parked, self._parked = self._parked, []
        for job in parked:
            self._assign(job)
        self.on_change()

    def departed(self, connection: _Connection) -> None:
        """A connection ended; what the worker had in hand goes to another."""
        if connection in self._live:
            self._live.remove(connection)
        jobs = list(connection.jobs.values())
        connection.jobs.clear()
        for job in jobs:
            if job.attempts >= ATTEMPTS:
                job.done(None, WorkerDied(f"{job.attempts} workers died on it"), perf_counter() - job.began)
            else:
                self._assign(job)
        self.on_change()

    def answered(self, job: _Job, kind: Kind, payload: bytes) -> None:
        """A worker answered."""
        took = perf_counter() - job.began
        if kind is Kind.ANSWER:
            job.done(unpack_tensors(payload), None, took)
        else:
            job.done(None, WorkerFailed(msgspec.msgpack.decode(payload, type=Failure).text), took)

    def _task(self, work: Coroutine[None, None, None], name: str) -> "asyncio.Task[None]":
        task = self.loop.create_task(work, name=name)
        task.add_done_callback(_log_end)
        return task

    def _assign(self, job: _Job) -> None:
        if self._live:
            min(self._live, key=lambda connection: len(connection.jobs)).send(job)
        else:
            self._parked.append(job)

    async def _keep(self, address: str) -> None:
        """Connect, wait for the end, connect again."""
        pause = _FIRST_PAUSE_S
        connection: _Connection | None = None
        try:
            while True:
                with suppress(OSError):
                    _, connection = await self.loop.create_unix_connection(lambda: _Connection(self, address), address)
                    if not _is_own(connection):
                        _log.error("a worker's socket is held by another user", extra={"address": address})
                        connection.close()
                    await connection.lost.wait()
                    pause = _FIRST_PAUSE_S
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_S)
        finally:
            if connection is not None:
                connection.close()

    async def _ping(self) -> None:
        while True:
            await asyncio.sleep(_PING_EVERY_S)
            for connection in list(self._live):
                connection.ping()


def _log_end(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and task.exception() is not None:
        _log.error("a task ended", extra={"task": task.get_name()}, exc_info=task.exception())


def _is_own(connection: _Connection) -> bool:
    """Whether the other end runs under our own user (SO_PEERCRED, unix(7))."""
    transport = connection._transport  # noqa: SLF001  (one module)
    raw = None if transport is None else transport.get_extra_info("socket")
    option = getattr(socket, "SO_PEERCRED", None)
    if raw is None or option is None:
        return True
    _, user, _ = _CREDENTIALS.unpack(raw.getsockopt(socket.SOL_SOCKET, option, _CREDENTIALS.size))
    return bool(user in (os.getuid(), 0))
