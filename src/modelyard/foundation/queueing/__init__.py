"""What all queues share: order by key and the life of deliveries (`KeyedSubscription`), leases, names of things."""

from modelyard.foundation.queueing.keyed import Feed, Fetched, KeyedSubscription, follow
from modelyard.foundation.queueing.naming import (
    SECURE,
    QueueAddress,
    check_topic,
    no_answer,
    not_let_in,
    read_address,
    require_library,
)

__all__ = [
    "SECURE",
    "Feed",
    "Fetched",
    "KeyedSubscription",
    "QueueAddress",
    "check_topic",
    "follow",
    "no_answer",
    "not_let_in",
    "read_address",
    "require_library",
]
