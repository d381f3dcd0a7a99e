"""The newest table, ready to be handed out, and those who wait for the next one. Lives on one event loop."""

import asyncio
import logging
from contextlib import suppress
from typing import Final

from modelyard.control.records import Database
from modelyard.control.traffic.publisher import TOPIC, Publisher, latest
from modelyard.domain.errors import ModelyardError

_LOG: Final = logging.getLogger(__name__)
SWEEP_S: Final = 1.0
_BESIDE: Final = ("keys", "secrets")
"""Changes that are published without anybody asking for a table."""


class TableFeed:
    """Hands out routing tables. `start` on the loop that serves; `stop` lets everybody go who waits."""

    def __init__(self, database: Database, publisher: Publisher) -> None:
        self._database = database
        self._publisher = publisher
        self._newest: tuple[int, bytes] = (0, b"")
        self._changed = asyncio.Event()
        self._look = asyncio.Event()
        self._leave = [database.subscribe(topic, self._wake) for topic in (TOPIC, *_BESIDE)]
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_over = False

    async def start(self) -> None:
        """Read the table in force and keep up with it."""
        self._loop = asyncio.get_running_loop()
        await self._refresh()
        self._task = self._loop.create_task(self._follow(), name="table-feed")

    async def stop(self) -> None:
        """Stop keeping up; waiting polls are answered. Idempotent."""
        for leave in self._leave:
            leave()
        self._is_over = True
        self._ring()
        self._look.set()
        if self._task is not None:
            await asyncio.wait([self._task])

    async def after(self, revision: int, *, wait_s: float) -> tuple[int, bytes] | None:
        """The newest table when it is newer than `revision`, waiting for it up to `wait_s`; else None.

        A server may hold a newer table than ours, when records were restored: the publisher counts on from there.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + wait_s
        while self._newest[0] <= revision and not self._is_over:
            changed, left = self._changed, end - loop.time()
            if left <= 0:
                return None
            try:
                async with asyncio.timeout(left):
                    await changed.wait()
            except TimeoutError:
                return None
        return self._newest if self._newest[0] > revision else None

    def _wake(self) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._look.set)

    async def _follow(self) -> None:
        while not self._is_over:
            with suppress(TimeoutError):
                async with asyncio.timeout(SWEEP_S):
                    await self._look.wait()
            self._look.clear()
            try:
                await self._refresh()
            except ModelyardError as error:
                _LOG.warning("the routing table cannot be read now: %s", error)

    async def _refresh(self) -> None:
        newest = await asyncio.to_thread(self._read)
        if newest is not None and newest[0] != self._newest[0]:
            self._newest = newest
            self._ring()

    def _read(self) -> tuple[int, bytes] | None:
        with self._database.leading() as leads:
            if leads:
                self._publisher.refresh(self._database)
        with self._database.read() as tx:
            return latest(tx)

    def _ring(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
