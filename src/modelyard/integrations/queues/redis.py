"""Redis streams: a stream a topic, a consumer group a group, one member at a time under a lease.

Redis hands the entries of a group to whichever member asks, which keeps no order; so one member reads and the others
stand by, until its lease ends. The next one claims what was pending (`XAUTOCLAIM`) before it reads anything new.
`XADD` returns when the server has the entry; whether it is on the disk by then is the server's `appendfsync`
(`always`: yes). Entries that all groups are done with are trimmed.
"""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from modelyard.domain.errors.platform import NotSupported, Unavailable
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

if TYPE_CHECKING:
    from redis.asyncio import Redis

_LEASE_MS: Final = 10_000
_TRIM_EVERY: Final = 1000
_PATIENCE_S: Final = 10.0
_MOST_COUNTED: Final = 100_000
_STAND_BY_S: Final = 0.25
_TAKE: Final = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
  if string.sub(holder, 1, #ARGV[3]) ~= ARGV[3] or ARGV[4] == '0' then return 0 end
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
_GIVE: Final = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"


class RedisQueue:
    """Queues of one Redis server, 6.2 or newer."""

    def __init__(self, address: QueueAddress) -> None:
        require_library("redis.asyncio", "Redis streams need a library", extra="redis")
        from redis.asyncio import Redis

        self._address = address
        proof: dict[str, Any] = {}
        if address.tls:
            proof = {"ssl_check_hostname": True, "ssl_cert_reqs": "required", "ssl_ca_certs": address.ca or None}
        self._redis: Redis = Redis.from_url(
            address.url(),
            **proof,
            socket_timeout=_PATIENCE_S,
            socket_connect_timeout=_PATIENCE_S,
            decode_responses=False,
        )

    async def ensure(self, topic: str, group: str) -> None:
        """See the port."""
        from redis.exceptions import ResponseError

        async with _answering(self._address):
            try:
                await self._redis.xgroup_create(check_topic(topic), check_topic(group), id="0", mkstream=True)
            except ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise

    async def publish(self, topic: str, messages: Sequence[Message]) -> None:
        """See the port."""
        check_topic(topic)
        async with _answering(self._address):
            line = self._redis.pipeline(transaction=False)
            for each in messages:
                fields: dict[Any, Any] = {
                    "id": each.id,
                    "key": each.key,
                    "headers": json.dumps(dict(each.headers)),
                    "body": each.body,
                }
                line.xadd(topic, fields)
            await line.execute()

    async def subscribe(
        self, topic: str, group: str, *, member: str, prefetch: int, most_attempts: int
    ) -> KeyedSubscription:
        """See the port."""

        async def feed() -> _Feed:
            return _Feed(self._redis, self._address, topic, group, member=member)

        return await follow(self, topic, group, prefetch=prefetch, most_attempts=most_attempts, feed=feed)

    async def close(self) -> None:
        """See the port."""
        async with _answering(self._address):
            await self._redis.aclose()


class _Feed:
    alive_s: Final = _LEASE_MS / 4000

    def __init__(self, redis: "Redis", address: QueueAddress, topic: str, group: str, *, member: str) -> None:
        self._redis = redis
        self._address = address
        self._topic, self._group, self._member = topic, group, member
        self._lease = f"{topic}:{group}:lease"
        self._holder = f"{member}\n{secrets.token_hex(8)}"
        self._has_turn = False
        self._claim_from: bytes | None = b"0-0"
        self._acknowledged = 0

    async def fetch(self, most: int, *, wait_s: float) -> Sequence[Fetched]:
        """What another member left, then what is new."""
        async with _answering(self._address):
            if not self._has_turn and not await self._take(first=True):
                await asyncio.sleep(min(_STAND_BY_S, wait_s))
                return ()
            self._has_turn = True
            while self._claim_from is not None:
                answer = await self._redis.xautoclaim(
                    self._topic, self._group, self._member, 0, self._claim_from, count=most
                )
                next_id, entries = answer[0], answer[1]
                self._claim_from = None if next_id == b"0-0" else next_id
                if entries:
                    return await self._read(entries, again=True)
            streams: dict[Any, Any] = {self._topic: ">"}
            found = await self._redis.xreadgroup(
                self._group, self._member, streams, count=most, block=max(int(wait_s * 1000), 1)
            )
            return await self._read(_entries(found), again=False)

    async def acknowledge(self, fetched: Fetched) -> None:
        """`XACK`, and now and then a trim."""
        async with _answering(self._address):
            await self._redis.xack(self._topic, self._group, fetched.handle)  # type: ignore[arg-type]
            self._acknowledged += 1
            if self._acknowledged % _TRIM_EVERY == 0:
                await self._trim()

    async def keep_alive(self, held: Sequence[Fetched]) -> None:
        """Renew the lease."""
        del held
        if self._has_turn:
            async with _answering(self._address):
                if not await self._take(first=False):
                    raise Unavailable(f"another member reads {self._topic}/{self._group}", hint="subscribe again")

    async def waiting(self) -> int:
        """Entries that were not read by the group yet."""
        async with _answering(self._address):
            for group in await self._redis.xinfo_groups(self._topic):
                if group["name"] == self._group.encode():
                    lag = group.get("lag")
                    if lag is not None:
                        return int(lag)
                    last = group["last-delivered-id"].decode()
                    after: Any = await self._redis.xrange(self._topic, min=f"({last}", count=_MOST_COUNTED)
                    return len(after)
        return 0

    async def close(self) -> None:
        """Let the lease go."""
        if self._has_turn:
            async with _answering(self._address):
                await self._redis.eval(_GIVE, 1, self._lease, self._holder)

    async def _take(self, *, first: bool) -> bool:
        own = f"{self._member}\n"
        arguments = (self._holder, str(_LEASE_MS), own, "1" if first else "0")
        return bool(await self._redis.eval(_TAKE, 1, self._lease, *arguments))

    async def _read(self, entries: Sequence[Any], *, again: bool) -> list[Fetched]:
        times: dict[bytes, int] = {}
        if again:
            low, high = entries[0][0], entries[-1][0]
            pending: Any = await self._redis.xpending_range(self._topic, self._group, low, high, len(entries) * 2)
            times = {each["message_id"]: int(each["times_delivered"]) for each in pending}
        return [self._one(number, fields, times.get(number, 1)) for number, fields in entries if fields]

    def _one(self, number: bytes, fields: Mapping[bytes, bytes], times: int) -> Fetched:
        own = fields.get(b"id", b"").decode(errors="replace") or f"{self._topic}/{number.decode()}"
        headers = _headers(fields.get(b"headers", b""))
        key = fields.get(b"key", b"").decode(errors="replace")
        message = Message(id=own, key=key, headers=headers, body=fields.get(b"body", b""))
        return Fetched(message=message, deliveries=times, handle=number)

    async def _trim(self) -> None:
        """Drop what every group is done with."""
        lowest: list[tuple[int, int]] = []
        for group in await self._redis.xinfo_groups(self._topic):
            at = group["last-delivered-id"]
            if group["pending"]:
                at = (await self._redis.xpending(self._topic, group["name"]))["min"] or at
            milliseconds, _, number = at.decode().partition("-")
            lowest.append((int(milliseconds), int(number)))
        milliseconds_, number_ = min(lowest)
        await self._redis.xtrim(self._topic, minid=f"{milliseconds_}-{number_}", approximate=True)


def _entries(found: Any) -> list[Any]:  # noqa: ANN401  (a list of pairs, or a mapping, as the protocol has it)
    if not found:
        return []
    first = next(iter(found.values())) if isinstance(found, dict) else found[0][1]
    return list(first[0] if first and isinstance(first[0], list) else first)


def _headers(text: bytes) -> dict[str, str]:
    try:
        found = json.loads(text or b"{}")
    except ValueError:
        return {}
    return {str(name): str(value) for name, value in found.items()} if isinstance(found, dict) else {}


@asynccontextmanager
async def _answering(address: QueueAddress) -> AsyncIterator[None]:
    """What the library raises, in our words; the address without its password."""
    from redis.exceptions import AuthenticationError, RedisError, ResponseError

    try:
        yield
    except AuthenticationError as error:
        raise not_let_in(address) from error
    except ResponseError as error:
        if "unknown command" in str(error):
            raise NotSupported(f"{address} is too old", hint="Redis 6.2 or newer has what is needed") from error
        raise Unavailable(f"{address} refuses: {error}", hint="look at the server") from error
    except (RedisError, OSError) as error:
        raise no_answer(address, error) from error
