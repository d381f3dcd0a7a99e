"""The embedded queue: one SQLite file in a directory, for the processes of one machine. Nothing to install or start.

Whatever waits to be written at the same moment is written in one transaction with `synchronous=FULL`, so a
confirmation means that it is on the disk. A group's member holds a file lock, which the kernel lets go when its
process dies. A message is kept until every group of its topic acknowledged it; while a topic has no group, all of
them are.
"""

import asyncio
import fcntl
import json
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

from modelyard.domain.errors.platform import Unavailable
from modelyard.foundation.queueing import Fetched, KeyedSubscription, QueueAddress, check_topic, follow
from modelyard.ports.queue import Message

T = TypeVar("T")
_BUSY_S: Final = 30.0
_LOOK_S: Final = 0.02
_MOST_AT_ONCE: Final = 512
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS entries (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL, id TEXT NOT NULL, key TEXT NOT NULL,
    headers TEXT NOT NULL, body BLOB NOT NULL, at REAL NOT NULL);
CREATE INDEX IF NOT EXISTS ix_entries_topic ON entries (topic, seq);
CREATE TABLE IF NOT EXISTS groups (
    topic TEXT NOT NULL, name TEXT NOT NULL, floor INTEGER NOT NULL, PRIMARY KEY (topic, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS deliveries (
    topic TEXT NOT NULL, name TEXT NOT NULL, seq INTEGER NOT NULL, times INTEGER NOT NULL, done INTEGER NOT NULL,
    PRIMARY KEY (topic, name, seq)) WITHOUT ROWID;
"""


class EmbeddedQueue:
    """Queues in `directory`."""

    def __init__(self, address: QueueAddress, *, directory: Path) -> None:
        del address  # embedded: says all there is
        self._directory = directory
        self._file: _File | None = None

    async def ensure(self, topic: str, group: str) -> None:
        """See the port."""
        check_topic(topic)
        check_topic(group)
        await self._open().write(lambda connection: _ensure(connection, topic, group))

    async def publish(self, topic: str, messages: Sequence[Message]) -> None:
        """See the port."""
        check_topic(topic)
        rows = [(topic, each.id, each.key, json.dumps(dict(each.headers)), each.body, time.time()) for each in messages]
        statement = "INSERT INTO entries (topic, id, key, headers, body, at) VALUES (?, ?, ?, ?, ?, ?)"
        await self._open().write(lambda connection: connection.executemany(statement, rows))

    async def subscribe(
        self, topic: str, group: str, *, member: str, prefetch: int, most_attempts: int
    ) -> KeyedSubscription:
        """See the port."""
        del member  # the lock falls with its process

        async def feed() -> _Feed:
            return _Feed(self._open(), topic, group, lock=self._directory / f"{topic}+{group}.lock")

        return await follow(self, topic, group, prefetch=prefetch, most_attempts=most_attempts, feed=feed)

    async def close(self) -> None:
        """See the port."""
        if self._file is not None:
            await self._file.close()
            self._file = None

    def _open(self) -> "_File":
        if self._file is None:
            self._file = _File(self._directory)
        return self._file


class _File:
    """The database, used by one thread of its own; writes that wait together are one transaction."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="queue")
        self._connection: sqlite3.Connection | None = None
        self._waiting: list[tuple[Callable[[sqlite3.Connection], Any], asyncio.Future[Any]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def write(self, act: Callable[[sqlite3.Connection], T]) -> T:
        """The result of `act`, once it is on the disk."""
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append((act, done))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_all(), name="queue writer")
        return await done

    async def read(self, look: Callable[[sqlite3.Connection], T]) -> T:
        """What `look` finds."""
        return await self._run(lambda: look(self._connect()))

    async def close(self) -> None:
        if self._writing is not None:
            await asyncio.gather(self._writing, return_exceptions=True)
        connection = self._connection
        if connection is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, connection.close)
        self._thread.shutdown(wait=False)

    async def _write_all(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:_MOST_AT_ONCE], self._waiting[_MOST_AT_ONCE:]
            try:
                results = await self._run(lambda acts=[act for act, _ in batch]: self._transact(acts))  # type: ignore[misc]
            except Unavailable as error:
                for _, done in batch:
                    if not done.done():
                        done.set_exception(Unavailable(error.detail, hint=error.hint))
                continue
            for (_, done), result in zip(batch, results, strict=True):
                if not done.done():
                    done.set_result(result)

    def _transact(self, acts: Sequence[Callable[[sqlite3.Connection], Any]]) -> list[Any]:
        connection = self._connect()
        connection.execute("BEGIN IMMEDIATE")
        try:
            results = [act(connection) for act in acts]
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        return results

    def _connect(self) -> sqlite3.Connection:
        if self._connection is None:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            path = self._directory / "queue.db"
            path.touch(mode=0o600)
            connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.executescript(_SCHEMA)
            self._connection = connection
        return self._connection

    async def _run(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except (sqlite3.Error, OSError) as error:
            raise Unavailable(
                f"the embedded queue cannot be used: {error}", hint="look at the disk and its free space"
            ) from error


class _Feed:
    """Messages of one topic for one group, in the order they were written."""

    alive_s: Final = 30.0

    def __init__(self, file: _File, topic: str, group: str, *, lock: Path) -> None:
        self._file = file
        self._of = (topic, group)
        self._lock_path = lock
        self._lock: int | None = None
        self._last = 0

    async def fetch(self, most: int, *, wait_s: float) -> Sequence[Fetched]:
        """Look again and again, cheaply, until something is there."""
        loop = asyncio.get_running_loop()
        end = loop.time() + wait_s
        while True:
            if self._has_turn() and await self._file.read(self._is_more):
                return await self._file.write(lambda connection: self._fetch(connection, most))
            if loop.time() >= end:
                return ()
            await asyncio.sleep(_LOOK_S)

    async def acknowledge(self, fetched: Fetched) -> None:
        """Done, and forgotten where every group is done."""
        await self._file.write(lambda connection: _acknowledge(connection, *self._of, fetched.handle))

    async def keep_alive(self, held: Sequence[Fetched]) -> None:
        """The lock says it."""

    async def waiting(self) -> int:
        """What came after the last one that was fetched; while standing by, after what is done."""

        def count(connection: sqlite3.Connection) -> int:
            topic, group = self._of
            after = self._last or _floor(connection, topic, group)
            query = "SELECT count(*) FROM entries WHERE topic = ? AND seq > ?"
            return int(connection.execute(query, (topic, after)).fetchone()[0])

        return await self._file.read(count)

    async def close(self) -> None:
        """Let the lock go."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _has_turn(self) -> bool:
        if self._lock is not None:
            return True
        descriptor = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._lock = descriptor
        return True

    def _is_more(self, connection: sqlite3.Connection) -> bool:
        query = "SELECT 1 FROM entries WHERE topic = ? AND seq > ? LIMIT 1"
        return connection.execute(query, (self._of[0], self._last)).fetchone() is not None

    def _fetch(self, connection: sqlite3.Connection, most: int) -> list[Fetched]:
        topic, group = self._of
        after = max(self._last, _floor(connection, topic, group))
        rows = connection.execute(
            "SELECT e.seq, e.id, e.key, e.headers, e.body, coalesce(d.times, 0), coalesce(d.done, 0) FROM entries e"
            " LEFT JOIN deliveries d ON d.topic = e.topic AND d.name = ? AND d.seq = e.seq"
            " WHERE e.topic = ? AND e.seq > ? ORDER BY e.seq LIMIT ?",
            (group, topic, after, most),
        ).fetchall()
        if not rows:
            return []
        self._last = rows[-1][0]
        open_rows = [row for row in rows if not row[6]]
        connection.executemany(
            "INSERT INTO deliveries (topic, name, seq, times, done) VALUES (?, ?, ?, 1, 0)"
            " ON CONFLICT (topic, name, seq) DO UPDATE SET times = times + 1",
            [(topic, group, row[0]) for row in open_rows],
        )
        return [
            Fetched(
                message=Message(id=number, key=key, headers=json.loads(headers), body=body),
                deliveries=times + 1,
                handle=seq,
            )
            for seq, number, key, headers, body, times, _ in open_rows
        ]


def _ensure(connection: sqlite3.Connection, topic: str, group: str) -> None:
    first = "SELECT coalesce(min(seq) - 1, (SELECT coalesce(max(seq), 0) FROM entries)) FROM entries WHERE topic = ?"
    connection.execute(
        f"INSERT INTO groups (topic, name, floor) VALUES (?, ?, ({first})) ON CONFLICT DO NOTHING",  # noqa: S608  (a constant)
        (topic, group, topic),
    )


def _floor(connection: sqlite3.Connection, topic: str, group: str) -> int:
    row = connection.execute("SELECT floor FROM groups WHERE topic = ? AND name = ?", (topic, group)).fetchone()
    return 0 if row is None else int(row[0])


def _acknowledge(connection: sqlite3.Connection, topic: str, group: str, seq: object) -> None:
    of = (topic, group)
    connection.execute("UPDATE deliveries SET done = 1 WHERE topic = ? AND name = ? AND seq = ?", (*of, seq))
    undone = connection.execute(
        "SELECT min(seq) FROM deliveries WHERE topic = ? AND name = ? AND done = 0", of
    ).fetchone()[0]
    last = "SELECT max(seq) FROM deliveries WHERE topic = ? AND name = ?"
    floor = int(connection.execute(last, of).fetchone()[0] if undone is None else undone - 1)
    connection.execute("UPDATE groups SET floor = max(floor, ?) WHERE topic = ? AND name = ?", (floor, *of))
    connection.execute("DELETE FROM deliveries WHERE topic = ? AND name = ? AND seq <= ? AND done = 1", (*of, floor))
    lowest = connection.execute("SELECT min(floor) FROM groups WHERE topic = ?", (topic,)).fetchone()[0]
    connection.execute("DELETE FROM entries WHERE topic = ? AND seq <= ?", (topic, lowest))
