"""Kafka, and brokers that speak its protocol: a consumer group a group, offsets that are committed after the effect.

Members of a group share the partitions; one key lies in one partition, so it is with one member at a time. When
partitions move, a member first ends what it has in hand of them (`_HANDOVER_S` at most). One that closes leaves at
once; what a killed one had goes to the others after its session (`_SESSION_MS`).

An offset says that everything before it is done. What is done behind it, and how often what is open was given out, is
kept in the commit's own metadata (`kafka_notes`), so that a message that was acknowledged out of turn does not come
again. A broker that keeps no metadata, or takes no commit while partitions move, gives such messages again.
The producer is idempotent and asks for all replicas in sync.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

from modelyard.domain.errors.platform import Unavailable
from modelyard.foundation.queueing import (
    Fetched,
    KeyedSubscription,
    QueueAddress,
    check_topic,
    follow,
    no_answer,
    not_let_in,
    require_library,
)
from modelyard.integrations.queues.kafka_notes import Notes, read_notes, write_notes
from modelyard.ports.queue import Message

_PATIENCE_S: Final = 10.0
_SESSION_MS: Final = 6_000
_HANDOVER_S: Final = 5.0
_LEAVE_WITHIN_S: Final = 20.0
_SLICE_S: Final = 0.02
_PARTITIONS: Final = 6
_PORT: Final = 9092
_ID: Final = "modelyard-id"
_EVENT_ID: Final = "ce_id"


class KafkaQueue:
    """Queues of one Kafka cluster. Topics that are missing are made, with `?partitions=` partitions."""

    def __init__(self, address: QueueAddress) -> None:
        require_library("confluent_kafka", "Kafka needs a library", extra="kafka")
        self._address = address
        self._settings = _settings(address)
        self._troubles = _Troubles(address)
        self._opening = threading.Lock()
        self._producer: Any = None
        self._admin: Any = None
        self._known: set[str] = set()

    async def ensure(self, topic: str, group: str) -> None:
        """See the port. A group begins with the first message that the topic still has."""
        check_topic(group)
        await asyncio.to_thread(self._make_topic, check_topic(topic))

    async def publish(self, topic: str, messages: Sequence[Message]) -> None:
        """See the port."""
        await asyncio.to_thread(self._make_topic, check_topic(topic))
        await asyncio.to_thread(self._send, topic, messages)

    async def subscribe(
        self, topic: str, group: str, *, member: str, prefetch: int, most_attempts: int
    ) -> KeyedSubscription:
        """See the port."""
        del member  # the broker gives a member its name, and what a dead one had to the others after its session
        made: list[_Feed] = []

        async def feed() -> _Feed:
            settings = {
                **self._settings,
                "group.id": f"{topic}.{group}",
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "session.timeout.ms": _SESSION_MS,
                "heartbeat.interval.ms": _SESSION_MS // 6,
            }
            made.append(_Feed(self._address, settings, topic))
            return made[0]

        member_ = await follow(self, topic, group, prefetch=prefetch, most_attempts=most_attempts, feed=feed)
        made[0].attach(member_)
        return member_

    async def close(self) -> None:
        """See the port."""
        producer, self._producer, self._admin = self._producer, None, None
        if producer is not None:
            await asyncio.to_thread(producer.flush, 1.0)

    def _make_topic(self, topic: str) -> None:
        from confluent_kafka import KafkaError, KafkaException
        from confluent_kafka.admin import AdminClient
        from confluent_kafka.cimpl import NewTopic

        if topic in self._known:
            return
        with self._troubles.told():
            if self._admin is None:
                self._admin = AdminClient(self._troubles.heard_by(self._settings))
            if topic not in self._admin.list_topics(timeout=_PATIENCE_S).topics:
                partitions = self._address.whole_option("partitions", _PARTITIONS, least=1)
                wish = NewTopic(topic, num_partitions=partitions, replication_factor=-1)
                try:
                    self._admin.create_topics([wish], request_timeout=_PATIENCE_S)[topic].result(_PATIENCE_S)
                except KafkaException as error:
                    if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                        raise
            self._known.add(topic)

    def _send(self, topic: str, messages: Sequence[Message]) -> None:
        from confluent_kafka import KafkaException

        failed: list[Any] = []
        confirmed: list[object] = []

        def told(error: Any, message: object) -> None:  # noqa: ANN401  (the library's own)
            (failed if error else confirmed).append(error or message)

        with self._troubles.told():
            producer = self._open()
            for each in messages:
                _produce(producer, topic, each, told)
            producer.flush(_PATIENCE_S + 1)
            if failed or len(confirmed) < len(messages):
                with self._opening:  # whoever asked sends all of it again, by a new producer: this one may be fenced
                    self._producer = None if self._producer is producer else self._producer
                producer.purge()
                raise KafkaException(failed[0]) if failed else TimeoutError

    def _open(self) -> Any:  # noqa: ANN401
        from confluent_kafka import Producer

        with self._opening:
            if self._producer is None:
                settings = {**self._settings, "enable.idempotence": True, "acks": "all", "linger.ms": 2}
                settings |= {"message.timeout.ms": int(_PATIENCE_S * 1000), "partitioner": "murmur2_random"}
                self._producer = Producer(self._troubles.heard_by(settings))
            return self._producer


def _produce(producer: Any, topic: str, message: Message, told: Callable[[Any, object], None]) -> None:  # noqa: ANN401
    headers = [*message.headers.items(), (_ID, message.id)]
    while True:
        try:
            producer.produce(topic, message.body, key=message.key or None, headers=headers, on_delivery=told)
        except BufferError:  # its own line is full: let some of it leave first
            producer.poll(_SLICE_S)
        else:
            return


@dataclass(slots=True)
class _Part:
    """A partition that is this member's. `open` was fetched and is not acknowledged, `done` lies behind the commit."""

    next: int
    done: set[int] = field(default_factory=set)
    open: dict[int, int] = field(default_factory=dict)
    before: Mapping[int, int] = field(default_factory=dict)
    changed: bool = False

    def take(self, offset: int) -> int | None:
        """A message was fetched: how often it was delivered with this time; None when it was done before."""
        self.next = max(self.next, offset + 1)
        self.changed = True
        if offset in self.done:
            return None
        self.open[offset] = self.before.get(offset, 0) + 1
        return self.open[offset]

    def commit(self) -> Notes:
        """What can be said of it: the offset before which all is done, and what is known from there on."""
        self.changed = False
        at = min(self.open, default=self.next)
        self.done = {offset for offset in self.done if offset > at}
        return Notes(at, frozenset(self.done), dict(self.open))


