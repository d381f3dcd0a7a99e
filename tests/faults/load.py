"""Open-loop load: requests leave at times drawn beforehand, whatever the answers do; nothing is tried twice.

Runs in a process of its own, so that what an experiment does beside it slows nothing down. Each request has an id; each
kind of question has one right answer, known byte by byte before the fault. Connections are kept and reused, the newest
first, as real clients do; one that the server says it closes is not used again.
"""

import asyncio
import json
import os
import random
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from tests.faults.ledger import Entry, Ledger

_IDLE_S = 3.0
_TELL_EVERY_S = 0.05
_REFUSALS = (429, 503)


@dataclass(frozen=True, slots=True)
class Question:
    """One request and the body of its right answer; None takes any answer of status 200.

    Where several versions may answer, `named` has the right answer of each, and the ledger keeps whose it was.
    """

    path: str
    body: bytes
    answer: bytes | None = None
    headers: tuple[tuple[str, str], ...] = ()
    named: tuple[tuple[bytes, str], ...] = ()


@dataclass
class _Line:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    used_at: float


@dataclass
class Client:
    """The asking end, in a process of its own: what the experiment does beside it must not make it slow."""

    url: str
    questions: Sequence[Question]
    rate: float
    deadline_s: float
    seed: int
    began: float
    tls: ssl.SSLContext | None = None
    headers: Sequence[tuple[str, str]] = ()
    waiting: dict[int, float] = field(default_factory=dict)
    next_due: float = 0.0
    over: bool = False
    decided: list[Entry] = field(default_factory=list)
    _idle: list[_Line] = field(default_factory=list)
    _tasks: set["asyncio.Task[None]"] = field(default_factory=set)

    @property
    def now(self) -> float:
        """Seconds since the start, on a clock that all processes share."""
        return time.perf_counter() - self.began

    async def run(self) -> None:
        """Send until `over`, then wait for what is out."""
        chance, number, due = random.Random(self.seed), 0, 0.0
        while not self.over:
            if due > self.now:
                await asyncio.sleep(min(due - self.now, 0.1))
                continue
            task = asyncio.get_running_loop().create_task(self._ask(number, due))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            number += 1
            due += chance.expovariate(self.rate)
            self.next_due = due
            if number % 16 == 0:
                await asyncio.sleep(0)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self.deadline_s + 5)
        self.close()

    def close(self) -> None:
        """Let go of the connections."""
        for line in self._idle:
            line.writer.close()

    async def _ask(self, number: int, due: float) -> None:
        self.waiting[number] = due
        status, detail = 0, ""
        question = self.questions[number % len(self.questions)]
        try:
            async with asyncio.timeout(max(0.01, due + self.deadline_s - self.now)):
                status, body = await self.exchange(question, number)
            outcome = self._judge(question, status, body)
            detail = dict(question.named).get(body, "") if outcome == "ok" else body[:160].decode(errors="replace")
        except TimeoutError:
            outcome = "late"
        except (OSError, EOFError, ValueError) as error:
            outcome, detail = "reset", f"{type(error).__name__}: {error}"
        finally:
            del self.waiting[number]
        self.decided.append(Entry(number, due, self.now - due, outcome, status, detail))

    @staticmethod
    def _judge(question: Question, status: int, body: bytes) -> str:
        if status == 200:
            right = body in dict(question.named) if question.named else question.answer in (None, body)
            return "ok" if right else "wrong"
        return "refused" if status in _REFUSALS else str(status)

    async def exchange(self, question: Question, number: int) -> tuple[int, bytes]:
        """One request and its answer."""
        line = await self._line()
        kept = False
        try:
            fields = [("Content-Type", "application/json"), ("X-Request-Id", f"load-{self.seed}-{number}")]
            lines = [f"{name}: {value}\r\n" for name, value in (*fields, *question.headers, *self.headers)]
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


