"""The inference listener's error answers: one table from the error tree to HTTP, one document.

The nearest row up the tree counts, so a new error has its parent's status until it gets its own. A test walks the tree.
`{"error": …}` is the protocol's contract; the members beside it are ours.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec

from modelyard.domain.errors import edge, inference, platform, uploads
from modelyard.domain.errors.base import ModelyardError

STATUS: Final[Mapping[type[ModelyardError], int]] = MappingProxyType(
    {
        edge.EdgeError: 400,
        edge.BadHost: 421,
        edge.HeadersTooLarge: 431,
        edge.UriTooLong: 414,
        edge.BodyTooLarge: 413,
        edge.ReceiptDeadline: 408,
        edge.MethodNotAllowed: 405,
        edge.RouteNotFound: 404,
        edge.UnsupportedMediaType: 415,
        edge.UnsupportedEncoding: 501,
        edge.NotAcceptable: 406,
        inference.InferenceInvalid: 400,
        inference.DeadlineExceeded: 504,
        inference.RunFailed: 500,
        inference.UpstreamUnreachable: 502,
        inference.UpstreamFailed: 502,
        platform.NotFound: 404,
        platform.Conflict: 409,
        platform.PreconditionFailed: 412,
        platform.InvalidRequest: 400,
        platform.Unauthenticated: 401,
        platform.Forbidden: 403,
        platform.RateLimited: 429,
        platform.Unavailable: 503,
        platform.NotSupported: 501,
        platform.StorageFull: 507,
        platform.MissingExtra: 501,
        platform.StartRefused: 500,
        platform.ArtifactDamaged: 500,
        platform.BackupDamaged: 422,
        platform.ClaimLost: 409,
        platform.JobFailed: 422,
        platform.JobLimitReached: 422,
        uploads.UploadRefused: 400,
        ModelyardError: 500,
    }
)


def status_of(kind: type[ModelyardError]) -> int:
    """The HTTP status of an error class."""
    return next(STATUS[parent] for parent in kind.__mro__ if parent in STATUS)


def write_error(error: ModelyardError, *, request_id: str) -> tuple[int, bytes]:
    """Status and body: `{"error", "code", "request_id"[, "details"][, "example"][, "hint"]}`."""
    document: dict[str, Any] = {
        "error": error.detail or error.title,
        "code": error.code,
        "request_id": request_id,
    }
    if error.details:
        document["details"] = error.details
    if error.example is not None:
        document["example"] = error.example
    if error.hint:
        document["hint"] = error.hint
    return status_of(type(error)), msgspec.json.encode(document)
