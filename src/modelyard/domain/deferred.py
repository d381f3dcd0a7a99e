"""Requests that are answered later: what one can be, and what holds for all of them."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

MOST_TRIES: Final = 3
"""Runs of one request that may end without an answer: it may be what ends its process."""


class DeferredState(StrEnum):
    """What an accepted request is. The last three are for good."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeferredRules:
    """Bounds of one model server, and whom it may tell answers to.

    `at_once` requests of one service are run side by side. Beyond `most_waiting` requests, or `most_bytes` of them, no
    more are accepted. One that has no answer `patience_s` after it was accepted has failed; answers are kept `kept_s`.
    `webhook_ports` are those that a webhook's address may have; None takes no webhooks.
    """

    at_once: int = 8
    most_waiting: int = 10_000
    most_bytes: int = 1 << 30
    patience_s: float = 3600.0
    kept_s: float = 86_400.0
    webhook_ports: tuple[int, ...] | None = None
    webhook_private: bool = False