@dataclass
class Load:
    """A load under way: its own process, whose ledger comes in while it runs."""

    url: str
    questions: Sequence[Question]
    rate: float
    deadline_s: float
    seed: int
    headers: Sequence[tuple[str, str]] = ()
    ledger: Ledger = field(default_factory=Ledger)
    in_flight: int = 0
    _decided_until: float = 0.0
    _began: float = 0.0
    _process: "subprocess.Popen[bytes] | None" = None
    _reader: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.load"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"
        self._began = time.perf_counter()
        asked = [asdict(question) for question in self.questions]
        for each in asked:
            each["body"], each["answer"] = each["body"].decode(), each["answer"] and each["answer"].decode()
            each["named"] = [(answer.decode(), name) for answer, name in each["named"]]
        order = {"url": self.url, "questions": asked, "rate": self.rate, "deadline_s": self.deadline_s}
        self._order({**order, "seed": self.seed, "began": self._began, "headers": self.headers})
        self._reader = threading.Thread(target=self._read, name="ledger", daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def now(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._began

    def use(self, *headers: tuple[str, str]) -> None:
        """Send these headers from now on."""
        self._order({"headers": headers})

    def stop(self) -> None:
        """Send nothing more, and wait for what is out."""
        if self._process is None or self._reader is None or self._process.stdin is None:
            return
        with suppress(OSError):
            self._process.stdin.close()
        self._reader.join(self.deadline_s + 30)
        with self._process:
            self._process.kill()
        self._process = None

    def wait_s(self, seconds: float) -> None:
        """Let that much time of load pass."""
        time.sleep(max(0.0, seconds))

    def wait_for(self, count: int, *, limit_s: float = 120.0) -> None:
        """Until that many more were decided."""
        goal, end = len(self.ledger.entries) + count, time.monotonic() + limit_s
        while len(self.ledger.entries) < goal:
            assert time.monotonic() < end, f"only {len(self.ledger.entries)} of {goal} requests were decided"
            time.sleep(0.05)

    def settle(self, until: float) -> None:
        """Wait until everything that was due before then is decided."""
        end = time.monotonic() + self.deadline_s + 30
        while self._decided_until < until:
            assert time.monotonic() < end, "a request is neither answered nor given up"
            time.sleep(0.02)

    def _order(self, order: Mapping[str, object]) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()

    def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            told = json.loads(line)
            self.in_flight = told["in_flight"]
            self.ledger.entries += [Entry(*row) for row in told["decided"]]
            self._decided_until = told["decided_until"]


def main() -> None:
    """The client's process: orders by line on standard input, the ledger by line on standard output."""
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    order = json.loads(sys.stdin.readline())
    asked = [_question(each) for each in order.pop("questions")]
    trusting = None
    if order["url"].startswith("https:"):
        trusting = ssl.create_default_context()
        trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    client = Client(questions=asked, tls=trusting, **order)

    def follow() -> None:
        for line in sys.stdin:
            client.headers = json.loads(line)["headers"]
        client.over = True

    threading.Thread(target=follow, daemon=True).start()
    asyncio.run(_tell(client))


async def _tell(client: Client) -> None:
    work = asyncio.get_running_loop().create_task(client.run())
    while True:
        done = work.done()
        decided, client.decided = client.decided, []
        rows = [[e.number, e.due, e.latency, e.outcome, e.status, e.detail] for e in decided]
        until = min(client.next_due, *client.waiting.values()) if client.waiting else client.next_due
        told = {"in_flight": len(client.waiting), "decided": rows, "decided_until": until}
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()
        if done:
            return work.result()
        await asyncio.sleep(_TELL_EVERY_S)


def _question(given: Mapping[str, Any]) -> Question:
    answer = None if given["answer"] is None else given["answer"].encode()
    headers = tuple((name, value) for name, value in given["headers"])
    named = tuple((answer.encode(), name) for answer, name in given["named"])
    return Question(given["path"], given["body"].encode(), answer, headers, named)


def right_answers(url: str, questions: Sequence[Question]) -> list[Question]:
    """The same questions with the answers that the platform gives before any fault."""

    async def ask() -> list[Question]:
        client, found = Client(url, questions, 1.0, 30.0, 0, time.perf_counter()), []
        for question in questions:
            status, body = await client.exchange(question, 0)
            assert status == 200, body
            found.append(Question(question.path, question.body, body, question.headers))
        client.close()
        await asyncio.sleep(0)
        return found

    return asyncio.run(ask())


if __name__ == "__main__":
    main()
