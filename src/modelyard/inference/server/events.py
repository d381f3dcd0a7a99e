"""CloudEvents 1.0 on the prediction addresses: an event comes in, an event with the same id goes out.

Both modes of the HTTP binding: binary (attributes in `ce-` headers, the body is the data) and structured (one JSON
document). What is asked inside is an ordinary V2, V1 or MLflow request; the answer has the mode of the question. A
prediction is an event of KServe's type for responses, a refusal one of a type of its own, with its HTTP status.
"""

import base64
import binascii
import copy
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from time import time
from typing import Any, Final, NamedTuple
from urllib.parse import quote as percent
from urllib.parse import unquote_to_bytes

import msgspec

from modelyard.domain.errors.base import ModelyardError, quote
from modelyard.domain.errors.inference import BadEvent
from modelyard.foundation.http.exchange import Reply, Request
from modelyard.foundation.http.wire import NO_HEADERS, HeaderLines, HeaderPairs, header_lines
from modelyard.foundation.strict_json import StrictJsonError, loads
from modelyard.inference.deferred import ERROR, RESPONSE
from modelyard.inference.routing import Service

STRUCTURED: Final = b"application/cloudevents+json"
MARK: Final = b"ce-specversion"
_JSON: Final = "application/json"
_VERSION: Final = "1.0"
_NAME: Final = re.compile(r"[a-z0-9]{1,64}")
_URI: Final = re.compile(r"[!#$&-;=?-\[\]_a-z~A-Z%]+")  # the characters of RFC 3986
_MOMENT: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")
_REQUIRED: Final = ("id", "source", "specversion", "type")
_LONGEST: Final = 2048
_SAFE: Final = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')
_OK: Final = 300
Answer = Callable[..., None]


class Event(NamedTuple):
    """What an event says of itself; `is_structured` is its mode."""

    id: str
    is_structured: bool


def is_structured(content_type: bytes | None) -> bool:
    """Whether the body is an event."""
    return content_type is not None and content_type.split(b";")[0].strip().lower() == STRUCTURED


def open_event(request: Request, reply: Reply, service: Service) -> tuple[Request, Reply]:
    """The request inside the event, and the reply that makes an event of its answer.

    Raises:
        BadEvent: it is not a CloudEvent of version 1.0.
    """
    fields = request.head.fields
    if is_structured(fields.get(b"content-type")):
        event, inner = _structured(request)
    else:
        attributes = {
            name[3:].decode("latin-1"): _header_text(value) for name, value in fields.items() if name.startswith(b"ce-")
        }
        event, inner = Event(_checked(attributes), is_structured=False), request
    return inner, EventReply(reply, event, service)


