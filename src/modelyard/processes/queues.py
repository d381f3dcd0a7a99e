"""The queues there are, by the scheme of their address."""

from pathlib import Path
from typing import Any, Final

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.platform import NotSupported
from modelyard.foundation.queueing import SECURE, read_address
from modelyard.foundation.registry import Registry
from modelyard.ports.queue import MessageQueue

EMBEDDED: Final = "embedded"
QUEUES: Final = Registry[MessageQueue](
    group="modelyard.queues",
    builtin={
        EMBEDDED: "modelyard.integrations.queues.embedded:EmbeddedQueue",
        "redis": "modelyard.integrations.queues.redis:RedisQueue",
        "nats": "modelyard.integrations.queues.nats:NatsQueue",
        "kafka": "modelyard.integrations.queues.kafka:KafkaQueue",
        "amqp": "modelyard.integrations.queues.rabbitmq:RabbitQueue",
    },
)


def open_queue(url: str, *, password: str = "", ca: str = "", directory: Path) -> MessageQueue:
    """A connection to the broker at `url`; the embedded queue has its files in `directory`.

    Raises:
        InvalidRequest: the URL cannot be read.
        NotSupported: there is no queue of this scheme.
        MissingExtra: its library is not installed.
    """
    address = read_address(url, password=password, ca=ca)
    address.context()  # certificates that cannot be read are told here
    if address.kind not in QUEUES.names():
        known = ", ".join([*QUEUES.names(), *SECURE])
        raise NotSupported(f"there is no queue {quote(address.scheme)}", hint=f"known: {known}")
    kind: Any = QUEUES.get(address.kind)
    made: MessageQueue = kind(address, directory=directory) if address.kind == EMBEDDED else kind(address)
    return made
