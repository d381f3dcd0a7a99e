"""What all queues share: order by key and the life of deliveries (`KeyedSubscription`), leases, names of things."""

from modelyard.foundation.queueing.keyed import Feed, Fetched, KeyedSubscription
from modelyard.foundation.queueing.naming import QueueAddress, check_topic, read_address

__all__ = ["Feed", "Fetched", "KeyedSubscription", "QueueAddress", "check_topic", "read_address"]
