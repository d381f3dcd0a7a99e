"""A service bound to a topic in and a topic out: every message is asked, and its answer stands in the other topic.

At least once, in order for each key: a message is acknowledged when the broker has confirmed its answer. The answer's
id follows from the id of the message, so that whoever reads answers can tell a second one. What the service refuses
becomes a dead letter with the reason. While the service or the broker is away nothing is given up; both are asked on.
"""

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from modelyard.client.columns import to_inputs
from modelyard.domain.errors.base import quote
from modelyard.domain.errors.platform import InvalidRequest, Unavailable
from modelyard.foundation.strict_json import StrictJsonError, loads
from modelyard.ports.queue import Delivery, Message, MessageQueue, Subscription

READERS: Final = "readers"
"""The group that every topic of answers has from the start, so that none is lost before somebody reads."""
REPLY_HEADER: Final = "in-reply-to"
VERSION_HEADER: Final = "model-version"
_LATER: Final = frozenset({408, 425, 429, 502, 503, 504})
_FAILED_RUN: Final = 500
_REQUEST_S: Final = 120.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 10.0
_WAIT_S: Final = 1.0
_LONGEST_REASON: Final = 300
_DEPTH, _DIGITS = 32, 32


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOptions:
    """What is bound to what. `most_attempts` is for messages on which the model itself fails."""

    service: str
    source: str
    target: str
    group: str
    member: str
    at_once: int = 16
    most_attempts: int = 5


@dataclass(slots=True)
class Tally:
    """What became of the messages."""

    answered: int = 0
    dead: int = 0
    tried_again: int = 0
    lag: int | None = None
    trouble: str = ""


