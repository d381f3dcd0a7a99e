"""The member of a group that keeps order by key, over any broker that can fetch and acknowledge.

A *feed* fetches messages in the broker's order. They wait in a window, bounded by `prefetch`; the first one of each key
can be handed out, the others of it wait for its end. One task fills the window, one says now and then that the member
lives. When either fails, so does everything from then on: whoever uses it subscribes again.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Protocol

from modelyard.domain.errors.platform import Unavailable
from modelyard.ports.queue import (
    ATTEMPTS_HEADER,
    DEAD_GROUP,
    ORIGIN_HEADER,
    REASON_HEADER,
    Delivery,
    Message,
    MessageQueue,
    dead_topic,
)

_FETCH_WAIT_S: Final = 1.0
_LONGEST_REASON: Final = 500


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Fetched:
    """A message as the broker gave it. `handle` is the feed's own; `deliveries` as the broker counts, from 1."""

    message: Message
    deliveries: int
    handle: object


class Feed(Protocol):
    """What an integration gives. A lost broker is `Unavailable`."""

    async def fetch(self, most: int, *, wait_s: float) -> Sequence[Fetched]:
        """The next messages, at most so many, in order; none when there are none for `wait_s`, or while standing by."""

    async def acknowledge(self, fetched: Fetched) -> None:
        """The group is done with it."""

    async def keep_alive(self, held: Sequence[Fetched]) -> None:
        """This member lives and still has these. Called every `alive_s`."""

    async def waiting(self) -> int:
        """Messages that the group has not fetched yet."""

    async def close(self) -> None:
        """Leave."""

    @property
    def alive_s(self) -> float:
        """How often `keep_alive` is to be called."""


@dataclass(slots=True, eq=False)
class _Entry:
    fetched: Fetched
    attempt: int
    not_before: float = 0.0
    in_hand: bool = False


@dataclass(slots=True)
class _Window:
    """What was fetched and is not acknowledged: a line for each key, in the order of arrival."""

    lines: dict[object, deque[_Entry]] = field(default_factory=dict)
    size: int = 0

    def add(self, fetched: Fetched) -> None:
        line: object = fetched.message.key or object()
        self.lines.setdefault(line, deque()).append(_Entry(fetched, fetched.deliveries))
        self.size += 1

    def next(self, now: float) -> tuple[_Entry | None, float | None]:
        """The first entry that can be handed out, else the moment when one can be."""
        soonest: float | None = None
        for line in self.lines.values():
            head = line[0]
            if head.in_hand:
                continue
            if head.not_before <= now:
                return head, None
            soonest = head.not_before if soonest is None else min(soonest, head.not_before)
        return None, soonest

    def take(self, name: object, entry: _Entry) -> None:
        line = self.lines[name]
        line.remove(entry)
        self.size -= 1
        if not line:
            del self.lines[name]

    def drop(self, gone: Callable[[_Entry], bool]) -> None:
        """Forget what is another member's now."""
        for name, line in list(self.lines.items()):
            for entry in [each for each in line if gone(each)]:
                self.take(name, entry)

    def find(self, entry: _Entry) -> object | None:
        key = entry.fetched.message.key
        if key:
            return key if entry in self.lines.get(key, ()) else None
        return next((name for name, line in self.lines.items() if line[0] is entry), None)

    def held(self) -> list[Fetched]:
        return [entry.fetched for line in self.lines.values() for entry in line]