class EventReply(Reply):
    """Sends what it is given as the data of an event."""

    __slots__ = ("_event", "_reply", "_service")

    def __init__(self, reply: Reply, event: Event, service: Service) -> None:
        self._reply = reply
        self._event = event
        self._service = service

    @property
    def closed(self) -> bool:
        """Whether nobody waits for this answer any more."""
        return self._reply.closed

    @property
    def is_answered(self) -> bool:
        """Whether the answer has begun."""
        return self._reply.is_answered

    def on_disconnect(self, call: Callable[[], None]) -> None:
        """Call `call` once if the client goes before the answer is complete."""
        self._reply.on_disconnect(call)

    def send(
        self,
        status: int,
        body: bytes = b"",
        *,
        content_type: str = _JSON,
        headers: HeaderLines | HeaderPairs = NO_HEADERS,
        close: bool = False,
    ) -> None:
        """Answer, whole."""
        lines = headers if isinstance(headers, bytes) else header_lines(headers)
        attributes = self._attributes(ERROR if status >= _OK else RESPONSE)
        if self._event.is_structured:
            body, content_type = _document(attributes, body, content_type), f"{STRUCTURED.decode()}; charset=utf-8"
        else:
            lines = HeaderLines(lines + _lines(attributes))
        self._reply.send(status, body, content_type=content_type, headers=lines, close=close)

    def _attributes(self, kind: str) -> dict[str, str]:
        service = self._service
        moment = datetime.fromtimestamp(time(), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return {
            "specversion": _VERSION,
            "id": self._event.id,
            "source": f"/p/{service.project}/v2/models/{service.name}",
            "type": kind,
            "time": moment,
            "inferenceservicename": service.name,
            "namespace": service.project,
        }


def _structured(request: Request) -> tuple[Event, Request]:
    try:
        document = loads(request.body)
    except StrictJsonError as error:
        raise _bad("the body", f"is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise _bad("the body", "is not an object")
    attributes = {name: value for name, value in document.items() if name not in ("data", "data_base64")}
    event = Event(_checked(attributes), is_structured=True)
    kind = attributes.get("datacontenttype", _JSON)
    return event, _inner(request, _data(document, kind), kind)


def _data(document: Mapping[str, Any], kind: str) -> bytes:
    """The bytes of the data (JSON event format, section 3.1)."""
    if ("data" in document) == ("data_base64" in document):
        raise _bad("data", "is missing, or there twice (data and data_base64)")
    if "data" in document:
        data = document["data"]
        is_text = isinstance(data, str) and "json" not in kind
        return data.encode() if is_text else msgspec.json.encode(data)
    try:
        return base64.b64decode(document["data_base64"], validate=True)
    except (binascii.Error, ValueError, TypeError) as error:
        raise _bad("data_base64", "is not base64") from error


def _inner(request: Request, body: bytes, kind: str) -> Request:
    """The same request with the event's data for its body. The head is shared by other requests, so it is copied."""
    head = request.head
    fields = {**head.fields, b"content-type": kind.encode()}
    fields.pop(b"accept", None)  # of the envelope
    inner = copy.copy(request)
    inner.head = replace(head, fields=fields)
    inner.body = body
    return inner


def _checked(attributes: Mapping[str, Any]) -> str:
    """The event's id, once everything about its attributes is right (CloudEvents 1.0, sections 3 and 3.1)."""
    for name, value in attributes.items():
        if not _NAME.fullmatch(name):
            raise _bad(quote(name), "is no name of an attribute: a to z and 0 to 9")
        if value is None or (isinstance(value, str) and not value) or isinstance(value, (dict, list, float)):
            raise _bad(name, "has no value that an attribute can have")
        if isinstance(value, str) and (len(value) > _LONGEST or not value.isprintable()):
            raise _bad(name, f"is longer than {_LONGEST} characters, or has some that cannot be printed")
    _check_required(attributes)
    if "time" in attributes and not _MOMENT.fullmatch(str(attributes["time"])):
        raise _bad("time", "is no time of RFC 3339")
    kind = attributes.get("datacontenttype", _JSON)
    if not isinstance(kind, str) or not kind.isascii():
        raise _bad("datacontenttype", "is no content type")
    return str(attributes["id"])


def _check_required(attributes: Mapping[str, Any]) -> None:
    for name in _REQUIRED:
        if not isinstance(attributes.get(name), str):
            raise _bad(name, "is required, as a text")
    if attributes["specversion"] != _VERSION:
        raise _bad("specversion", f"is not {_VERSION}", received=attributes["specversion"])
    if not _URI.fullmatch(attributes["source"]):
        raise _bad("source", "is no URI reference")


def _header_text(value: bytes) -> str:
    """A header's value as its attribute (HTTP binding, section 3.1.3.2)."""
    text = value.strip().removeprefix(b'"').removesuffix(b'"') if value[:1] == b'"' else value
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError as error:
        raise _bad("a header", "is not UTF-8 once it is decoded") from error


def _lines(attributes: Mapping[str, str]) -> HeaderLines:
    return header_lines(
        [(f"ce-{name}".encode(), percent(text, safe=_SAFE).encode()) for name, text in attributes.items()]
    )


def _document(attributes: Mapping[str, str], body: bytes, content_type: str) -> bytes:
    whole: dict[str, Any] = {**attributes, "datacontenttype": content_type}
    if "json" in content_type:
        whole["data"] = msgspec.Raw(body)
    else:
        whole["data_base64"] = base64.b64encode(body).decode("ascii")
    return msgspec.json.encode(whole)


def _bad(what: str, why: str, *, received: object = None) -> ModelyardError:
    details = [] if received is None else [{"field": what, "expected": _VERSION, "received": quote(received)}]
    return BadEvent(
        f"the event's {what} {why}", hint="send a CloudEvent 1.0: specversion, id, source, type", details=details
    )
