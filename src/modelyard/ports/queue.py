"""Message queues: topics whose messages are kept by a broker until every group that asked for them has dealt with them.

What holds for every queue, whatever stands behind it:

- **At least once.** A message that `publish` confirmed is delivered to every group that was there before, again and
  again until it is acknowledged. It may come twice, also to the same member: effects are keyed by `Message.id`.
- **In order for each key.** Messages of one key are delivered in the order in which they were confirmed, and one at a
  time: the next is handed out when the one before was acknowledged or rejected, also when it is retried. Messages of
  different keys go side by side. A message without a key is bound to no order.
- **One member at a time.** A group may have several members; one works, the others stand by. When it dies, what it had
  not acknowledged goes to the next. One that stalls longer than its lease may be taken for dead; what it then does is a
  second effect of the same id.
- **Acknowledge after the effect.** A member that dies before `ack` returned may get the message again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

DEAD_GROUP: Final = "dead-letters"
"""The group that every topic of dead letters has from the start, so that none is lost before somebody looks."""
REASON_HEADER: Final = "dead-letter-reason"
ORIGIN_HEADER: Final = "dead-letter-from"
ATTEMPTS_HEADER: Final = "dead-letter-attempts"


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What is sent. `id` names the message for ever; a broker may drop a second one of the same id."""

    id: str
    body: bytes
    key: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Delivery:
    """A message in somebody's hands.

    `attempt` counts from 1 how often it was delivered to the group: by the broker, also to members that died with it,
    and by `retry`.
    """

    message: Message
    attempt: int
    handle: object = field(repr=False)


class Subscription(Protocol):
    """A member of a group. Any number of tasks may use it at the same time.

    When the broker is lost, every method raises `Unavailable` from then on; subscribe again. What was in hand is then
    delivered anew.
    """

    async def receive(self, *, wait_s: float) -> Delivery | None:
        """The next delivery whose key is free; None when there was none for `wait_s`."""

    async def ack(self, delivery: Delivery) -> None:
        """The message was dealt with. Twice is the same as once. AMQP has no answer to it: there it was only sent."""

    async def retry(self, delivery: Delivery, *, after_s: float, reason: str) -> bool:
        """Deliver it again, not before `after_s`; its key waits. False: it was the last attempt; a dead letter now."""

    async def reject(self, delivery: Delivery, *, reason: str) -> None:
        """Make it a dead letter: it stands, confirmed, in the topic of dead letters before it is acknowledged here."""

    async def lag(self) -> int:
        """How many messages of the topic the group has not acknowledged yet, nearly."""

    async def close(self) -> None:
        """Leave the group; what is in hand goes to the next member. Idempotent, never raises."""


class MessageQueue(Protocol):
    """A connection to one broker, made when it is first used. Every method raises `Unavailable` when it is away."""

    async def ensure(self, topic: str, group: str) -> None:
        """Make the topic and the group where they are missing: the group sees all that is published from then on."""

    async def publish(self, topic: str, messages: Sequence[Message]) -> None:
        """Send in this order; returns when the broker has all of them, written as durably as it is set up to write.

        When it raises, some may be there and some not: send all of them again, with the same ids.

        Raises:
            Unavailable: the broker does not confirm in time.
            NotFound: nobody would keep them: the topic has no group, with a broker that keeps messages for groups only.
        """

    async def subscribe(
        self, topic: str, group: str, *, member: str, prefetch: int, most_attempts: int
    ) -> Subscription:
        """Become a member, which holds at most `prefetch` messages that are not acknowledged.

        `member` names it: a process that comes after a dead one of the same name goes on at once, without waiting for
        the end of its lease. The caller sees to it that no two live ones have the same name.
        """

    async def close(self) -> None:
        """End the connection. Idempotent, never raises."""


def dead_topic(topic: str, group: str) -> str:
    """Where the dead letters of a group lie."""
    return f"{topic}.{group}.dead"
