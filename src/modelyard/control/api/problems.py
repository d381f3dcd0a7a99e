"""The one table from our errors to RFC 9457 problem documents on the control listener.

Every class of the error tree has its row; a test walks the tree. A class that a plugin adds takes its parent's row.
"""

import math
from collections.abc import Mapping
from typing import Any, Final

from modelyard.domain.errors import edge, inference, platform, uploads
from modelyard.domain.errors.base import ModelyardError
from modelyard.domain.errors.platform import RateLimited, Unavailable

TYPE_BASE: Final = "https://modelyard.io/errors/"
MEDIA_TYPE: Final = "application/problem+json"

STATUS: Final[Mapping[type[ModelyardError], int]] = {
    ModelyardError: 500,
    # the platform
    platform.NotFound: 404,
    platform.Conflict: 409,
    platform.PreconditionFailed: 412,
    platform.InvalidRequest: 422,
    platform.Unauthenticated: 401,
    platform.Forbidden: 403,
    platform.QuotaExceeded: 403,
    platform.RateLimited: 429,
    platform.RequestQuotaUsedUp: 429,
    platform.Unavailable: 503,
    platform.NotSupported: 501,
    platform.StorageFull: 507,
    platform.MissingExtra: 501,
    platform.StartRefused: 503,
    platform.ArtifactDamaged: 500,
    platform.BackupDamaged: 422,
    platform.ClaimLost: 409,
    platform.JobFailed: 422,
    platform.JobLimitReached: 422,
    # the edge
    edge.EdgeError: 400,
    edge.BadFraming: 400,
    edge.BadHeader: 400,
    edge.BadHost: 421,
    edge.HeadersTooLarge: 431,
    edge.UriTooLong: 414,
    edge.BodyTooLarge: 413,
    edge.BodyIncomplete: 400,
    edge.ReceiptDeadline: 408,
    edge.MethodNotAllowed: 405,
    edge.RouteNotFound: 404,
    edge.UnsupportedMediaType: 415,
    edge.UnsupportedEncoding: 415,
    edge.NotAcceptable: 406,
    # uploads
    uploads.UploadRefused: 422,
    uploads.MultipartInvalid: 400,
    uploads.TooManyFiles: 413,
    uploads.FileTooLarge: 413,
    uploads.NameInvalid: 400,
    uploads.PathUnsafe: 422,
    uploads.TypeNotAllowed: 415,
    uploads.ConfigInvalid: 422,
    uploads.ConfigUnsafe: 422,
    uploads.LabelsInvalid: 422,
    uploads.WeightsFormat: 422,
    uploads.WeightsUnsafe: 422,
    uploads.WeightsValues: 422,
    uploads.ArchiveInvalid: 422,
    uploads.ArchiveUnsafe: 422,
    uploads.ArchiveBomb: 422,
    uploads.BundleMismatch: 422,
    uploads.DigestMismatch: 422,
    uploads.SignatureInvalid: 422,
    uploads.UrlForbidden: 422,
    uploads.AuditTimeout: 422,
    uploads.ProbeFailed: 422,
    # predictions that pass through here (the console's try-out)
    inference.InferenceInvalid: 400,
    inference.BadEvent: 400,
    inference.BadJson: 400,
    inference.UnknownInput: 400,
    inference.MissingInput: 400,
    inference.UnknownOutput: 400,
    inference.BadShape: 400,
    inference.ShapeMismatch: 400,
    inference.BadDatatype: 400,
    inference.BadData: 400,
    inference.UnknownCategory: 400,
    inference.SizeMismatch: 400,
    inference.BadBinary: 400,
    inference.ModelNotFound: 404,
    inference.VersionNotFound: 404,
    inference.NotReady: 503,
    inference.Overloaded: 503,
    inference.DeadlineExceeded: 504,
    inference.RunFailed: 500,
    inference.UpstreamUnreachable: 502,
    inference.UpstreamRefused: 502,
    inference.UpstreamFailed: 502,
    inference.UpstreamTimeout: 504,
    inference.UpstreamBusy: 503,
    inference.PoisonRequest: 500,
    inference.WorkersUnavailable: 503,
}


def status_of(error: ModelyardError) -> int:
    """The status of this error's class, or of the nearest parent that has one."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def problem(error: ModelyardError, *, request_id: str) -> dict[str, Any]:
    """The document. Texts are the error's own: they were written for people and carry nothing internal."""
    document: dict[str, Any] = {
        "type": TYPE_BASE + error.code,
        "title": error.title,
        "status": status_of(error),
        "detail": error.detail,
        "code": error.code,
        "hint": error.hint,
        "request_id": request_id,
    }
    if error.details:
        document["details"] = [dict(detail) for detail in error.details]
    if error.example is not None:
        document["example"] = dict(error.example)
    return document


def headers_of(error: ModelyardError) -> dict[str, str]:
    """What goes with the status: how to authenticate, when to come back."""
    headers = {"cache-control": "no-store"}
    if isinstance(error, platform.Unauthenticated):
        headers["www-authenticate"] = 'Bearer realm="modelyard"'
    if isinstance(error, (RateLimited, Unavailable)):
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after_s)))
    return headers
