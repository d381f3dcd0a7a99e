"""Anchors: the head of the chain, written every minute to a file beside the database.

Who cuts the end off the history in the database is found out back to the last anchor. A copy of this file on another
machine also finds out who cuts both.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from modelyard.control.history.chain import anchor_mac


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """The chain had this seal at this place; `at` is ISO 8601. `is_ours` tells whether its proof holds."""

    sequence: int
    seal: str
    at: str
    is_ours: bool = True


def write_anchor(file: Path, anchor: Anchor, *, key: bytes) -> None:
    """Add one line; durable before it returns. The file is private (0600)."""
    line = {
        "sequence": anchor.sequence,
        "seal": anchor.seal,
        "at": anchor.at,
        "mac": anchor_mac(anchor.sequence, anchor.seal, anchor.at, key=key),
    }
    fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "ab") as out:
        out.write(json.dumps(line).encode() + b"\n")
        out.flush()
        os.fsync(fd)


def read_anchors(file: Path, *, key: bytes) -> list[Anchor]:
    """All anchors, oldest first; a line that is none of ours comes with `is_ours` false."""
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    return [_read(line, key=key) for line in lines if line.strip()]


def _read(line: str, *, key: bytes) -> Anchor:
    try:
        found = json.loads(line)
        sequence, seal, at = int(found["sequence"]), str(found["seal"]), str(found["at"])
        ours = found["mac"] == anchor_mac(sequence, seal, at, key=key)
    except (ValueError, KeyError, TypeError):
        return Anchor(sequence=0, seal="", at="", is_ours=False)
    return Anchor(sequence=sequence, seal=seal, at=at, is_ours=ours)
