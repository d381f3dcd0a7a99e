"""Turn the fields of a request into the head of a gRPC call, or say what is wrong with them.

A head is shared by all calls whose header block is the same, so it is never changed.
"""

import re
from dataclasses import dataclass, field
from typing import Any, Final

from modelyard.foundation.http2.hpack import Field
from modelyard.foundation.http2.status import Status

_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_VALUE: Final = re.compile(rb"(?:[\x21-\xff](?:[\t\x20-\xff]*[\x21-\xff])?)?")
_TIMEOUT: Final = re.compile(rb"([0-9]{1,8})([HMSmun])")
_UNITS: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_HOP: Final = frozenset({b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"})
_PSEUDO: Final = frozenset({b":method", b":scheme", b":path", b":authority"})
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")


class Malformed(ValueError):
    """A request that HTTP/2 calls malformed (RFC 9113 section 8.1.1): a stream error."""


@dataclass(slots=True)
class CallHead:
    """What came before the message. `http_status` and `status` say why it is refused (0: it is not).

    `streams` is set where the handler takes this path as a stream; `kept` is the handler's own: what it made of the
    head once serves all calls that have it.
    """

    path: bytes = b""
    authority: bytes = b""
    metadata: tuple[Field, ...] = ()
    fields: dict[bytes, bytes] = field(default_factory=dict)
    timeout_s: float | None = None
    encoding: bytes = b"identity"
    length: int = -1
    http_status: int = 0
    status: int = 0
    text: str = ""
    streams: bool = False
    kept: Any = None


def read_head(fields: list[Field]) -> CallHead:
    """The head of a call.

    Raises:
        Malformed: the fields break RFC 9113 section 8.2 or 8.3.
    """
    pseudo, plain = _split(fields)
    for needed in (b":method", b":scheme", b":path"):
        if not pseudo.get(needed):
            raise Malformed("a pseudo-header field is missing or empty")
    known = dict(plain)
    head = CallHead(
        path=pseudo[b":path"],
        authority=pseudo.get(b":authority", known.get(b"host", b"")),
        metadata=tuple(plain),
        fields=known,
        encoding=known.get(b"grpc-encoding", b"identity"),
    )
    _read_length(head, plain)
    _judge(head, pseudo[b":method"], known)
    return head


def check_trailers(fields: list[Field]) -> None:
    """Check the fields that a client sent after its message; nothing in them is used.

    Raises:
        Malformed: they hold pseudo-header fields, or are not valid.
    """
    pseudo, _ = _split(fields)
    if pseudo:
        raise Malformed("pseudo-header fields in trailers")


def _split(fields: list[Field]) -> tuple[dict[bytes, bytes], list[Field]]:
    pseudo: dict[bytes, bytes] = {}
    plain: list[Field] = []
    for name, value in fields:
        if not _VALUE.fullmatch(value) or b"\x7f" in value:
            raise Malformed("a field value holds what it must not")
        if name.startswith(b":"):
            if plain or name in pseudo or name not in _PSEUDO:
                raise Malformed("a pseudo-header field is unknown, twice there, or late")
            pseudo[name] = value
            continue
        if not _NAME.fullmatch(name) or name in _HOP or (name == b"te" and value != b"trailers"):
            raise Malformed("a field that HTTP/2 does not allow")
        plain.append((name, value))
    return pseudo, plain


def _read_length(head: CallHead, plain: list[Field]) -> None:
    lengths = [value for name, value in plain if name == b"content-length"]
    if not lengths:
        return
    if len(lengths) > 1 or not _LENGTH.fullmatch(lengths[0]):
        raise Malformed("the content length is no number, or twice there")
    head.length = int(lengths[0])


def _judge(head: CallHead, method: bytes, known: dict[bytes, bytes]) -> None:
    """Note why this is no call that can be answered, if so."""
    kind = known.get(b"content-type", b"").lower()
    timeout = known.get(b"grpc-timeout")
    if method != b"POST":
        head.http_status, head.status, head.text = 405, Status.INTERNAL, "gRPC calls are made with POST"
    elif kind not in {b"application/grpc", b"application/grpc+proto"} and not kind.startswith(b"application/grpc;"):
        head.http_status, head.status, head.text = (
            415,
            Status.INTERNAL,
            "gRPC calls have the content type application/grpc",
        )
    elif head.encoding not in {b"identity", b"gzip"}:
        head.status, head.text = Status.UNIMPLEMENTED, "messages may be compressed with gzip only"
    elif timeout is not None:
        match = _TIMEOUT.fullmatch(timeout)
        if match is None:
            head.status, head.text = Status.INTERNAL, "grpc-timeout is not valid"
        else:
            head.timeout_s = int(match[1]) * _UNITS[match[2]]
