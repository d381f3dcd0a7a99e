"""The chain: what a seal covers. Pure.

`seal(n) = HMAC-SHA-256(key, JSON of [n, seal(n-1), id, microseconds, actor kind, id, name, action, project, subject,
payload digest])`. It covers the digest of the payload, so a payload can be erased (for privacy) and the chain still
holds; and it is keyed, so whoever can write the database alone cannot forge it.
"""

import hashlib
import hmac
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from modelyard.control.records import to_microseconds

GENESIS: Final = "0" * 64
_PURPOSE: Final = b"modelyard history chain"


def chain_key(pepper: bytes) -> bytes:
    """The key of the chain, made from the platform's secret."""
    return hmac.new(pepper, _PURPOSE, hashlib.sha256).digest()


def seal_of(row: Mapping[str, Any], *, sequence: int, previous: str, key: bytes) -> str:
    """The hex seal of an entry at this place of the chain."""
    at: datetime = row["at"]
    covered = [
        sequence,
        previous,
        row["id"],
        to_microseconds(at),
        row["actor_kind"],
        row["actor_id"],
        row["actor_name"],
        row["action"],
        row["project"],
        row["subject"],
        row["payload_digest"],
    ]
    return hmac.new(key, json.dumps(covered, separators=(",", ":")).encode(), hashlib.sha256).hexdigest()


def anchor_mac(sequence: int, seal: str, at: str, *, key: bytes) -> str:
    """What proves that an anchor was written by this platform."""
    return hmac.new(key, f"anchor:{sequence}:{seal}:{at}".encode(), hashlib.sha256).hexdigest()
