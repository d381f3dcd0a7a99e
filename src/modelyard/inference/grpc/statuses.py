"""Errors as gRPC says them: a status code, the text that REST has as `error`, and trailing metadata.

Trailing metadata of an error: `modelyard-code` is the error's code, `x-request-id`, `retry-after` in whole seconds
where there is one, and `modelyard-error-bin` the error document of REST (JSON) as long as it is small.
"""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from grpc import StatusCode

from modelyard.domain.errors import edge, inference, platform, uploads
from modelyard.domain.errors.base import ModelyardError
from modelyard.inference.protocol import write_error

Metadata = tuple[tuple[str, str | bytes], ...]
CODE: Final = "modelyard-code"
DOCUMENT: Final = "modelyard-error-bin"
_LARGEST_DOCUMENT: Final = 4096  # clients take 8 KiB of metadata by default

STATUS: Final[Mapping[type[ModelyardError], Any]] = MappingProxyType(
    {
        edge.EdgeError: StatusCode.INVALID_ARGUMENT,
        edge.BodyTooLarge: StatusCode.RESOURCE_EXHAUSTED,
        edge.ReceiptDeadline: StatusCode.DEADLINE_EXCEEDED,
        edge.RouteNotFound: StatusCode.UNIMPLEMENTED,
        edge.MethodNotAllowed: StatusCode.UNIMPLEMENTED,
        edge.UnsupportedEncoding: StatusCode.UNIMPLEMENTED,
        inference.InferenceInvalid: StatusCode.INVALID_ARGUMENT,
        inference.DeadlineExceeded: StatusCode.DEADLINE_EXCEEDED,
        inference.RunFailed: StatusCode.INTERNAL,
        inference.UpstreamUnreachable: StatusCode.UNAVAILABLE,
        inference.UpstreamFailed: StatusCode.UNAVAILABLE,
        platform.NotFound: StatusCode.NOT_FOUND,
        platform.Conflict: StatusCode.ABORTED,
        platform.PreconditionFailed: StatusCode.FAILED_PRECONDITION,
        platform.InvalidRequest: StatusCode.INVALID_ARGUMENT,
        platform.Unauthenticated: StatusCode.UNAUTHENTICATED,
        platform.Forbidden: StatusCode.PERMISSION_DENIED,
        platform.RateLimited: StatusCode.RESOURCE_EXHAUSTED,
        platform.Unavailable: StatusCode.UNAVAILABLE,
        platform.NotSupported: StatusCode.UNIMPLEMENTED,
        platform.StorageFull: StatusCode.RESOURCE_EXHAUSTED,
        platform.MissingExtra: StatusCode.UNIMPLEMENTED,
        uploads.UploadRefused: StatusCode.INVALID_ARGUMENT,
        ModelyardError: StatusCode.INTERNAL,
    }
)
"""The nearest row up the tree counts, as in the table of the HTTP listener."""


def status_of(kind: type[ModelyardError]) -> Any:  # noqa: ANN401  (a grpc.StatusCode)
    """The gRPC status of an error class."""
    return next(STATUS[parent] for parent in kind.__mro__ if parent in STATUS)


def text_of(error: ModelyardError) -> str:
    """What the status says: the text that REST has as `error`."""
    return error.detail or error.title


def metadata_of(error: ModelyardError, *, request_id: str) -> Metadata:
    """Trailing metadata of a refusal."""
    _, document = write_error(error, request_id=request_id)
    found: Metadata = ((CODE, error.code), ("x-request-id", request_id))
    if isinstance(error, (platform.RateLimited, platform.Unavailable)):
        found += (("retry-after", str(max(1, math.ceil(error.retry_after_s)))),)
    return (*found, (DOCUMENT, document)) if len(document) <= _LARGEST_DOCUMENT else found
