"""What every message queue must do. Subclass it with a fixture `place`, and the suite asks the real broker."""

import asyncio
import contextlib
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import SystemRandom
from typing import Any

import pytest

from modelyard.domain.errors.platform import InvalidRequest, Unavailable
from modelyard.ports.queue import DEAD_GROUP, REASON_HEADER, Delivery, Message, MessageQueue, Subscription, dead_topic
from modelyard.processes.queues import open_queue
from modelyard.testing.brokers import Broker, BrokerMissing
from modelyard.testing.programs import queue_consumer

_LIMIT_S = 60.0


@contextlib.contextmanager
def running_or_skip(start: contextlib.AbstractContextManager[Broker]) -> Iterator[Broker]:
    """A broker, or a test that is skipped with the reason why there is none."""
    try:
        with start as broker:
            yield broker
    except BrokerMissing as missing:
        pytest.skip(str(missing))


@dataclass(frozen=True, kw_only=True)
class QueuePlace:
    """Where the queue is. `take_down` and `bring_up` are those of a broker that can be; `kills` of consumers to try."""

    url: str
    directory: Path
    take_down: Callable[[], None] | None = None
    bring_up: Callable[[], None] | None = None
    kills: int = 3

    def open(self) -> MessageQueue:
        """A new connection."""
        return open_queue(self.url, directory=self.directory)


def message(number: int, key: str = "") -> Message:
    """A message that says its number."""
    return Message(id=f"m{number}", body=str(number).encode(), key=key, headers={"kind": "test"})


async def take(subscription: Subscription, *, limit_s: float = _LIMIT_S) -> Delivery:
    """The next delivery; fails when there is none."""
    found = await subscription.receive(wait_s=limit_s)
    assert found is not None, "no message came"
    return found


