"""Open-loop load: requests leave at times drawn beforehand, whatever the answers do; nothing is tried twice.

Runs on an event loop in a thread of its own. Each request has an id; each kind of question has one right answer, known
byte by byte before the fault. Connections are kept and reused, the newest first, as real clients do; one that the
server says it closes is not used again.
"""

import asyncio
import random
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlsplit

from tests.faults.ledger import Entry, Ledger

_IDLE_S = 3.0
_REFUSALS = (429, 503)


@dataclass(frozen=True, slots=True)
class Question:
    """One request and the body of its right answer; None takes any answer of status 200."""

    path: str
    body: bytes
    answer: bytes | None = None
    headers: tuple[tuple[str, str], ...] = ()


@dataclass
class _Line:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    used_at: float


@dataclass
class Load:
    """A load under way. `rate` may be changed meanwhile; `headers` are asked for each request."""

    url: str
    questions: Sequence[Question]
    rate: float
    deadline_s: float
    seed: int
    headers: Callable[[], Sequence[tuple[str, str]]] = tuple
    tls: ssl.SSLContext | None = None
    ledger: Ledger = field(default_factory=Ledger)
    in_flight: int = 0
    _idle: list[_Line] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _began: float = 0.0
    _tasks: set["asyncio.Task[None]"] = field(default_factory=set)

    def __enter__(self) -> Self:
        self._began = time.perf_counter()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="load", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def now(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._began

    def stop(self) -> None:
        """Send nothing more, and wait for what is out."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(self.deadline_s + 30)
            self._thread = None

    def wait_s(self, seconds: float) -> None:
        """Let that much time of load pass."""
        time.sleep(max(0.0, seconds))

    def wait_for(self, count: int, *, limit_s: float = 120.0) -> None:
        """Until that many more were decided."""
        goal, end = len(self.ledger.entries) + count, time.monotonic() + limit_s
        while len(self.ledger.entries) < goal:
            assert time.monotonic() < end, f"only {len(self.ledger.entries)} of {goal} requests were decided"
            time.sleep(0.05)

    async def _run(self) -> None:
        chance, number, due = random.Random(self.seed), 0, 0.0
        while not self._stop.is_set():
            if due > self.now:
                await asyncio.sleep(min(due - self.now, 0.1))
                continue
            task = asyncio.get_running_loop().create_task(self._ask(number, due))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            number += 1
            due += chance.expovariate(self.rate)
            if number % 16 == 0:
                await asyncio.sleep(0)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self.deadline_s + 5)
        for line in self._idle:
            line.writer.close()

    async def _ask(self, number: int, due: float) -> None:
        self.in_flight += 1
        status, detail = 0, ""
        question = self.questions[number % len(self.questions)]
        try:
            async with asyncio.timeout(max(0.01, due + self.deadline_s - self.now)):
                status, body = await self._exchange(question, number)
            outcome = self._judge(question, status, body)
            detail = "" if outcome == "ok" else body[:160].decode(errors="replace")
        except TimeoutError:
            outcome = "late"
        except (OSError, EOFError, ValueError) as error:
            outcome, detail = "reset", f"{type(error).__name__}: {error}"
        finally:
            self.in_flight -= 1
        self.ledger.entries.append(Entry(number, due, self.now - due, outcome, status, detail))

    @staticmethod
    def _judge(question: Question, status: int, body: bytes) -> str:
        if status == 200:
            return "ok" if question.answer is None or body == question.answer else "wrong"
        return "refused" if status in _REFUSALS else str(status)

    async def _exchange(self, question: Question, number: int) -> tuple[int, bytes]:
        line = await self._line()
        kept = False
        try:
            fields = [("Content-Type", "application/json"), ("X-Request-Id", f"load-{self.seed}-{number}")]
            lines = [f"{name}: {value}\r\n" for name, value in (*fields, *question.headers, *self.headers())]
            host = urlsplit(self.url).netloc
            head = f"POST {question.path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(question.body)}\r\n"
            line.writer.write((head + "".join(lines) + "\r\n").encode() + question.body)
            status, body, kept = await read_answer(line.reader)
            return status, body
        finally:
            if kept:
                line.used_at = time.monotonic()
                self._idle.append(line)
            else:
                line.writer.close()

    async def _line(self) -> _Line:
        while self._idle:
            line = self._idle.pop()
            if time.monotonic() - line.used_at < _IDLE_S and not line.reader.at_eof():
                return line
            line.writer.close()
        parts = urlsplit(self.url)
        assert parts.hostname is not None
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port, ssl=self.tls)
        return _Line(reader, writer, time.monotonic())


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, bytes, bool]:
    """Status, body and whether the connection goes on."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *rest = head.split("\r\n")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest if line)}
    body = await reader.readexactly(int(fields.get("content-length", "0")))
    return int(first.split(" ")[1]), body, fields.get("connection", "").lower() != "close"


def right_answers(url: str, questions: Sequence[Question]) -> list[Question]:
    """The same questions with the answers that the platform gives before any fault."""

    async def ask() -> list[Question]:
        load, found = Load(url, questions, 1.0, 30.0, 0), []
        for question in questions:
            status, body = await load._exchange(question, 0)
            assert status == 200, body
            found.append(Question(question.path, question.body, body, question.headers))
        for line in load._idle:
            line.writer.close()
            with suppress(OSError):
                await line.writer.wait_closed()
        return found

    return asyncio.run(ask())