class KeyedSubscription:
    """A `Subscription` over a feed. `bury` publishes a dead letter and returns when it is confirmed."""

    def __init__(
        self,
        feed: Feed,
        *,
        source: str,
        prefetch: int,
        most_attempts: int,
        bury: Callable[[Message], Awaitable[None]],
    ) -> None:
        self._feed = feed
        self._source = source
        self._prefetch = prefetch
        self._most_attempts = most_attempts
        self._bury = bury
        self._window = _Window()
        self._changed = asyncio.Event()
        self._failure: Unavailable | None = None
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> "KeyedSubscription":
        """Begin to fetch."""
        self._tasks = [
            asyncio.create_task(self._guard(self._fill()), name=f"fill {self._source}"),
            asyncio.create_task(self._guard(self._live()), name=f"live {self._source}"),
        ]
        return self

    async def release(self, gone: Callable[[Fetched], bool], wait_s: float) -> None:
        """Another member gets these: forget what waits, and what is in hand when it ends or `wait_s` is over."""
        self._window.drop(lambda entry: gone(entry.fetched) and not entry.in_hand)
        self._ring()
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                while self._failure is None and any(gone(fetched) for fetched in self._window.held()):
                    await self._changed.wait()
        self._window.drop(lambda entry: gone(entry.fetched))
        self._ring()

    async def receive(self, *, wait_s: float) -> Delivery | None:
        """See the port."""
        loop = asyncio.get_running_loop()
        end = loop.time() + wait_s
        while True:
            self._require()
            changed = self._changed
            entry, soonest = self._window.next(loop.time())
            if entry is not None:
                entry.in_hand = True
                return Delivery(message=entry.fetched.message, attempt=entry.attempt, handle=entry)
            until = end if soonest is None else min(end, soonest)
            if end <= loop.time():
                return None
            with suppress(TimeoutError):
                async with asyncio.timeout_at(until):
                    await changed.wait()

    async def ack(self, delivery: Delivery) -> None:
        """See the port."""
        entry = _entry_of(delivery)
        self._require()
        if self._window.find(entry) is None:
            return
        await self._broker(self._feed.acknowledge(entry.fetched))
        name = self._window.find(entry)
        if name is not None:
            self._window.take(name, entry)
        self._ring()

    async def retry(self, delivery: Delivery, *, after_s: float, reason: str) -> bool:
        """See the port."""
        entry = _entry_of(delivery)
        self._require()
        if entry.attempt >= self._most_attempts:
            await self.reject(delivery, reason=reason)
            return False
        entry.attempt += 1
        entry.not_before = asyncio.get_running_loop().time() + after_s
        entry.in_hand = False
        self._ring()
        return True

    async def reject(self, delivery: Delivery, *, reason: str) -> None:
        """See the port."""
        message = delivery.message
        about: Mapping[str, str] = {
            REASON_HEADER: one_line(reason),
            ORIGIN_HEADER: self._source,
            ATTEMPTS_HEADER: str(delivery.attempt),
        }
        self._require()
        await self._bury(
            Message(id=message.id, key=message.key, body=message.body, headers={**message.headers, **about})
        )
        await self.ack(delivery)

    async def lag(self) -> int:
        """See the port."""
        self._require()
        waiting = 0

        async def ask() -> None:
            nonlocal waiting
            waiting = await self._feed.waiting()

        await self._broker(ask())
        return waiting + self._window.size

    async def close(self) -> None:
        """See the port."""
        if self._failure is None:
            self._failure = Unavailable(f"the subscription to {self._source} is closed", hint="subscribe again")
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        self._ring()
        with suppress(Unavailable):
            await self._feed.close()

    async def _fill(self) -> None:
        while True:
            changed = self._changed
            room = self._prefetch - self._window.size
            if room <= 0:
                await changed.wait()
                continue
            found = await self._feed.fetch(room, wait_s=_FETCH_WAIT_S)
            for fetched in found:
                self._window.add(fetched)
            if found:
                self._ring()

    async def _live(self) -> None:
        while True:
            await asyncio.sleep(self._feed.alive_s)
            await self._feed.keep_alive(self._window.held())

    async def _guard(self, work: Awaitable[None]) -> None:
        try:
            await work
        except Unavailable as error:
            self._fail(error)

    async def _broker(self, work: Awaitable[None]) -> None:
        try:
            await work
        except Unavailable as error:
            self._fail(error)
            raise

    def _fail(self, error: Unavailable) -> None:
        if self._failure is None:
            self._failure = error
        self._ring()

    def _require(self) -> None:
        if self._failure is not None:
            raise Unavailable(self._failure.detail, hint=self._failure.hint) from self._failure

    def _ring(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


async def follow(
    queue: MessageQueue,
    topic: str,
    group: str,
    *,
    prefetch: int,
    most_attempts: int,
    feed: Callable[[], Awaitable[Feed]],
) -> KeyedSubscription:
    """A member of the group, over what `feed` makes once the topic, the group and its dead letters are there."""
    dead = dead_topic(topic, group)
    await queue.ensure(topic, group)
    await queue.ensure(dead, DEAD_GROUP)
    return KeyedSubscription(
        await feed(),
        source=f"{topic}/{group}",
        prefetch=prefetch,
        most_attempts=most_attempts,
        bury=lambda message: queue.publish(dead, [message]),
    ).start()


def one_line(text: str) -> str:
    """`text` as a header can carry it: one line of plain characters, not too long."""
    plain = " ".join(text.split()).encode("ascii", "replace").decode("ascii")
    return plain[:_LONGEST_REASON]


def _entry_of(delivery: Delivery) -> _Entry:
    assert isinstance(delivery.handle, _Entry), "a delivery of another subscription"
    return delivery.handle