class _Feed:
    alive_s: Final = 1.0

    def __init__(self, address: QueueAddress, settings: Mapping[str, Any], topic: str) -> None:
        self._troubles = _Troubles(address)
        self._settings = self._troubles.heard_by(settings)
        self._topic = topic
        self._loop = asyncio.get_running_loop()
        self._release: Callable[[Callable[[Fetched], bool], float], Coroutine[Any, Any, None]] | None = None
        self._consumer: Any = None
        self._asking = threading.Lock()  # one thread asks the consumer; what moves partitions runs in it
        self._commits: deque[tuple[Mapping[int, Notes], Future[None]]] = deque()
        self._leaving = False
        self._parts: dict[int, _Part] = {}
        self._early: deque[Any] = deque()
        self._writing = asyncio.Lock()
        self._wanted = self._written = 0

    def attach(self, member: KeyedSubscription) -> None:
        """Who is told when a partition goes to another member."""
        self._release = member.release

    async def fetch(self, most: int, *, wait_s: float) -> Sequence[Fetched]:
        """What the partitions of this member have; it is noted as delivered before it is handed on."""
        found: list[Fetched] = []
        for each in await asyncio.to_thread(self._poll, most, wait_s):
            part = self._parts.get(each.partition())
            deliveries = part.take(each.offset()) if part is not None else None
            if deliveries is not None:
                found.append(_read(each, deliveries))
        if found:
            await self._note()
        return [each for each in found if _place(each)[0] in self._parts]

    async def acknowledge(self, fetched: Fetched) -> None:
        """Committed; what is another member's by now is not ours to commit."""
        partition, offset = _place(fetched)
        part = self._parts.get(partition)
        if part is None or part.open.pop(offset, None) is None:
            return
        part.done.add(offset)
        part.changed = True
        await self._note()

    async def keep_alive(self, held: Sequence[Fetched]) -> None:
        """Heartbeats go by themselves; a member that fetches nothing still has to hear that partitions move."""
        del held
        await asyncio.to_thread(self._listen)

    async def waiting(self) -> int:
        """Messages of all partitions that nobody of the group has fetched or acknowledged, as far as is known."""
        return await asyncio.to_thread(self._count)

    async def close(self) -> None:
        """Leave: what is open is the next one's."""
        self._leaving = True
        with suppress(TimeoutError):
            async with asyncio.timeout(_LEAVE_WITHIN_S):
                await asyncio.to_thread(self._leave)

    def _poll(self, most: int, wait_s: float) -> list[Any]:
        try:
            with self._asking, self._troubles.told():
                return self._poll_alone(most, wait_s)
        finally:
            self._write_if_free()

    def _poll_alone(self, most: int, wait_s: float) -> list[Any]:
        consumer = self._open()
        found = [self._early.popleft() for _ in range(min(most, len(self._early)))]
        waited = 0.0
        while len(found) < most and not self._leaving:
            self._write()
            given = consumer.poll(0 if found else _SLICE_S)
            self._troubles.look(consumer)
            if given is not None:
                found.append(_sound(given))
            elif found or (waited := waited + _SLICE_S) >= wait_s:
                break
        return found

    def _listen(self) -> None:
        if self._consumer is None or not self._asking.acquire(blocking=False):
            return
        try:
            with self._troubles.told():
                mine = self._consumer.assignment()
                self._consumer.pause(mine)
                given = self._consumer.poll(0)
                self._troubles.look(self._consumer)
                if given is not None:
                    self._early.append(_sound(given))
                self._consumer.resume([each for each in self._consumer.assignment() if each in mine])
        finally:
            self._asking.release()
            self._write_if_free()

    def _open(self) -> Any:  # noqa: ANN401  (the library's own)
        from confluent_kafka import Consumer

        if self._consumer is None:
            self._consumer = Consumer(self._settings)
            self._consumer.subscribe([self._topic], on_assign=self._came, on_revoke=self._goes, on_lost=self._lost)
        return self._consumer

    def _leave(self) -> None:
        with self._asking:
            if self._consumer is not None:
                self._consumer.close()

    def _came(self, consumer: Any, partitions: Sequence[Any]) -> None:  # noqa: ANN401
        self._troubles.keep(lambda: self._learn(consumer, partitions))

    def _learn(self, consumer: Any, partitions: Sequence[Any]) -> None:  # noqa: ANN401
        for each in consumer.committed(list(partitions), timeout=_PATIENCE_S):
            if each.error is not None:
                raise Unavailable(f"what was committed of {self._topic} cannot be read: {each.error}")
            notes = read_notes(max(each.offset, 0), each.metadata)
            self._parts[each.partition] = _Part(next=notes.at, done=set(notes.done), before=notes.open)

    def _goes(self, consumer: Any, partitions: Sequence[Any]) -> None:  # noqa: ANN401
        """Hand over: end what is in hand, then let go. Runs in the thread that polls, with the loop free."""
        del consumer
        self._lose(partitions, wait_s=0.0 if self._leaving else _HANDOVER_S)

    def _lost(self, consumer: Any, partitions: Sequence[Any]) -> None:  # noqa: ANN401
        del consumer
        self._lose(partitions, wait_s=0.0)

    def _lose(self, partitions: Sequence[Any], *, wait_s: float) -> None:
        gone = {each.partition for each in partitions}
        self._early = deque(each for each in self._early if each.partition() not in gone)
        if self._release is not None:
            going = self._release(lambda fetched: _place(fetched)[0] in gone, wait_s)
            ended = asyncio.run_coroutine_threadsafe(going, self._loop)
            end = time.monotonic() + wait_s + 1
            while not ended.done() and time.monotonic() < end:
                time.sleep(_SLICE_S)
                self._write()  # what is acknowledged in this time counts
        for partition in gone:
            self._parts.pop(partition, None)

    async def _note(self) -> None:
        """Commit where things stand; those who want it at the same time are served by one commit."""
        self._wanted += 1
        mine = self._wanted
        async with self._writing:
            if self._written >= mine:
                return
            upto = self._wanted
            notes = {partition: part.commit() for partition, part in list(self._parts.items()) if part.changed}
            written: Future[None] = Future()
            self._commits.append((notes, written))
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    await asyncio.to_thread(self._write_if_free)
                    await asyncio.wrap_future(written)
            except TimeoutError as error:
                raise no_answer(self._troubles.address, error) from error
            self._written = upto

    def _write_if_free(self) -> None:
        """Commit what waits, unless a thread asks the consumer: that one does it then, before it asks again."""
        while self._commits and self._asking.acquire(blocking=False):
            try:
                self._write()
            finally:
                self._asking.release()

    def _write(self) -> None:
        while self._commits:
            notes, written = self._commits.popleft()
            if not written.set_running_or_notify_cancel():
                continue
            try:
                with self._troubles.told():
                    self._commit(notes)
            except Unavailable as error:
                written.set_exception(error)
            else:
                written.set_result(None)

    def _commit(self, notes: Mapping[int, Notes]) -> None:
        from confluent_kafka import KafkaError, KafkaException, TopicPartition

        offsets = [
            TopicPartition(self._topic, partition, each.at, metadata=write_notes(each))
            for partition, each in notes.items()
        ]
        if not offsets:
            return
        try:
            done = self._consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            if error.args[0].code() in {KafkaError.ILLEGAL_GENERATION, KafkaError.REBALANCE_IN_PROGRESS}:
                return  # the partitions are moving: their next member begins where the last commit was
            raise
        for each in done:
            if each.error is not None:
                raise KafkaException(each.error)

    def _count(self) -> int:
        from confluent_kafka import TopicPartition

        with self._asking, self._troubles.told():
            consumer = self._open()
            found = consumer.list_topics(self._topic, timeout=_PATIENCE_S).topics[self._topic]
            places = [TopicPartition(self._topic, number) for number in found.partitions]
            return sum(self._behind(consumer, each) for each in consumer.committed(places, timeout=_PATIENCE_S))

    def _behind(self, consumer: Any, place: Any) -> int:  # noqa: ANN401
        from confluent_kafka import TopicPartition

        bare = TopicPartition(self._topic, place.partition)
        part = self._parts.get(place.partition)
        told = consumer.get_watermark_offsets(bare, cached=True) if part is not None else None
        if told is None or told[1] < 0:  # no fetch has said it yet
            told = consumer.get_watermark_offsets(bare, timeout=_PATIENCE_S)
        lowest, highest = int(told[0]), int(told[1])
        at = part.next if part is not None else max(place.offset, 0)
        done = sum(offset >= at for offset in part.done) if part is not None else 0
        return max(highest - max(at, lowest) - done, 0)


