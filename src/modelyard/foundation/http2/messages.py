"""Take messages out of their length-prefixed form (the gRPC over HTTP/2 protocol, "Length-Prefixed-Message")."""

from struct import Struct
from typing import Final

from modelyard.foundation.http.body import inflate
from modelyard.foundation.http.limits import EdgeLimits
from modelyard.foundation.http.refusal import Refused
from modelyard.foundation.http2.status import Status

_PREFIX: Final = Struct(">BI")
_PREFIX_SIZE: Final = 5
_TOO_LARGE: Final = 413


class MessageRefused(Exception):
    """The body is not one message that can be taken; `status` is the gRPC status to answer."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


def open_message(body: bytes | bytearray, encoding: bytes, limits: EdgeLimits) -> bytes:
    """The message in `body`, inflated when its flag says so.

    Raises:
        MessageRefused: no message, more than one, one cut short, too large, or compressed as was not said.
    """
    size = len(body)
    if size < _PREFIX_SIZE:
        if body:
            raise MessageRefused(Status.INTERNAL, "the message is cut short")
        raise MessageRefused(Status.UNIMPLEMENTED, "a unary call has one message, this one has none")
    flag, declared = _PREFIX.unpack_from(body)
    if declared > limits.max_body_bytes:
        raise MessageRefused(Status.RESOURCE_EXHAUSTED, f"the message is larger than {limits.max_body_bytes} bytes")
    if declared != size - _PREFIX_SIZE:
        if declared > size - _PREFIX_SIZE:
            raise MessageRefused(Status.INTERNAL, "the message is cut short")
        raise MessageRefused(Status.UNIMPLEMENTED, "a unary call has one message, this one has more")
    message = body[_PREFIX_SIZE:] if isinstance(body, bytes) else bytes(memoryview(body)[_PREFIX_SIZE:])
    return message if not flag else _inflated(message, flag, encoding, limits)


def next_message(body: bytearray, encoding: bytes, limits: EdgeLimits) -> bytes | None:
    """Take the first message out of `body`, which begins with one; None while it is not whole.

    Raises:
        MessageRefused: it is too large, or compressed as was not said.
    """
    if len(body) < _PREFIX_SIZE:
        return None
    flag, declared = _PREFIX.unpack_from(body)
    if declared > limits.max_body_bytes:
        raise MessageRefused(Status.RESOURCE_EXHAUSTED, f"the message is larger than {limits.max_body_bytes} bytes")
    end = _PREFIX_SIZE + declared
    if len(body) < end:
        return None
    message = bytes(memoryview(body)[_PREFIX_SIZE:end])
    del body[:end]  # cheap: a bytearray forgets its beginning without moving the rest
    return message if not flag else _inflated(message, flag, encoding, limits)


def _inflated(message: bytes, flag: int, encoding: bytes, limits: EdgeLimits) -> bytes:
    if flag != 1 or encoding != b"gzip":
        raise MessageRefused(Status.INTERNAL, "the message is marked as compressed, but grpc-encoding does not say how")
    try:
        return inflate(message, max_bytes=limits.max_body_bytes, max_ratio=limits.max_inflate_ratio)
    except Refused as refused:
        if refused.status == _TOO_LARGE:
            raise MessageRefused(Status.RESOURCE_EXHAUSTED, "the message inflates to more than is allowed") from refused
        raise MessageRefused(Status.INTERNAL, "the message is not valid gzip") from refused
