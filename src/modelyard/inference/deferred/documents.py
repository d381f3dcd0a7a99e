"""What is written down of an accepted request and of its answer: one line of JSON, then the body as it is."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar

import msgspec

from modelyard.domain.deferred import DeferredState

S = TypeVar("S", bound=msgspec.Struct)
_LINE: Final = b"\n"


class Accepted(msgspec.Struct, kw_only=True, frozen=True):
    """A request that was accepted: everything that answers it later, but the key it came with.

    `caller` is the id of the key or of the token's bearer ("" where none is asked for); `fields` are the header fields
    that say how it is to be read. Times are Unix seconds.
    """

    id: str
    project: str
    service: str
    caller: str
    has_key: bool
    dialect: str
    version: str | None
    fields: dict[str, str]
    created_at: float
    expires_at: float
    webhook: str | None = None


class Outcome(msgspec.Struct, kw_only=True, frozen=True):
    """How it ended: the answer as it would have been sent at once (`status` 0: none), its headers one a line."""

    state: DeferredState
    status: int
    content_type: str
    headers: str
    finished_at: float
    kept_until: float
    tries: int
    code: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """What is on the disk of one request."""

    accepted: Accepted
    outcome: Outcome | None
    tries: int
    directory: Path


def pack(head: msgspec.Struct, body: bytes) -> bytes:
    """The bytes of a file."""
    return msgspec.json.encode(head) + _LINE + body


def unpack(data: bytes, kind: type[S]) -> tuple[S, bytes]:
    """The head and the body of a file.

    Raises:
        ValueError: it is none of ours, or not whole.
    """
    head, line, body = data.partition(_LINE)
    if not line:
        raise ValueError("the file has no end of its first line")
    return msgspec.json.decode(head, type=kind), body


def read_head(stream: BinaryIO, kind: type[S]) -> S:
    """The head at which a file stands; the body is left unread.

    Raises:
        ValueError: it is none of ours, or not whole.
    """
    line = stream.readline()
    if not line.endswith(_LINE):
        raise ValueError("the file has no end of its first line")
    return msgspec.json.decode(line, type=kind)


def status_document(found: Found, *, is_running: bool) -> dict[str, Any]:
    """What a caller is told of its request."""
    accepted, outcome = found.accepted, found.outcome
    state = outcome.state if outcome else DeferredState.RUNNING if is_running else DeferredState.QUEUED
    document: dict[str, Any] = {
        "id": accepted.id,
        "service": accepted.service,
        "project": accepted.project,
        "status": state.value,
        "created_at": accepted.created_at,
        "tries": outcome.tries if outcome else found.tries,
    }
    if outcome is None:
        return document | {"expires_at": accepted.expires_at}
    document |= {"finished_at": outcome.finished_at, "kept_until": outcome.kept_until}
    if outcome.code:
        document["code"] = outcome.code
    if outcome.status:
        document |= {"response_status": outcome.status, "response": f"/v2/requests/{accepted.id}/response"}
    return document
