"""Write gRPC answers as header blocks (the gRPC over HTTP/2 protocol, "Responses")."""

import re
from collections.abc import Iterable
from typing import Final

from modelyard.foundation.http2.hpack import Field, encode

_UNSAFE: Final = re.compile(rb"[^\x20-\x24\x26-\x7e]")
_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_VALUE: Final = re.compile(rb"[\x20-\x7e]*")
_LONGEST_TEXT: Final = 2000
_LARGEST_BLOCK: Final = 8192  # fits the smallest frame that a client may allow
_KIND: Final = (b"content-type", b"application/grpc")
_BEGIN_BLOCK: Final = encode([(b":status", b"200"), _KIND])
HEADERS_BLOCK: Final = encode([(b":status", b"200"), _KIND, (b"grpc-accept-encoding", b"identity,gzip")])
OK_BLOCK: Final = encode([(b"grpc-status", b"0")])
OLD_HTTP: Final = (
    b"HTTP/1.1 505 HTTP Version Not Supported\r\ncontent-type: text/plain\r\nconnection: close\r\n"
    b"content-length: 47\r\n\r\nThis port speaks gRPC, which needs HTTP/2 here."
)
"""What an HTTP/1.1 client is told."""


def ok_block(trailing: Iterable[Field]) -> bytes:
    """Trailers of a call that went well.

    Raises:
        ValueError: a name or value that gRPC does not allow (binary values are given in base64, with a -bin name).
    """
    return _bounded(OK_BLOCK + encode(_checked(trailing)))


def only_trailers(block: bytes) -> bytes:
    """The block of an answer that is trailers only, from trailers that `ok_block` made."""
    return _BEGIN_BLOCK + block


def failure_trailers(status: int, text: str, details: Iterable[Field] = ()) -> bytes:
    """Trailers of a call that failed after its headers, and maybe messages, were sent. As `failure_block`."""
    return _bounded(encode(_said(status, text) + _checked(details)))


def failure_block(status: int, text: str, details: Iterable[Field] = (), *, http_status: int = 200) -> bytes:
    """The one block of an answer that is trailers only. `text` may be any text; it is percent-encoded, cut if long.

    Raises:
        ValueError: as `ok_block`.
    """
    fields = [(b":status", b"%d" % (http_status or 200)), _KIND, *_said(status, text)]
    if status == 12:  # noqa: PLR2004  (UNIMPLEMENTED, maybe for the encoding: say which there are)
        fields.append((b"grpc-accept-encoding", b"identity,gzip"))
    return _bounded(encode(fields + _checked(details)))


def _said(status: int, text: str) -> list[Field]:
    said = [(b"grpc-status", b"%d" % status)]
    return [*said, (b"grpc-message", percent_encode(text))] if text else said


def percent_encode(text: str) -> bytes:
    """`text` as the gRPC protocol writes Status-Message."""
    return _UNSAFE.sub(lambda found: b"%%%02X" % found[0][0], text[:_LONGEST_TEXT].encode("utf-8", "replace"))


def _bounded(block: bytes) -> bytes:
    if len(block) > _LARGEST_BLOCK:
        raise ValueError("trailing metadata is too large")
    return block


def _checked(fields: Iterable[Field]) -> list[Field]:
    found = list(fields)
    for name, value in found:
        ours = name.startswith(b"grpc-") and name != b"grpc-status-details-bin"
        if ours or not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise ValueError("trailing metadata holds what gRPC does not allow")
    return found