class QueueConformance:
    """Each test has topics of its own."""

    @pytest.fixture
    def place(self) -> QueuePlace:
        """Where the queue is."""
        raise NotImplementedError

    @pytest.fixture
    async def queue(self, place: QueuePlace) -> AsyncIterator[MessageQueue]:
        """An open queue."""
        queue = place.open()
        yield queue
        await queue.close()

    @pytest.fixture
    def topic(self) -> str:
        """A topic that nobody else uses."""
        return f"test.{uuid.uuid4().hex[:12]}"

    async def test_what_was_sent_comes_as_it_was(self, queue: MessageQueue, topic: str) -> None:
        """Body, key, id and headers; acknowledging twice is once; lag counts what is left."""
        await queue.ensure(topic, "g")
        sent = Message(id="one", body=b"\x00\xffdata", key="k", headers={"content-type": "application/json"})
        await queue.publish(topic, [sent])
        member = await queue.subscribe(topic, "g", member="a", prefetch=10, most_attempts=3)
        got = await take(member)
        assert (got.message.id, got.message.body, got.message.key) == ("one", b"\x00\xffdata", "k")
        assert got.message.headers["content-type"] == "application/json"
        assert got.attempt == 1
        assert await member.lag() == 1
        await member.ack(got)
        await member.ack(got)
        assert await member.lag() == 0
        assert await member.receive(wait_s=0.2) is None
        await member.close()
        await member.close()

    async def test_every_group_gets_every_message(self, queue: MessageQueue, topic: str) -> None:
        """Groups do not take from each other."""
        for group in ("g", "h"):
            await queue.ensure(topic, group)
        await queue.publish(topic, [message(number) for number in range(5)])
        for group in ("g", "h"):
            member = await queue.subscribe(topic, group, member="a", prefetch=10, most_attempts=3)
            got = [await take(member) for _ in range(5)]
            assert sorted(each.message.id for each in got) == [f"m{number}" for number in range(5)]
            for each in got:
                await member.ack(each)
            await member.close()

    async def test_one_key_is_in_order_and_waits_for_its_turn(self, queue: MessageQueue, topic: str) -> None:
        """One of a key at a time, also while it is retried; keys do not wait for each other."""
        await queue.ensure(topic, "g")
        await queue.publish(topic, [message(number, key=f"k{number % 2}") for number in range(6)])
        member = await queue.subscribe(topic, "g", member="a", prefetch=10, most_attempts=9)
        first, second = await take(member), await take(member)
        assert {first.message.id, second.message.id} == {"m0", "m1"}
        assert await member.receive(wait_s=0.3) is None, "both keys are in hand"
        assert await member.retry(first, after_s=0.3, reason="not yet")
        assert await member.receive(wait_s=0.1) is None, "the key of a message that is retried waits"
        again = await take(member)
        assert (again.message.id, again.attempt) == (first.message.id, 2)
        await member.ack(again)
        await member.ack(second)
        seen = [again.message.id, second.message.id]
        for _ in range(4):
            each = await take(member)
            seen.append(each.message.id)
            await member.ack(each)
        numbers = [int(each[1:]) for each in seen]
        assert [each for each in numbers if each % 2 == 0] == [0, 2, 4]
        assert [each for each in numbers if each % 2 == 1] == [1, 3, 5]
        await member.close()

    async def test_no_more_is_held_than_was_asked_for(self, queue: MessageQueue, topic: str) -> None:
        """`prefetch` bounds what a member has, and lag counts that too."""
        await queue.ensure(topic, "g")
        await queue.publish(topic, [message(number) for number in range(10)])
        member = await queue.subscribe(topic, "g", member="a", prefetch=3, most_attempts=3)
        held = [await take(member) for _ in range(3)]
        assert await member.receive(wait_s=0.3) is None
        assert await member.lag() == 10
        await member.ack(held[0])
        await take(member)
        await member.close()

    async def test_poison_becomes_a_dead_letter(self, queue: MessageQueue, topic: str) -> None:
        """By the last attempt and by rejection, with the reason; what follows goes on."""
        await queue.ensure(topic, "g")
        await queue.publish(topic, [message(1, "k"), message(2, "k"), message(3, "k")])
        member = await queue.subscribe(topic, "g", member="a", prefetch=5, most_attempts=3)
        for attempt in (1, 2, 3):
            poison = await take(member)
            assert (poison.message.id, poison.attempt) == ("m1", attempt)
            assert await member.retry(poison, after_s=0.0, reason="broken") is (attempt < 3)
        await member.reject(await take(member), reason="never\nreadable ☠")
        last = await take(member)
        assert last.message.id == "m3"
        await member.ack(last)
        assert await member.lag() == 0
        await member.close()
        dead = await queue.subscribe(dead_topic(topic, "g"), DEAD_GROUP, member="a", prefetch=5, most_attempts=3)
        first, second = await take(dead), None
        await dead.ack(first)
        second = await take(dead)
        await dead.ack(second)
        assert (first.message.id, first.message.body, first.message.headers[REASON_HEADER]) == ("m1", b"1", "broken")
        assert (second.message.id, second.message.headers[REASON_HEADER]) == ("m2", "never readable ?")
        assert first.message.headers["kind"] == "test"
        await dead.close()

    async def test_what_a_member_had_in_hand_goes_to_the_next(self, queue: MessageQueue, topic: str) -> None:
        """In order, and the member that left can do nothing more."""
        await queue.ensure(topic, "g")
        await queue.publish(topic, [message(number, "k") for number in range(4)])
        member = await queue.subscribe(topic, "g", member="a", prefetch=10, most_attempts=9)
        await member.ack(await take(member))
        await take(member)
        await member.close()
        with pytest.raises(Unavailable):
            await member.receive(wait_s=0.1)
        other = await queue.subscribe(topic, "g", member="b", prefetch=10, most_attempts=9)
        seen = []
        for _ in range(3):
            each = await take(other)
            seen.append(each.message.id)
            await other.ack(each)
        assert seen == ["m1", "m2", "m3"]
        await other.close()

    async def test_a_name_that_cannot_be_is_refused(self, queue: MessageQueue) -> None:
        """Before any broker is asked."""
        for wrong in ("", "a b", "../x", "a..b", "a*", "x" * 300):
            with pytest.raises(InvalidRequest):
                await queue.publish(wrong, [message(1)])

    async def test_a_broker_that_goes_and_comes_loses_nothing(self, place: QueuePlace, topic: str) -> None:
        """SIGKILL of the broker with messages in flight; everything has its effect once it is back."""
        if place.take_down is None or place.bring_up is None:
            pytest.skip("nothing runs that could be taken down")
        queue = place.open()
        await queue.ensure(topic, "g")
        await queue.publish(topic, [message(number, f"k{number % 3}") for number in range(30)])
        member = await queue.subscribe(topic, "g", member="a", prefetch=8, most_attempts=9)
        effects: dict[str, int] = {}
        for _ in range(5):
            each = await take(member)
            effects[each.message.id] = 1
            await member.ack(each)
        for _ in range(2):
            effects[(await take(member)).message.id] = 1  # done, and the word about it is lost with the broker
        place.take_down()
        with pytest.raises(Unavailable):
            await _work_until_it_fails(member)
        with pytest.raises(Unavailable):
            await queue.publish(topic, [message(99)])
        await member.close()
        place.bring_up()  # in this thread: the broker ends when the one that started it does
        await _publish_again(queue, topic, [message(number, f"k{number % 3}") for number in range(30, 40)])
        left = {f"m{number}" for number in range(40)} - set(effects)

        async def drain() -> None:
            member = await queue.subscribe(topic, "g", member="a", prefetch=8, most_attempts=9)
            try:
                while left:
                    each = await take(member)
                    left.discard(each.message.id)
                    await member.ack(each)
            finally:
                await member.close()

        await _until_back(drain)
        await queue.close()

    async def test_a_consumer_that_is_killed_loses_nothing(
        self, place: QueuePlace, queue: MessageQueue, topic: str, tmp_path: Path
    ) -> None:
        """SIGKILL at random moments; effects go to a sink that knows a message by its id."""
        await consume_with_kills(place, queue, topic, tmp_path, kills=place.kills, messages=60 + 10 * place.kills)


