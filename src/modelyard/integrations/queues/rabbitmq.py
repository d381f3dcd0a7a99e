"""RabbitMQ: a durable fanout exchange a topic, a quorum queue a group with a single active consumer.

One queue with a single active consumer keeps the order of all its messages whoever consumes, and the broker itself
sees to the takeover; a queue for each of several partitions would need an agreement about who reads which. Publishing
waits for confirms with `mandatory`, so a message that no queue would keep is refused, not dropped. Quorum queues
confirm what a majority has on the disk, and count deliveries (`x-delivery-count`). Dead letters are published with
their reason and confirmed before the message is acknowledged: the broker's own dead-lettering gives no such promise.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final
from uuid import uuid4

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.platform import NotFound, Unavailable
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
from modelyard.ports.queue import Message

_PATIENCE_S: Final = 10.0
_HEARTBEAT_S: Final = 10
_KEY: Final = "modelyard-key"


class RabbitQueue:
    """Queues of one virtual host of RabbitMQ, 3.8 or newer."""

    def __init__(self, address: QueueAddress) -> None:
        require_library("aio_pika", "RabbitMQ needs a library", extra="rabbitmq")
        self._address = address
        self._connection: Any = None
        self._channel: Any = None
        self._exchanges: dict[str, Any] = {}
        self._opening = asyncio.Lock()

    async def ensure(self, topic: str, group: str) -> None:
        """See the port."""
        check_topic(topic)
        check_topic(group)
        async with self._answering():
            await _declare(await self._open(), topic, group)

    async def publish(self, topic: str, messages: Sequence[Message]) -> None:
        """See the port."""
        from aio_pika import DeliveryMode
        from aio_pika import Message as Sent
        from aio_pika.exceptions import DeliveryError

        check_topic(topic)
        async with self._answering():
            await self._open()
            exchange = await self._exchange(topic)
            sending = [
                exchange.publish(
                    Sent(
                        each.body,
                        message_id=each.id,
                        delivery_mode=DeliveryMode.PERSISTENT,
                        headers={**each.headers, **({_KEY: each.key} if each.key else {})},
                        content_type=each.headers.get("content-type"),
                    ),
                    routing_key="",
                    mandatory=True,
                    timeout=_PATIENCE_S,
                )
                for each in messages
            ]
            outcomes = await asyncio.gather(*sending, return_exceptions=True)
            for outcome in outcomes:
                if isinstance(outcome, DeliveryError):
                    raise NotFound(
                        f"no queue keeps what is sent to {quote(topic)}", hint=f"bind a queue to the exchange {topic}"
                    ) from outcome
                if isinstance(outcome, BaseException):
                    raise outcome

    async def subscribe(
        self, topic: str, group: str, *, member: str, prefetch: int, most_attempts: int
    ) -> KeyedSubscription:
        """See the port."""
        del member  # the broker ends what a dead connection had in hand

        async def feed() -> _Feed:
            async with self._answering():
                channel = await self._connection.channel(publisher_confirms=False)
                await channel.set_qos(prefetch_count=prefetch)
                made = _Feed(self, channel, await _declare(channel, topic, group))
                await made.start()
            return made

        return await follow(self, topic, group, prefetch=prefetch, most_attempts=most_attempts, feed=feed)

    async def close(self) -> None:
        """See the port."""
        await self._drop()

    @asynccontextmanager
    async def _answering(self) -> AsyncIterator[None]:
        from aio_pika.exceptions import AMQPError, ProbableAuthenticationError

        try:
            yield
        except ProbableAuthenticationError as error:
            raise not_let_in(self._address) from error
        except (AMQPError, OSError, TimeoutError, asyncio.InvalidStateError, RuntimeError) as error:
            await self._drop()
            raise no_answer(self._address, error) from error

    async def _open(self) -> Any:  # noqa: ANN401  (the library's own)
        import aio_pika

        async with self._opening:
            if self._connection is None or self._connection.is_closed or self._channel.is_closed:
                await self._drop()
                self._connection = await aio_pika.connect(
                    f"{self._address.url()}?heartbeat={_HEARTBEAT_S}",
                    timeout=_PATIENCE_S,
                    ssl_context=self._address.context(),
                )
                self._channel = await self._connection.channel(publisher_confirms=True, on_return_raises=True)
            return self._channel

    async def _exchange(self, topic: str) -> Any:  # noqa: ANN401
        if topic not in self._exchanges:
            self._exchanges[topic] = await self._channel.declare_exchange(topic, "fanout", durable=True)
        return self._exchanges[topic]

    async def _drop(self) -> None:
        connection, self._connection, self._channel, self._exchanges = self._connection, None, None, {}
        if connection is not None:
            with suppress(Exception):
                async with asyncio.timeout(_PATIENCE_S):
                    await connection.close()


class _Feed:
    alive_s: Final = 1.0

    def __init__(self, owner: RabbitQueue, channel: Any, queue: Any) -> None:  # noqa: ANN401
        self._owner = owner
        self._channel = channel
        self._queue = queue
        self._tag = ""
        self._arrived: deque[Any] = deque()
        self._changed = asyncio.Event()

    async def start(self) -> None:
        """Ask the broker to send; it does once this is the active consumer."""
        self._tag = await self._queue.consume(self._take, no_ack=False)

    async def _take(self, message: Any) -> None:  # noqa: ANN401
        self._arrived.append(message)
        self._changed.set()

    async def fetch(self, most: int, *, wait_s: float) -> Sequence[Fetched]:
        """What the broker sent."""
        if not self._arrived:
            self._changed.clear()
            self._require_open()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._changed.wait()
        return [_read(self._arrived.popleft()) for _ in range(min(most, len(self._arrived)))]

    async def acknowledge(self, fetched: Fetched) -> None:
        """Sent in order on a connection whose end redelivers: AMQP has no answer to an acknowledgement."""
        self._require_open()
        async with self._owner._answering():  # noqa: SLF001  (parts of one module)
            await fetched.handle.ack()  # type: ignore[attr-defined]

    async def keep_alive(self, held: Sequence[Fetched]) -> None:
        """The connection's heartbeats say it."""
        del held
        self._require_open()

    async def waiting(self) -> int:
        """Messages that the queue did not send yet."""
        async with self._owner._answering():  # noqa: SLF001
            found = await self._channel.declare_queue(self._queue.name, passive=True)
            return int(found.declaration_result.message_count or 0) + len(self._arrived)

    async def close(self) -> None:
        """Close the channel: what was in hand is the next consumer's."""
        with suppress(Exception):
            async with asyncio.timeout(_PATIENCE_S):
                await self._channel.close()

    def _require_open(self) -> None:
        if self._channel.is_closed:
            raise Unavailable(f"the connection for {self._queue.name} was lost", hint="subscribe again")


async def _declare(channel: Any, topic: str, group: str) -> Any:  # noqa: ANN401
    exchange = await channel.declare_exchange(topic, "fanout", durable=True)
    arguments = {"x-queue-type": "quorum", "x-single-active-consumer": True}
    queue = await channel.declare_queue(f"{topic}.{group}", durable=True, arguments=arguments)
    await queue.bind(exchange)
    return queue


def _read(given: Any) -> Fetched:  # noqa: ANN401  (the library's message)
    headers = {str(name): _text(value) for name, value in (given.headers or {}).items()}
    before = int(headers.pop("x-delivery-count", "0"))
    key = headers.pop(_KEY, "")
    if given.content_type:
        headers["content-type"] = given.content_type
    message = Message(id=given.message_id or f"random-{uuid4().hex}", key=key, headers=headers, body=given.body)
    return Fetched(message=message, deliveries=before + 1, handle=given)


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
