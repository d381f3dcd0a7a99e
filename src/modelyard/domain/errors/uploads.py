"""Reasons for which an upload is refused. Each leaves nothing behind and says what to change."""

from modelyard.domain.errors.base import ModelyardError


class UploadRefused(ModelyardError):
    """Root of all refusals of a model upload."""

    code = "upload_refused"
    title = "The upload is refused"


class MultipartInvalid(UploadRefused):
    """The multipart body cannot be read."""

    code = "multipart_invalid"
    title = "The multipart body is not valid"


class TooManyFiles(UploadRefused):
    """More files than a bundle may have."""

    code = "too_many_files"
    title = "Too many files"


class FileTooLarge(UploadRefused):
    """A file is larger than its kind may be."""

    code = "file_too_large"
    title = "A file is too large"


class NameInvalid(UploadRefused):
    """A name is not `[A-Za-z0-9._-]{1,128}`, or two are alike."""

    code = "name_invalid"
    title = "A name is not valid"


class PathUnsafe(UploadRefused):
    """A name or reference points outside the bundle."""

    code = "path_unsafe"
    title = "A path leaves the bundle"


class TypeNotAllowed(UploadRefused):
    """The content is of no kind that is accepted, or contradicts its name."""

    code = "type_not_allowed"
    title = "This kind of file is not accepted"


class ConfigInvalid(UploadRefused):
    """The configuration breaks its schema."""

    code = "config_invalid"
    title = "The configuration is not valid"


class ConfigUnsafe(UploadRefused):
    """The configuration names code, URLs, templates or outside paths."""

    code = "config_unsafe"
    title = "The configuration names something it may not"


class LabelsInvalid(UploadRefused):
    """The label map is broken."""

    code = "labels_invalid"
    title = "The label map is not valid"


class WeightsFormat(UploadRefused):
    """The weights file breaks its own format."""

    code = "weights_format"
    title = "The weights file is damaged or not of its format"


class WeightsUnsafe(UploadRefused):
    """The weights can name code."""

    code = "weights_unsafe"
    title = "The weights can run code"


class WeightsValues(UploadRefused):
    """NaN or infinity in weights or in the probe's answer."""

    code = "weights_values"
    title = "The weights or the probe's answer are not finite"


class ArchiveInvalid(UploadRefused):
    """The archive is damaged, encrypted or has bytes around it."""

    code = "archive_invalid"
    title = "The archive is not valid"


class ArchiveUnsafe(UploadRefused):
    """A member is not a plain flat file."""

    code = "archive_unsafe"
    title = "The archive holds something unsafe"


class ArchiveBomb(UploadRefused):
    """It expands to more than its limits allow."""

    code = "archive_bomb"
    title = "The archive expands beyond its limits"


class BundleMismatch(UploadRefused):
    """Files of the bundle contradict each other, or one is missing or double."""

    code = "bundle_mismatch"
    title = "The files do not fit together"


class DigestMismatch(UploadRefused):
    """A digest that was given is not the file's."""

    code = "digest_mismatch"
    title = "A digest does not match"


class SignatureInvalid(UploadRefused):
    """The signature does not cover these files."""

    code = "signature_invalid"
    title = "The signature is not valid"


class UrlForbidden(UploadRefused):
    """An address that must not be fetched."""

    code = "url_forbidden"
    title = "This address must not be fetched"


class AuditTimeout(UploadRefused):
    """The audit did not finish within its limits of time or memory."""

    code = "audit_timeout"
    title = "The audit ran out of its limits"


class ProbeFailed(UploadRefused):
    """The model loads but does not answer the probe."""

    code = "probe_failed"
    title = "The model does not answer"
