"""The line to one isolated worker: what is in its hands, when it was last heard, and how it stands."""

import asyncio
import os
import socket
import struct
from enum import Enum
from time import perf_counter
from typing import Final, Protocol, cast

import msgspec

from modelyard.inference.routing.frames import FrameReader, Hello, Kind, frame, run_frame
from modelyard.inference.routing.workers.diary import last_entry
from modelyard.inference.routing.workers.flow import Flow
from modelyard.inference.routing.workers.health import Record
from modelyard.inference.routing.workers.job import Job

DEPTH: Final = 2
"""Runs in a worker's hands: the one under way and the one on its way."""
_CREDENTIALS: Final = struct.Struct("3i")
_LONGEST_MS: Final = (1 << 32) - 1


class Standing(Enum):
    """Whether a worker is given work."""

    WELL = "well"
    SILENT = "silent"
    ASIDE = "aside"


class Owner(Protocol):
    """Who holds the line."""

    def arrived(self, connection: "Connection") -> None:
        """The worker said hello."""

    def departed(self, connection: "Connection") -> None:
        """The line is cut."""

    def answered(self, connection: "Connection", job: Job, kind: Kind, payload: bytes) -> None:
        """The worker answered a run."""

    def heard(self, connection: "Connection") -> None:
        """A silent worker spoke."""

    def freed(self, connection: "Connection") -> None:
        """A stream is over: the worker can take other work."""


class Connection(asyncio.Protocol):
    """One worker that is there. `jobs` are in the order in which they were sent."""

    def __init__(self, owner: Owner, address: str) -> None:
        self._owner = owner
        self._reader = FrameReader()
        self._transport: asyncio.Transport | None = None
        self.address = address
        self.jobs: dict[int, Job] = {}
        self.flows: dict[int, Flow] = {}
        self.hello: Hello | None = None
        self.number = 0
        self.standing = Standing.WELL
        self.record = Record()
        self.heard_at = perf_counter()
        self.pinged_at = 0.0
        self.turn_at = 0.0
        self.tried_at = 0.0
        self.trial_at = 0.0
        self.trial_pause_s = 0.0
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Take frames."""
        self.heard_at = perf_counter()
        if self.standing is Standing.SILENT:
            self._owner.heard(self)
        for kind, number, payload in self._reader.feed(data):
            if kind is Kind.HELLO:
                self.number = number
                self.hello = msgspec.msgpack.decode(payload, type=Hello)
                self._owner.arrived(self)
            elif number in self.flows:
                self._flowed(number, kind, payload)
            elif kind in (Kind.ANSWER, Kind.FAILURE, Kind.DROPPED):
                job = self.jobs.pop(number, None)
                if job is not None:
                    self._owner.answered(self, job, kind, payload)

    def _flowed(self, number: int, kind: Kind, payload: bytes) -> None:
        if self.flows[number].take(kind, payload):
            del self.flows[number]
            self._owner.freed(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """The worker is gone, or we let it go."""
        self.lost.set()
        self._owner.departed(self)

    def send(self, job: Job, now: float) -> None:
        """Put `job` into the worker's hands, with what is left of its time."""
        if not self.jobs:
            self.turn_at = now
        self.jobs[job.number] = job
        job.holders.append(self)
        job.tries += 1
        left_ms = min(_LONGEST_MS, max(1, int((min(job.deadline, now + 86_400) - now) * 1000)))
        self._write(run_frame(job.number, job.payload, left_ms=left_ms))

    def stream(self, flow: Flow, payload: bytes, *, left_s: float) -> None:
        """Ask for an answer in parts."""
        self.flows[flow.number] = flow
        left_ms = min(_LONGEST_MS, max(1, int(left_s * 1000)))
        self._write(run_frame(flow.number, payload, left_ms=left_ms, kind=Kind.STREAM))

    def allow(self, number: int) -> None:
        """One part of a stream was taken."""
        self._write(frame(Kind.MORE, number))

    def forget(self, number: int) -> None:
        """Nobody wants the rest of a stream. Its worker is busy with it until it says that it has stopped."""
        self._write(frame(Kind.DROP, number))

    def drop(self, job: Job) -> None:
        """Tell the worker that nobody waits for `job`: it forgets it unless it is under way."""
        self._write(frame(Kind.DROP, job.number))

    def ping(self, now: float) -> None:
        """Ask for a sign of life."""
        self.pinged_at = now
        self._write(frame(Kind.PING, 0))

    def close(self) -> None:
        """End the connection."""
        if self._transport is not None:
            self._transport.abort()

    def front(self) -> Job | None:
        """The run that is under way, or the next one."""
        return next(iter(self.jobs.values()), None)

    def culprit(self) -> Job | None:
        """The run of ours that was under way when the worker died.

        None when it was another server's, or none. Where the diary cannot be read, the oldest in hand.
        """
        entry = last_entry(self.address)
        if entry is None:
            return self.front()
        connection, number = entry
        return self.jobs.get(number) if connection == self.number else None

    def is_own(self) -> bool:
        """Whether the other end runs under our own user (SO_PEERCRED, unix(7))."""
        raw = None if self._transport is None else self._transport.get_extra_info("socket")
        option = getattr(socket, "SO_PEERCRED", None)
        if raw is None or option is None:
            return True
        _, user, _ = _CREDENTIALS.unpack(raw.getsockopt(socket.SOL_SOCKET, option, _CREDENTIALS.size))
        return bool(user in (os.getuid(), 0))

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)
