"""What the edge answers by itself: which status an error has, and the document that says so.

Texts never repeat input. The document's form is the listener's choice: `inference_errors` or `problem_errors`.
"""

from collections.abc import Callable
from typing import Final

import msgspec

from modelyard.domain.errors.base import ModelyardError
from modelyard.domain.errors.edge import BadFraming, BadHeader, EdgeError

ErrorWriter = Callable[[int, ModelyardError, str], tuple[str, bytes]]
"""(status, error, request id) → content type and body."""


class Refused(Exception):
    """The edge does not let this request in. The connection closes after the answer."""

    def __init__(self, status: int, error: ModelyardError) -> None:
        self.status = status
        self.error = error
        super().__init__(error.detail)


class Overloaded(EdgeError):
    """The listener holds as much as it may."""

    code = "overloaded"
    title = "The server is busy"


class InternalError(EdgeError):
    """The handler failed; the log has the reason under the request id."""

    code = "internal"
    title = "Something went wrong on our side"


def bad_request(text: str, *, status: int = 400) -> Refused:
    """The request line cannot be read."""
    return Refused(status, EdgeError(text))


def bad_header(text: str) -> Refused:
    """A header breaks RFC 9112 section 5."""
    return Refused(400, BadHeader(text))


def bad_framing(text: str) -> Refused:
    """The end of the body cannot be known for sure (RFC 9112 sections 6 and 7)."""
    return Refused(400, BadFraming(text))


_JSON: Final = "application/json"
_PROBLEM: Final = "application/problem+json"


def inference_errors(status: int, error: ModelyardError, request_id: str) -> tuple[str, bytes]:
    """The inference protocol's document: `{"error", "code", "request_id"[, "hint"]}`."""
    del status
    document = {"error": error.detail or error.title, "code": error.code, "request_id": request_id}
    if error.hint:
        document["hint"] = error.hint
    return _JSON, msgspec.json.encode(document)


def problem_errors(status: int, error: ModelyardError, request_id: str) -> tuple[str, bytes]:
    """The control listener's document: RFC 9457, with our members beside it."""
    return _PROBLEM, msgspec.json.encode(
        {
            "type": f"urn:modelyard:error:{error.code}",
            "title": error.title,
            "status": status,
            "detail": error.detail,
            "code": error.code,
            "hint": error.hint,
            "request_id": request_id,
        }
    )