class _Troubles:
    """What goes wrong with one client of the library, in our words; it says most of it from threads of its own."""

    def __init__(self, address: QueueAddress) -> None:
        self.address = address
        self._heard: Any = None
        self._kept: Unavailable | None = None

    def heard_by(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Settings of a client whose troubles come here, and not to standard error."""
        return {**settings, "error_cb": self._hear, "log_level": 0}

    def keep(self, work: Callable[[], None]) -> None:
        """Do it where nothing may be raised; `look` raises it."""
        try:
            with self.told():
                work()
        except Unavailable as error:
            self._kept = error

    def look(self, client: Any) -> None:  # noqa: ANN401
        """Raise what was heard, if it is still so: a connection that was only idle is there again when it is used."""
        from confluent_kafka import KafkaError, KafkaException

        if self._kept is not None:
            kept, self._kept = self._kept, None
            raise kept
        heard, self._heard = self._heard, None
        if heard is not None:
            if heard.code() == KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001  (so it is named)
                client.list_topics(timeout=_PATIENCE_S / 3)
            else:
                raise KafkaException(heard)

    @contextmanager
    def told(self) -> Iterator[None]:
        """The library's errors as `Unavailable`."""
        from confluent_kafka import KafkaError, KafkaException

        own = KafkaError
        try:
            yield
        except KafkaException as error:
            code = error.args[0].code()
            if code in {own._AUTHENTICATION, own.SASL_AUTHENTICATION_FAILED} or self._shut_out():  # noqa: SLF001
                raise not_let_in(self.address) from error
            if code in {own._TRANSPORT, own._TIMED_OUT, own._MSG_TIMED_OUT, own._ALL_BROKERS_DOWN}:  # noqa: SLF001
                raise no_answer(self.address, error) from error
            raise Unavailable(f"{self.address} refuses: {error.args[0].name()}", hint="look at the broker") from error
        except (TimeoutError, RuntimeError) as error:
            raise no_answer(self.address, error) from error

    def _shut_out(self) -> bool:
        from confluent_kafka import KafkaError

        return self._heard is not None and self._heard.code() == KafkaError._AUTHENTICATION  # noqa: SLF001

    def _hear(self, error: Any) -> None:  # noqa: ANN401
        from confluent_kafka import KafkaError

        worth = {KafkaError._ALL_BROKERS_DOWN, KafkaError._AUTHENTICATION, KafkaError._SSL}  # noqa: SLF001
        if error.fatal() or error.code() in worth:
            self._heard = error


def _settings(address: QueueAddress) -> dict[str, Any]:
    """What every client is told: where the brokers are, who we are."""
    settings: dict[str, Any] = {
        "bootstrap.servers": ",".join(address.places(_PORT)),
        "client.id": "modelyard",
        "socket.timeout.ms": int(_PATIENCE_S * 1000),
        "reconnect.backoff.max.ms": 1000,
    }
    if address.user:
        settings |= {"sasl.username": address.user, "sasl.password": address.password}
        settings["sasl.mechanism"] = address.option("mechanism", "PLAIN")
    wire = "SSL" if address.tls else "PLAINTEXT"
    settings["security.protocol"] = f"SASL_{wire}" if address.user else wire
    if address.ca:
        settings["ssl.ca.location"] = address.ca
    return settings


def _sound(given: Any) -> Any:  # noqa: ANN401
    from confluent_kafka import KafkaException

    if given.error() is not None:
        raise KafkaException(given.error())
    return given


def _read(given: Any, deliveries: int) -> Fetched:  # noqa: ANN401
    headers = {str(name): (value or b"").decode(errors="replace") for name, value in given.headers() or ()}
    place = (int(given.partition()), int(given.offset()))
    own = headers.pop(_ID, "") or headers.get(_EVENT_ID, "") or f"{given.topic()}/{place[0]}/{place[1]}"
    key = (given.key() or b"").decode(errors="replace")
    message = Message(id=own, key=key, headers=headers, body=given.value() or b"")
    return Fetched(message=message, deliveries=deliveries, handle=place)


def _place(fetched: Fetched) -> tuple[int, int]:
    place: Any = fetched.handle
    return int(place[0]), int(place[1])
