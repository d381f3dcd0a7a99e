"""Answers that are not predictions: errors with the headers HTTP wants beside them, and small documents."""

import math
from typing import Final

import msgspec

from modelyard.domain.errors.base import ModelyardError
from modelyard.domain.errors.inference import RunFailed
from modelyard.domain.errors.platform import RateLimited, RatePolicy, Unauthenticated, Unavailable
from modelyard.foundation.http.exchange import Reply, Request
from modelyard.foundation.http.wire import NO_HEADERS, HeaderLines, header_lines
from modelyard.inference.protocol import write_error

_CHALLENGE: Final = header_lines([(b"www-authenticate", b"Bearer")])


def send_json(reply: Reply, document: object, *, status: int = 200, headers: HeaderLines = NO_HEADERS) -> None:
    """Answer with `document` as JSON."""
    reply.send(status, msgspec.json.encode(document), headers=headers)


def send_error(request: Request, reply: Reply, error: ModelyardError, *, headers: HeaderLines = NO_HEADERS) -> None:
    """Answer with an error document.

    401 asks for a key and ends the connection (RFC 9110, section 11.6.1); 429 and 503 say when to come back (RFC 9110,
    section 10.2.3), in whole seconds, rounded up.
    """
    if reply.closed:
        return
    status, body = write_error(error, request_id=request.id)
    more, close = error_headers(error)
    reply.send(status, body, headers=more if close else HeaderLines(headers + more), close=close)


def error_headers(error: ModelyardError) -> tuple[HeaderLines, bool]:
    """What HTTP wants beside an error, and whether the connection ends with it."""
    if isinstance(error, Unauthenticated):
        return _CHALLENGE, True
    if isinstance(error, (RateLimited, Unavailable)):
        wait = max(1, math.ceil(error.retry_after_s))
        limit = _limit_lines(error.policy, wait) if isinstance(error, RateLimited) and error.policy is not None else b""
        return HeaderLines(b"retry-after: %d\r\n" % wait + limit), False
    return NO_HEADERS, False


def _limit_lines(policy: RatePolicy, wait_s: int) -> bytes:
    """RateLimit-Policy and RateLimit (draft-ietf-httpapi-ratelimit-headers-10): which limit it was, and what is left.

    The draft is not finished; Retry-After is what clients can rely on, and both say the same time.
    """
    named = f'ratelimit-policy: "{policy.name}";q={policy.quota};w={policy.window_s}\r\n'
    return f'{named}ratelimit: "{policy.name}";r=0;t={wait_s}\r\n'.encode("ascii")


def unwritable(error: Exception) -> RunFailed:
    """What a caller hears when the model's answer cannot be put into words."""
    failure = RunFailed("the model's answer cannot be written", hint="the server's log has the reason")
    failure.__cause__ = error
    return failure
