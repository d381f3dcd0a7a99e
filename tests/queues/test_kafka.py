"""What only Kafka has: members that share partitions, and what a commit says besides its offset."""

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.domain.errors.platform import InvalidRequest, Unavailable
from modelyard.foundation.queueing import read_address
from modelyard.integrations.queues.kafka_notes import Notes, read_notes, write_notes
from modelyard.ports.queue import Message, Subscription
from modelyard.processes.queues import open_queue
from modelyard.testing.conformance.queue import message, take

MOST = 4096
"""Bytes of metadata that a broker takes (`offset.metadata.max.bytes`)."""


@pytest.fixture
def cluster() -> Iterator[str]:
    """The client library's own cluster, in this process: unlike the broker of the suite it keeps metadata."""
    from confluent_kafka import Producer

    host = Producer({"test.mock.num.brokers": 1, "log_level": 0})
    for topic in ("noted", "noted.g.dead"):
        found = host.list_topics(topic, timeout=30)  # which makes the topic
    yield "kafka://" + ",".join(f"{each.host}:{each.port}" for each in found.brokers.values())
    del host


async def test_members_share_the_keys_and_hand_over_what_is_in_hand(kafka_broker, tmp_path):
    queue = open_queue(kafka_broker.url, directory=tmp_path)
    await queue.ensure("shared", "g")
    await queue.publish("shared", [message(number, f"k{number % 24}") for number in range(600)])
    effects: list[tuple[str, str, str]] = []
    begun, shared, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def work(name: str, member: Subscription) -> None:
        while True:
            delivery = await member.receive(wait_s=60)
            assert delivery is not None
            effects.append((delivery.message.id, delivery.message.key, name))
            begun.set()
            if name == "b":
                shared.set()
            if len({number for number, _, _ in effects}) == 600:
                ended.set()
            await asyncio.sleep(0.03)
            await member.ack(delivery)

    first = await queue.subscribe("shared", "g", member="a", prefetch=8, most_attempts=3)
    tasks = [asyncio.create_task(work("a", first))]
    async with asyncio.timeout(120):
        await begun.wait()
        second = await queue.subscribe("shared", "g", member="b", prefetch=8, most_attempts=3)
        tasks.append(asyncio.create_task(work("b", second)))
        await shared.wait()
        await ended.wait()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await first.close()
    await second.close()
    await queue.close()
    firsts = list(dict.fromkeys((number, key) for number, key, _ in effects))
    assert len(firsts) == 600, "nothing is lost"
    for key in {key for _, key in firsts}:
        order = [int(number[1:]) for number, its in firsts if its == key]
        assert order == sorted(order), f"{key} was out of order"
    again = len(effects) - 600
    assert again <= 2 * 24, "what comes again was acknowledged out of turn, by a broker that keeps no metadata"


async def test_a_commit_knows_what_is_done_behind_it_and_how_often_the_rest_was_given(cluster, tmp_path):
    queue = open_queue(cluster, directory=tmp_path)
    await queue.publish("noted", [Message(id=f"m{number}", body=b"", key="one") for number in range(3)])
    await queue.publish("noted", [Message(id="free", body=b"")])
    seen: list[tuple[str, int]] = []
    for _ in range(3):
        member = await queue.subscribe("noted", "g", member="a", prefetch=8, most_attempts=9)
        seen.append(((first := await take(member)).message.id, first.attempt))
        if len(seen) == 1:
            other = await take(member)
            await member.ack(other)
            assert {first.message.id, other.message.id} == {"m0", "free"}
            held = "m0" if other.message.id == "free" else "free"
        await member.close()  # with one in hand
    assert [each for each in seen if each[0] == held][-1][1] > 1, seen
    await queue.close()


@given(
    at=st.integers(0, 2**48),
    done=st.frozensets(st.integers(1, 5_000), max_size=300),
    opened=st.dictionaries(st.integers(0, 5_000), st.integers(1, 40), max_size=100),
)
def test_notes_are_read_as_they_were_written_and_never_grow_too_long(at, done, opened):
    notes = Notes(at, frozenset(at + each for each in done), {at + each: times for each, times in opened.items()})
    text = write_notes(notes)
    assert len(text.encode()) <= MOST
    got = read_notes(at, text)
    assert got.at == at
    assert got.done <= notes.done
    assert got.open.items() <= dict(notes.open).items()
    if len(done) + len(opened) < 200:
        assert (got.done, dict(got.open)) == (notes.done, dict(notes.open))


@pytest.mark.parametrize("text", [None, "", "hello", "1;2", "2;1;", "1;x y;", "1;0-zzzzzzzz;", "1;-;", "1;;4"])
def test_what_others_wrote_says_nothing(text):
    assert read_notes(7, text) == Notes(7)


async def test_addresses_name_several_brokers_and_options(tmp_path):
    address = read_address("kafka://me:secret@a:1,b,[::1]:3/?partitions=4")
    assert address.places(9092) == ["a:1", "b:9092", "[::1]:3"]
    assert str(address) == "kafka://me:***@a:1,b,[::1]:3/"
    with pytest.raises(InvalidRequest, match="no host"):
        read_address("kafka://a,b c/")
    with pytest.raises(InvalidRequest, match="partitions"):
        read_address("kafka://a/?partitions=0").whole_option("partitions", 6, least=1)


async def test_a_password_that_is_asked_of_a_broker_without_passwords(kafka_broker, tmp_path):
    queue = open_queue(kafka_broker.url.replace("kafka://", "kafka://me:geheim@"), directory=tmp_path)
    with pytest.raises(Unavailable) as caught:
        await queue.publish("a.topic", [message(1)])
    assert "geheim" not in str(caught.value)
    await queue.close()
