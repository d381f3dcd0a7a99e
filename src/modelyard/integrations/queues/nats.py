"""NATS JetStream: a stream a topic, a durable pull consumer a group, one member at a time under a lease in a bucket.

JetStream spreads a consumer's messages over whoever asks, which keeps no order; so one member asks, the others stand
by. A member that takes over waits until what its forerunner held is due again (`_ACK_WAIT_S`): the server then gives
that first. `Nats-Msg-Id` carries the message's id, so a second one within two minutes is dropped by the server. A
topic that lies in a stream already is used as it is; otherwise a stream is made that keeps messages on the disk for a
week.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
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
from modelyard.ports.queue import Message

_ACK_WAIT_S: Final = 6.0
_LEASE_S: Final = 10.0
_KEEP_S: Final = 7 * 86_400.0
_DEDUP_S: Final = 120.0
_PATIENCE_S: Final = 10.0
_CONNECT_S: Final = 3.0
_STAND_BY_S: Final = 0.25
_BUCKET: Final = "modelyard-members"
_ID: Final = "Nats-Msg-Id"
_KEY: Final = "Modelyard-Key"


class NatsQueue:
    """Queues of one NATS server or cluster with JetStream."""

    def __init__(self, address: QueueAddress) -> None:
        require_library("nats", "NATS needs a library", extra="nats")
        self._address = address
        self._client: Any = None
        self._js: Any = None
        self._opening = asyncio.Lock()

    async def ensure(self, topic: str, group: str) -> None:
        """See the port."""
        from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

        check_topic(topic)
        async with _answering(self._address):
            js = await self._open()
            stream = await self._stream(js, topic)
            config = ConsumerConfig(
                durable_name=_name(check_topic(group)),
                filter_subject=topic,
                ack_policy=AckPolicy.EXPLICIT,
                deliver_policy=DeliverPolicy.ALL,
                ack_wait=_ACK_WAIT_S,
                max_deliver=-1,
                max_ack_pending=10_000,
            )
            await js.add_consumer(stream, config)

    async def publish(self, topic: str, messages: Sequence[Message]) -> None:
        """See the port."""
        check_topic(topic)
        async with _answering(self._address):
            js = await self._open()
            await self._stream(js, topic)
            sent = []
            for each in messages:
                headers = {**each.headers, _ID: each.id, **({_KEY: each.key} if each.key else {})}
                sent.append(await js.publish_async(topic, each.body, headers=headers))
            async with asyncio.timeout(_PATIENCE_S):
                await asyncio.gather(*sent)

    async def subscribe(
        self, topic: str, group: str, *, member: str, prefetch: int, most_attempts: int
    ) -> KeyedSubscription:
        """See the port."""

        async def feed() -> _Feed:
            async with _answering(self._address):
                js = await self._open()
                stream = await self._stream(js, topic)
                bucket = await _bucket(js)
                pulling = await js.pull_subscribe_bind(durable=_name(group), stream=stream)
            return _Feed(js, self._address, pulling, bucket, at=(stream, _name(group)), member=member)

        return await follow(self, topic, group, prefetch=prefetch, most_attempts=most_attempts, feed=feed)

    async def close(self) -> None:
        """See the port."""
        if self._client is not None:
            async with _answering(self._address):
                await self._client.close()
            self._client = None

    async def _open(self) -> Any:  # noqa: ANN401  (the library's own)
        import nats

        async with self._opening:
            if self._client is not None and self._client.is_closed:
                self._client = None
            if self._client is None:
                self._js = None
                async with asyncio.timeout(_CONNECT_S):  # the library itself would try for ever
                    self._client = await nats.connect(
                        self._address.url("tls" if self._address.tls else "nats"),
                        tls=self._address.context(),
                        max_reconnect_attempts=-1,
                        reconnect_time_wait=0.25,
                        error_cb=_silent,
                    )
            if not self._client.is_connected:
                raise Unavailable(f"{self._address} does not answer", hint="is the broker running?")
        if self._js is None:
            self._js = self._client.jetstream(timeout=_PATIENCE_S)
        return self._js

    async def _stream(self, js: Any, topic: str) -> str:  # noqa: ANN401
        from nats.js.api import StorageType, StreamConfig
        from nats.js.errors import NotFoundError

        try:
            return str(await js.find_stream_name_by_subject(topic))
        except NotFoundError:
            name = _name(topic)
            config = StreamConfig(
                name=name,
                subjects=[topic],
                storage=StorageType.FILE,
                max_age=_KEEP_S,
                duplicate_window=_DEDUP_S,
            )
            await js.add_stream(config)
            return name


class _Feed:
    alive_s: Final = _ACK_WAIT_S / 3

    def __init__(
        self,
        js: Any,  # noqa: ANN401
        address: QueueAddress,
        pulling: Any,  # noqa: ANN401
        bucket: Any,  # noqa: ANN401
        *,
        at: tuple[str, str],
        member: str,
    ) -> None:
        self._js, self._address, self._pulling, self._bucket, self._at = js, address, pulling, bucket, at
        self._lease = f"{at[0]}.{at[1]}"
        self._member = member
        self._holder = f"{member}\n{secrets.token_hex(8)}".encode()
        self._revision = 0

    async def fetch(self, most: int, *, wait_s: float) -> Sequence[Fetched]:
        """What the server gives; nothing while another member has the lease."""
        from nats.errors import TimeoutError as NoMessages

        async with _answering(self._address):
            if not self._revision and not await self._take_turn():
                await asyncio.sleep(min(_STAND_BY_S, wait_s))
                return ()
            try:
                found = await self._pulling.fetch(most, timeout=wait_s)
            except NoMessages:
                return ()
            return [_read(each) for each in found]

    async def acknowledge(self, fetched: Fetched) -> None:
        """Wait until the server has noted it."""
        async with _answering(self._address):
            await fetched.handle.ack_sync(timeout=_PATIENCE_S)  # type: ignore[attr-defined]

    async def keep_alive(self, held: Sequence[Fetched]) -> None:
        """Renew the lease, and the time of all that is held."""
        if not self._revision:
            return
        async with _answering(self._address):
            self._revision = await self._bucket.update(self._lease, self._holder, last=self._revision)
            for each in held:
                await each.handle.in_progress()  # type: ignore[attr-defined]

    async def waiting(self) -> int:
        """Messages that the consumer was not given yet."""
        async with _answering(self._address):
            info = await self._js.consumer_info(*self._at)
            held_by_others = 0 if self._revision else info.num_ack_pending or 0
            return int(info.num_pending or 0) + int(held_by_others)

    async def close(self) -> None:
        """Let the lease go."""
        from nats.js.errors import KeyWrongLastSequenceError

        async with _answering(self._address):
            with suppress(KeyWrongLastSequenceError):
                if self._revision:
                    await self._bucket.delete(self._lease, last=self._revision)
            await self._pulling.unsubscribe()

    async def _take_turn(self) -> bool:
        """Take the lease where it is free or of a forerunner of the same name; wait until what that held is due."""
        from nats.js.errors import KeyNotFoundError, KeyWrongLastSequenceError

        try:
            held = await self._bucket.get(self._lease)
        except KeyNotFoundError:
            held = None
        try:
            if held is None:
                revision = await self._bucket.create(self._lease, self._holder)
            elif held.value.startswith(f"{self._member}\n".encode()):
                revision = await self._bucket.update(self._lease, self._holder, last=held.revision)
            else:
                return False
        except KeyWrongLastSequenceError:
            return False
        info = await self._js.consumer_info(*self._at)
        if info.num_ack_pending:
            await asyncio.sleep(_ACK_WAIT_S + 0.5)
            revision = await self._bucket.update(self._lease, self._holder, last=revision)
        self._revision = revision
        return True


def _read(given: Any) -> Fetched:  # noqa: ANN401  (the library's message)
    headers = {str(name): str(value) for name, value in (given.headers or {}).items()}
    about = given.metadata
    number, key = headers.pop(_ID, ""), headers.pop(_KEY, "")
    message = Message(id=number or f"{about.stream}/{about.sequence.stream}", key=key, headers=headers, body=given.data)
    return Fetched(message=message, deliveries=int(about.num_delivered or 1), handle=given)


async def _bucket(js: Any) -> Any:  # noqa: ANN401
    from nats.js.api import KeyValueConfig
    from nats.js.errors import BucketNotFoundError, NotFoundError

    try:
        return await js.key_value(_BUCKET)
    except (BucketNotFoundError, NotFoundError):
        return await js.create_key_value(KeyValueConfig(bucket=_BUCKET, ttl=_LEASE_S, history=1))


def _name(text: str) -> str:
    """A name of a stream or consumer for a topic: the dot is not allowed in one."""
    return text.replace(".", "=")


async def _silent(error: Exception) -> None:
    """Lost connections are met where they are used."""
    del error


@asynccontextmanager
async def _answering(address: QueueAddress) -> AsyncIterator[None]:
    from nats.errors import AuthorizationError, Error
    from nats.js.errors import Error as StreamError

    try:
        yield
    except AuthorizationError as error:
        raise not_let_in(address) from error
    except (Error, StreamError, OSError, TimeoutError) as error:
        raise no_answer(address, error, hint="is the broker running, with JetStream?") from error