@dataclass(slots=True)
class Stream:
    """One running binding. `http` asks the service at `url` (its V2 address); `tell` hears the tally now and then."""

    queue: MessageQueue
    options: StreamOptions
    http: httpx.AsyncClient
    url: str
    tell: Callable[[Tally], None]
    tally: Tally = field(default_factory=Tally)
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _described: Mapping[str, Any] | None = None

    def stop(self) -> None:
        """Take nothing more; what is in hand is finished."""
        self._stopping.set()

    async def run(self) -> None:
        """Answer messages until `stop`."""
        pause = _FIRST_PAUSE_S
        while not self._stopping.is_set():
            try:
                await self.queue.ensure(self.options.target, READERS)
                await self._follow()
                pause = _FIRST_PAUSE_S
            except Unavailable as error:
                self.tally.trouble = error.detail
                self.tell(self.tally)
                await self._rest(pause)
                pause = min(pause * 2, _LONGEST_PAUSE_S)

    async def _follow(self) -> None:
        """Answer until the broker is lost (`Unavailable`) or the end is asked for."""
        options = self.options
        subscription = await self.queue.subscribe(
            options.source,
            options.group,
            member=options.member,
            prefetch=options.at_once,
            most_attempts=options.most_attempts,
        )
        self.tally.trouble = ""
        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(options.at_once):
                    tasks.create_task(self._answer_all(subscription))
                tasks.create_task(self._watch(subscription))
        except ExceptionGroup as several:
            if several.split(Unavailable)[1] is not None:
                raise
            raise Unavailable("the broker is away", hint="it is asked again") from several
        finally:
            await subscription.close()

    async def _answer_all(self, subscription: Subscription) -> None:
        while not self._stopping.is_set():
            delivery = await subscription.receive(wait_s=_WAIT_S)
            if delivery is not None:
                await self._answer(subscription, delivery)

    async def _watch(self, subscription: Subscription) -> None:
        while not self._stopping.is_set():
            self.tally.lag = await subscription.lag()
            self.tell(self.tally)
            await self._rest(_WAIT_S)

    async def _answer(self, subscription: Subscription, delivery: Delivery) -> None:
        message = delivery.message
        try:
            answer = await self._asked(message)
        except InvalidRequest as error:
            await subscription.reject(delivery, reason=error.detail[:_LONGEST_REASON])
            self.tally.dead += 1
            return
        if answer is None:  # the end was asked for while the service was away
            return
        if answer.status_code == _FAILED_RUN:
            reason = f"the model failed: {quote(answer.text, limit=_LONGEST_REASON)}"
            again = await subscription.retry(delivery, after_s=_FIRST_PAUSE_S * delivery.attempt, reason=reason)
            self.tally.tried_again += again
            self.tally.dead += not again
            return
        headers = {REPLY_HEADER: message.id, VERSION_HEADER: answer.headers.get("x-model-version", "")}
        said = Message(id=reply_id(self.options, message), body=answer.content, key=message.key, headers=headers)
        await self.queue.publish(self.options.target, [said])
        await subscription.ack(delivery)
        self.tally.answered += 1
        self.tally.trouble = ""

    async def _asked(self, message: Message) -> httpx.Response | None:
        """The answer: good, or that the model failed; None when the end was asked for before there was one.

        Raises:
            InvalidRequest: the message cannot be read, or the service refuses it.
        """
        pause = _FIRST_PAUSE_S
        while True:
            try:
                body = await self._request(message)
                answer = await self.http.post(f"{self.url}/infer", json=body, timeout=_REQUEST_S)
                status = answer.status_code
            except httpx.TransportError:
                status = httpx.codes.SERVICE_UNAVAILABLE
            if status in {httpx.codes.OK, _FAILED_RUN}:
                return answer
            if status not in _LATER:
                raise InvalidRequest(f"the service refuses it: {quote(answer.text, limit=_LONGEST_REASON)}")
            self.tally.trouble = "the service is away or busy"
            if self._stopping.is_set():
                return None
            await self._rest(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_S)

    async def _request(self, message: Message) -> dict[str, Any]:
        """The V2 request in a message: as it is, or made of rows."""
        try:
            given = loads(message.body, max_depth=_DEPTH, max_digits=_DIGITS)
        except (StrictJsonError, UnicodeDecodeError) as error:
            raise InvalidRequest(f"the message is no JSON: {error}") from error
        if isinstance(given, dict) and "inputs" in given:
            return given
        if not isinstance(given, list) or not given:
            raise InvalidRequest("the message is neither a V2 request with inputs nor a list of rows")
        rows = given if isinstance(given[0], list | dict) else [given]
        inputs = to_inputs(rows, (await self._description())["inputs"])
        return {
            "inputs": [
                {"name": name, "shape": list(array.shape), "datatype": datatype, "data": _plain(array.ravel().tolist())}
                for name, (datatype, array) in inputs.items()
            ]
        }

    async def _description(self) -> Mapping[str, Any]:
        if self._described is None:
            answer = await self.http.get(self.url, timeout=_REQUEST_S)
            if answer.status_code != httpx.codes.OK:
                raise httpx.TransportError("the service does not describe itself")
            self._described = answer.json()
        assert self._described is not None
        return self._described

    async def _rest(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)


def reply_id(options: StreamOptions, message: Message) -> str:
    """The id of the answer to a message: the same whenever it is answered again."""
    parts = json.dumps([options.service, options.target, message.id])
    return hashlib.sha256(parts.encode()).hexdigest()[:32]


async def send(queue: MessageQueue, topic: str, group: str, messages: list[Message]) -> None:
    """Put messages into a topic, for a group that is made if it is missing."""
    await queue.ensure(topic, group)
    await queue.publish(topic, messages)


async def read(
    queue: MessageQueue, topic: str, group: str, *, member: str, wait_s: float, take: Callable[[Message], None]
) -> int:
    """Take what a topic holds for a group until nothing came for `wait_s`; how many."""
    subscription = await queue.subscribe(topic, group, member=member, prefetch=64, most_attempts=5)
    count = 0
    try:
        while (delivery := await subscription.receive(wait_s=wait_s)) is not None:
            take(delivery.message)
            await subscription.ack(delivery)
            count += 1
    finally:
        await subscription.close()
    return count


async def closing(queue: MessageQueue, work: Awaitable[Any]) -> Any:  # noqa: ANN401  (what the work returns)
    """Do the work and end the connection."""
    try:
        return await work
    finally:
        await queue.close()


def _plain(values: list[Any]) -> list[Any]:
    return [value.decode() if isinstance(value, bytes) else value for value in values]


__all__ = ["READERS", "Stream", "StreamOptions", "Tally", "closing", "read", "reply_id", "send"]
