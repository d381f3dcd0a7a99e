"""Nodes: places where isolated workers run, what they say of themselves, and what people want of them."""

from dataclasses import dataclass
from enum import StrEnum


class NodeWish(StrEnum):
    """What a person wants of a node.

    A cordoned node takes no new workers and keeps those it has; a draining one gives them up as soon as each is ready
    elsewhere.
    """

    OPEN = "open"
    CORDONED = "cordoned"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeReport:
    """A node's heartbeat. `cpus` and `memory_bytes` are what it gives to workers; `load` is of the last minute."""

    node: str
    pid: int
    started_at: float
    cpus: float
    memory_bytes: int
    memory_available_bytes: int
    load: float
    workers: int
