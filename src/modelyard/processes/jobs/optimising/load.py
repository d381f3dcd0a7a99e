"""A load on a server: requests that arrive by chance at a rate, whether or not earlier ones were answered.

Arrivals do not wait for answers, so a server that stalls is charged with everything that came meanwhile. A request that
finds no open line waits for one, and its time counts from its arrival.
"""

import asyncio
import ssl
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import httptools

if TYPE_CHECKING:
    import numpy as np

_MOST_LINES: Final = 64
_LAST_ANSWERS_S: Final = 30.0
"""How long the answers to the last requests are waited for."""
_WARM: Final = 20
_OK: Final = 200
_LONGEST_WORDS: Final = 300


@dataclass(slots=True)
class Round:
    """What one stretch of load saw. Times in ms; `lag_ms` is how far the load itself fell behind its plan, at most."""

    latencies_ms: list[float] = field(default_factory=list)
    failed: int = 0
    reason: str = ""
    seconds: float = 0.0
    lag_ms: float = 0.0

    def quantile(self, share: float) -> float:
        """The latency that this share of the requests stayed within."""
        import numpy as np

        return float(np.quantile(self.latencies_ms, share, method="inverted_cdf"))


class Door:
    """Where requests go, over lines that are kept open from round to round. Close it after use."""

    def __init__(self, url: str) -> None:
        """`url` is an http or https address; its path is not used. Certificates are this machine's own."""
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or (443 if parts.scheme == "https" else 80)
        self._tls = _unchecked() if parts.scheme == "https" else None
        self._lines: list[_Line] = []
        self._free: list[_Line] = []
        self._opening = 0
        self._waiting: deque[tuple[bytes, float]] = deque()
        self._round = Round()
        self._under_way = 0
        self._idle = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def warm(self, requests: Sequence[bytes]) -> Round:
        """A few requests one after the other, which no round counts."""
        self._round = Round()
        for index in range(_WARM):
            self._send(requests[index % len(requests)], time.perf_counter())
            await self._answered()
        return self._round

    async def drive(
        self, requests: Sequence[bytes], *, rate: float, seconds: float, chance: "np.random.Generator"
    ) -> Round:
        """Send whole HTTP requests, taken from `requests` by chance, at `rate` a second; what was seen.

        Arrivals are a Poisson process, conditioned on its number of events.
        """
        count = max(1, round(rate * seconds))
        due = sorted((chance.random(count) * seconds).tolist())
        which = chance.integers(len(requests), size=count).tolist()
        self._round = found = Round()
        begin = time.perf_counter()
        for offset, index in zip(due, which, strict=True):
            ahead = begin + offset - time.perf_counter()
            if ahead > 0:
                await asyncio.sleep(ahead)
            now = time.perf_counter()
            found.lag_ms = max(found.lag_ms, (now - begin - offset) * 1e3)
            self._send(requests[index], now)
        await self._answered()
        found.seconds = time.perf_counter() - begin
        return found

    def close(self) -> None:
        """Close every line."""
        for task in self._tasks:
            task.cancel()
        for line in self._lines:
            line.close()

    def _send(self, request: bytes, arrived: float) -> None:
        self._under_way += 1
        self._idle.clear()
        if self._free:
            self._free.pop().send(request, arrived)
            return
        self._waiting.append((request, arrived))
        if len(self._lines) + self._opening < _MOST_LINES:
            self._opening += 1
            task = asyncio.get_running_loop().create_task(self._open())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, line = await loop.create_connection(
                lambda: _Line(self), self._host, self._port, ssl=self._tls, server_hostname=None
            )
        except OSError as error:
            while self._waiting:
                self._waiting.popleft()
                self.failed(f"the server cannot be reached: {error.strerror or error}")
            return
        finally:
            self._opening -= 1
        self._lines.append(line)
        self.free(line)

    async def _answered(self) -> None:
        """Wait for what is under way; what is not answered by then has failed."""
        if self._under_way:
            try:
                await asyncio.wait_for(self._idle.wait(), _LAST_ANSWERS_S)
            except TimeoutError:
                self._waiting.clear()
                self._round.failed += self._under_way
                self._round.reason = f"no answer within {_LAST_ANSWERS_S:g} s"
                self._under_way = 0
                self._free.clear()
                for line in self._lines:
                    line.give_up()

    def answered(self, arrived: float) -> None:
        """A request was answered, and well."""
        self._round.latencies_ms.append((time.perf_counter() - arrived) * 1e3)
        self._done()

    def failed(self, reason: str) -> None:
        """A request was refused or lost."""
        self._round.failed += 1
        self._round.reason = self._round.reason or reason[:_LONGEST_WORDS]
        self._done()

    def _done(self) -> None:
        self._under_way -= 1
        if not self._under_way:
            self._idle.set()

    def free(self, line: "_Line") -> None:
        """A line can take the next request."""
        if self._waiting:
            line.send(*self._waiting.popleft())
        else:
            self._free.append(line)

    def lost(self, line: "_Line") -> None:
        """A line is closed."""
        self._lines.remove(line)
        if line in self._free:
            self._free.remove(line)


class _Line(asyncio.Protocol):
    """One kept connection, one request at a time."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._transport: asyncio.Transport | None = None
        self._parser: Any = httptools.HttpResponseParser(self)
        self._arrived: float | None = None
        self._words = bytearray()

    def send(self, request: bytes, arrived: float) -> None:
        """One request; its time counts from `arrived`."""
        assert self._transport is not None
        self._arrived = arrived
        self._transport.write(request)

    def give_up(self) -> None:
        """Hang up; what is under way is accounted for already."""
        self._arrived = None
        self.close()

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Open."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Some of an answer."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(f"the answer is no HTTP: {error}")
            self.close()

    def on_body(self, body: bytes) -> None:
        """Some of its body; only what a refusal says is kept."""
        if self._parser.get_status_code() != _OK:
            self._words += body[:_LONGEST_WORDS]

    def on_message_complete(self) -> None:
        """All of an answer."""
        status, keeps = self._parser.get_status_code(), self._parser.should_keep_alive()
        if self._arrived is None:
            return
        if status == _OK:
            arrived, self._arrived = self._arrived, None
            self._door.answered(arrived)
        else:
            self._fail(f"{status}: {self._words.decode('utf-8', 'replace')}")
        self._words.clear()
        self._parser = httptools.HttpResponseParser(self)
        if keeps:
            self._door.free(self)
        else:
            self.close()

    def connection_lost(self, error: Exception | None) -> None:
        """Closed, by whomever."""
        del error
        self._door.lost(self)
        if self._arrived is not None:
            self._fail("the server closed the connection")

    def _fail(self, reason: str) -> None:
        self._arrived = None
        self._door.failed(reason)


def _unchecked() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
