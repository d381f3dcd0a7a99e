"""The OpenAI dialect, as far as a relay has to understand it: whom it is for, whether it streams, what it cost.

Everything else of a question and of an answer goes through byte for byte. (OpenAI API reference: chat, completions,
embeddings, streaming; server-sent events: HTML Standard, section 9.2.)
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from modelyard.domain.errors.base import ModelyardError, quote
from modelyard.domain.errors.inference import BadJson, InferenceInvalid
from modelyard.domain.upstreams import Upstream
from modelyard.foundation.strict_json import StrictJsonError, guard
from modelyard.inference.protocol import status_of

_MOST_EVENT: Final = 1 << 20
_DEPTH: Final = 64
_DIGITS: Final = 32
_END: Final = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_DATA: Final = re.compile(rb"^data: ?(.*?)\r?$", re.MULTILINE)
_EXAMPLE: Final = {"model": "SERVICE", "messages": [{"role": "user", "content": "Hello"}]}
_TYPES: Final[Mapping[int, str]] = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_SERVER_ERRORS: Final = 500
Raws = dict[str, msgspec.Raw]


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """What a model read and wrote, as the upstream counts it."""

    prompt: int = 0
    completion: int = 0


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Counted(msgspec.Struct):
    usage: _Usage | None = None
    choices: list[msgspec.Raw] | None = None


class Chat:
    """A question in the OpenAI dialect. `model` is our service; `stream` asks for events."""

    def __init__(self, fields: Raws) -> None:
        self._fields = fields
        self.model = _text(fields, "model")
        self.stream = _flag(fields, "stream")
        self._options = _object(fields, "stream_options")
        self.wants_usage = _flag(self._options, "include_usage")

    def body_for(self, upstream: Upstream) -> bytes:
        """The question as the upstream gets it: with its name of the model, and asked to tell its token counts."""
        fields = {**self._fields, "model": msgspec.Raw(msgspec.json.encode(upstream.model))}
        if self.stream and upstream.stream_usage:
            options = {**self._options, "include_usage": msgspec.Raw(b"true")}
            fields["stream_options"] = msgspec.Raw(msgspec.json.encode(options))
        return msgspec.json.encode(fields)


def read_question(body: bytes) -> Chat:
    """The question in `body`.

    Raises:
        BadJson: it is no strict JSON object.
        InferenceInvalid: it does not say which service it is for.
    """
    try:
        guard(body, max_depth=_DEPTH, max_digits=_DIGITS)
        fields = msgspec.json.decode(body, type=Raws)
    except StrictJsonError as error:
        raise BadJson(error.reason, hint="send one JSON object", example=_EXAMPLE) from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadJson("the body is no JSON object", hint="send one JSON object", example=_EXAMPLE) from error
    return Chat(fields)


def counts_of(body: bytes) -> TokenCounts | None:
    """The token counts in an answer; None where it has none."""
    try:
        usage = msgspec.json.decode(body, type=_Counted).usage
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return None if usage is None else TokenCounts(usage.prompt_tokens, usage.completion_tokens)


class StreamReader:
    """Passes server-sent events on, one by one, and keeps the token counts that one of them brings.

    `hides_usage` leaves the event out that only tells the counts, when not the caller but we asked for it.
    """

    def __init__(self, *, hides_usage: bool) -> None:
        self._hides = hides_usage
        self._rest = b""
        self.counts: TokenCounts | None = None

    def feed(self, data: bytes) -> bytes:
        """The events that are whole now, as they are to be passed on."""
        data = self._rest + data
        out: list[bytes] = []
        at = 0
        for end in _END.finditer(data):
            event = data[at : end.end()]
            at = end.end()
            if not self._is_only_usage(event):
                out.append(event)
        self._rest = data[at:]
        if len(self._rest) > _MOST_EVENT:  # no event we know is as large: it goes through unread
            out.append(self._rest)
            self._rest = b""
        return b"".join(out)

    def finish(self) -> bytes:
        """What is left over at the end."""
        rest, self._rest = self._rest, b""
        return rest

    def _is_only_usage(self, event: bytes) -> bool:
        if b'"usage"' not in event:
            return False
        data = _DATA.search(event)
        try:
            found = msgspec.json.decode(data[1] if data else b"{}", type=_Counted)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return False
        if found.usage is None:
            return False
        self.counts = TokenCounts(found.usage.prompt_tokens, found.usage.completion_tokens)
        return self._hides and found.choices == []


def write_openai_error(error: ModelyardError, *, request_id: str) -> tuple[int, bytes]:
    """Status and body as clients of this dialect read them; `code`, `hint` and `request_id` as everywhere here."""
    status = status_of(type(error))
    kind = _TYPES.get(status, "server_error" if status >= _SERVER_ERRORS else "invalid_request_error")
    text = error.detail or error.title
    inner: dict[str, Any] = {"message": text, "type": kind, "param": None, "code": error.code}
    document: dict[str, Any] = {"error": inner, "code": error.code, "request_id": request_id}
    if error.details:
        document["details"] = error.details
    if error.example is not None:
        document["example"] = error.example
    if error.hint:
        document["hint"] = error.hint
    return status, msgspec.json.encode(document)


def stream_error(error: ModelyardError, *, request_id: str) -> bytes:
    """The event that ends a stream which cannot go on."""
    return b"data: " + write_openai_error(error, request_id=request_id)[1] + b"\n\n"


def _text(fields: Raws, name: str) -> str:
    try:
        value = msgspec.json.decode(fields[name], type=str)
    except KeyError as error:
        raise _wrong(name, "the name of a service", "nothing") from error
    except msgspec.MsgspecError as error:
        raise _wrong(name, "the name of a service", quote(bytes(fields[name]).decode("utf-8", "replace"))) from error
    return value


def _flag(fields: Raws, name: str) -> bool:
    raw = bytes(fields.get(name, msgspec.Raw(b"null"))).strip()
    if raw not in (b"true", b"false", b"null"):
        raise _wrong(name, "true or false", quote(raw.decode("utf-8", "replace")))
    return raw == b"true"


def _object(fields: Raws, name: str) -> Raws:
    try:
        return msgspec.json.decode(fields.get(name, msgspec.Raw(b"null")), type=Raws | None) or {}
    except msgspec.MsgspecError as error:
        raise _wrong(name, "an object", quote(bytes(fields[name]).decode("utf-8", "replace"))) from error


def _wrong(field: str, expected: str, received: str) -> InferenceInvalid:
    return InferenceInvalid(
        f"{field} must be {expected}, not {received}",
        hint="GET /v1/models lists the services that can be named",
        details=[{"field": field, "expected": expected, "received": received}],
        example=_EXAMPLE,
    )
