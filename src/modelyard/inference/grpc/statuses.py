"""Errors as gRPC says them: a status code, the text that REST has as `error`, and trailing metadata.

Trailing metadata of an error: `modelyard-code` is the error's code, `x-request-id`, `retry-after` in whole seconds
where there is one, and `modelyard-error-bin` the error document of REST (JSON) as long as it is small.
"""

import base64
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from modelyard.domain.errors import edge, inference, platform, uploads
from modelyard.domain.errors.base import ModelyardError
from modelyard.foundation.http2 import Call, Status, StreamCall
from modelyard.inference.protocol import write_error
from modelyard.inference.routing import ServedBackend

Metadata = tuple[tuple[bytes, bytes], ...]
CODE: Final = "modelyard-code"
DOCUMENT: Final = "modelyard-error-bin"
_LARGEST_DOCUMENT: Final = 4096  # clients take 8 KiB of metadata by default

STATUS: Final[Mapping[type[ModelyardError], Status]] = MappingProxyType(
    {
        edge.EdgeError: Status.INVALID_ARGUMENT,
        edge.BodyTooLarge: Status.RESOURCE_EXHAUSTED,
        edge.ReceiptDeadline: Status.DEADLINE_EXCEEDED,
        edge.RouteNotFound: Status.UNIMPLEMENTED,
        edge.MethodNotAllowed: Status.UNIMPLEMENTED,
        edge.UnsupportedEncoding: Status.UNIMPLEMENTED,
        inference.InferenceInvalid: Status.INVALID_ARGUMENT,
        inference.DeadlineExceeded: Status.DEADLINE_EXCEEDED,
        inference.RunFailed: Status.INTERNAL,
        inference.UpstreamUnreachable: Status.UNAVAILABLE,
        inference.UpstreamFailed: Status.UNAVAILABLE,
        platform.NotFound: Status.NOT_FOUND,
        platform.Conflict: Status.ABORTED,
        platform.PreconditionFailed: Status.FAILED_PRECONDITION,
        platform.InvalidRequest: Status.INVALID_ARGUMENT,
        platform.Unauthenticated: Status.UNAUTHENTICATED,
        platform.Forbidden: Status.PERMISSION_DENIED,
        platform.RateLimited: Status.RESOURCE_EXHAUSTED,
        platform.Unavailable: Status.UNAVAILABLE,
        platform.NotSupported: Status.UNIMPLEMENTED,
        platform.StorageFull: Status.RESOURCE_EXHAUSTED,
        platform.MissingExtra: Status.UNIMPLEMENTED,
        uploads.UploadRefused: Status.INVALID_ARGUMENT,
        ModelyardError: Status.INTERNAL,
    }
)
"""The nearest row up the tree counts, as in the table of the HTTP listener."""


def status_of(kind: type[ModelyardError]) -> Status:
    """The gRPC status of an error class."""
    return next(STATUS[parent] for parent in kind.__mro__ if parent in STATUS)


def text_of(error: ModelyardError) -> str:
    """What the status says: the text that REST has as `error`."""
    return error.detail or error.title


def who_answered(backend: ServedBackend) -> Metadata:
    """Trailing metadata about the backend that took a call."""
    chosen = backend.backend
    return (
        (b"x-model-version", chosen.version.encode()),
        (b"x-model-digest", chosen.digest.encode()),
        (b"x-revision", str(chosen.revision).encode()),
    )


def metadata_of(error: ModelyardError, *, request_id: str) -> Metadata:
    """Trailing metadata of a refusal."""
    _, document = write_error(error, request_id=request_id)
    found: Metadata = ((CODE.encode(), error.code.encode()), (b"x-request-id", request_id.encode()))
    if isinstance(error, (platform.RateLimited, platform.Unavailable)):
        found += ((b"retry-after", str(max(1, math.ceil(error.retry_after_s))).encode()),)
    if len(document) > _LARGEST_DOCUMENT:
        return found
    return (*found, (DOCUMENT.encode(), base64.b64encode(document).rstrip(b"=")))


def refuse(
    call: Call | StreamCall, error: ModelyardError, *, request_id: str, backend: ServedBackend | None = None
) -> None:
    """End `call` with `error`."""
    details = metadata_of(error, request_id=request_id)
    if backend is not None:
        details += who_answered(backend)
    status, text = status_of(type(error)), text_of(error)
    try:
        call.fail(status, text, details)
    except ValueError:  # text and document together are more than clients take
        call.fail(status, text, [pair for pair in details if pair[0] != DOCUMENT.encode()])