async def consume_with_kills(
    place: QueuePlace, queue: MessageQueue, topic: str, directory: Path, *, kills: int, messages: int
) -> None:
    """Kill consumers one after the other; lost 0, double effects 0, keys in order."""
    sink = directory / "sink.db"
    queue_consumer.prepare(sink)
    await queue.ensure(topic, "g")
    for first in range(0, messages, 50):
        some = range(first, min(first + 50, messages))
        await queue.publish(topic, [message(number, f"k{number % 5}") for number in some])
    command = [sys.executable, "-m", queue_consumer.__name__, place.url, str(place.directory), topic, str(sink)]
    for _ in range(kills):
        await asyncio.to_thread(_run_until, [*command, "0.02"], sink, queue_consumer.count(sink) + 1, messages)
    await asyncio.to_thread(_run_until, [*command, "0"], sink, messages, messages)
    _judge(sink, messages)


def _run_until(command: list[str], sink: Path, effects: int, most: int) -> None:
    """A consumer, killed at some moment after there were so many effects."""
    end = time.monotonic() + _LIMIT_S
    with subprocess.Popen(command) as process:
        try:
            while queue_consumer.count(sink) < min(effects, most):
                assert process.poll() is None, f"the consumer ended by itself with {process.returncode}"
                assert time.monotonic() < end, f"{queue_consumer.count(sink)} effects of {effects}"
                time.sleep(0.01)
            time.sleep(SystemRandom().uniform(0.0, 0.15))
        finally:
            process.kill()


async def _work_until_it_fails(member: Subscription) -> None:
    async with asyncio.timeout(_LIMIT_S):
        while True:
            await member.ack(await take(member, limit_s=20))


def _judge(sink: Path, messages: int) -> None:
    with contextlib.closing(sqlite3.connect(sink)) as connection:
        rows = connection.execute("SELECT id, key FROM effects ORDER BY number").fetchall()
    assert len(rows) == messages, "an effect for each message"
    assert len({number for number, _ in rows}) == messages, "and only one"
    for key in {key for _, key in rows}:
        order = [int(number[1:]) for number, its in rows if its == key]
        assert order == sorted(order), f"the messages of {key} had their effects out of order"


async def _publish_again(queue: MessageQueue, topic: str, messages: list[Message]) -> None:
    await _until_back(lambda: queue.publish(topic, messages))


async def _until_back(ask: Callable[[], Any]) -> Any:  # noqa: ANN401
    async with asyncio.timeout(_LIMIT_S):
        while True:
            try:
                return await ask()
            except Unavailable:
                await asyncio.sleep(0.1)
