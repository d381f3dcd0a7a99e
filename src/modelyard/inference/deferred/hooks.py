"""Messages to webhooks: what a server leaves on the disk for the sender, and how each try is signed.

A message is a CloudEvent 1.0 in binary mode: its data is the answer as the caller would have had it. It is signed as
Standard Webhooks has it: HMAC-SHA-256 over id, time and body, in base64 behind `v1,`. The id is that of the request,
so that a message that came twice is known by it.
"""

import base64
import hashlib
import hmac
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote as percent

import msgspec

from modelyard.domain.deferred import DeferredState
from modelyard.inference.deferred.documents import Accepted, Outcome, pack, unpack

RESPONSE: Final = "org.kubeflow.serving.inference.response"
ERROR: Final = "org.kubeflow.serving.inference.error"
Headers = list[tuple[bytes, bytes]]


class Message(msgspec.Struct, kw_only=True, frozen=True):
    """One message, before it is signed."""

    id: str
    url: str
    status: int
    content_type: str
    attributes: dict[str, str]


def write_message(accepted: Accepted, outcome: Outcome, body: bytes) -> bytes:
    """What is left for the sender."""
    kind = RESPONSE if outcome.state is DeferredState.SUCCEEDED else ERROR
    moment = datetime.fromtimestamp(outcome.finished_at, UTC).isoformat(timespec="milliseconds")
    attributes = {
        "specversion": "1.0",
        "id": accepted.id,
        "source": f"/p/{accepted.project}/v2/models/{accepted.service}",
        "subject": f"/v2/requests/{accepted.id}",
        "type": kind,
        "time": moment.replace("+00:00", "Z"),
        "inferenceservicename": accepted.service,
        "namespace": accepted.project,
    }
    message = Message(
        id=accepted.id,
        url=accepted.webhook or "",
        status=outcome.status,
        content_type=outcome.content_type,
        attributes=attributes,
    )
    return pack(message, body)


def read_message(data: bytes) -> tuple[Message, bytes]:
    """The message in a file, and its body. Raises `ValueError` when it is none."""
    return unpack(data, Message)


def signed_headers(message: Message, body: bytes, *, key: bytes, now: int) -> Headers:
    """The headers of one try to deliver `message`; `now` is in Unix seconds."""
    signed = f"{message.id}.{now}.".encode() + body
    signature = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    headers = [
        (b"content-type", message.content_type.encode("latin-1")),
        (b"user-agent", b"modelyard"),
        (b"webhook-id", message.id.encode()),
        (b"webhook-timestamp", str(now).encode()),
        (b"webhook-signature", f"v1,{signature}".encode()),
        (b"x-response-status", str(message.status).encode()),
    ]
    return headers + [
        (f"ce-{name}".encode(), percent(text, safe="/:._-+").encode()) for name, text in message.attributes.items()
    ]


def secret_of(key: bytes) -> str:
    """The key as receivers' libraries take it."""
    return "whsec_" + base64.b64encode(key).decode()
