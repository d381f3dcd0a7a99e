"""Errors of the platform: things not there, not allowed, in the way, or not yet possible."""

from typing import NamedTuple

from modelyard.domain.errors.base import ModelyardError


class NotFound(ModelyardError):
    """What was asked for is not there, or the caller may not know that it is."""

    code = "not_found"
    title = "Not found"


class Conflict(ModelyardError):
    """The change does not fit the present state."""

    code = "conflict"
    title = "The change conflicts with the present state"


class PreconditionFailed(Conflict):
    """`If-Match` names a state that is no longer the present one."""

    code = "precondition_failed"
    title = "The resource changed since it was read"


class ClaimLost(Conflict):
    """A worker writes under a claim on a job that is over: another took the job, or it was cancelled."""

    code = "claim_lost"
    title = "The claim on the job is over"


class InvalidRequest(ModelyardError):
    """A value of a request is not one that can be used."""

    code = "invalid_request"
    title = "The request is not valid"


class Unauthenticated(ModelyardError):
    """No key, or one that is wrong, expired or revoked; which of these is not said."""

    code = "auth_required"
    title = "A valid key is needed"


class Forbidden(ModelyardError):
    """The key is good, but lacks the scope."""

    code = "forbidden"
    title = "The key does not allow this"


class QuotaExceeded(Forbidden):
    """The project's quota would be exceeded."""

    code = "quota_exceeded"
    title = "The quota is used up"


class RatePolicy(NamedTuple):
    """A limit as the RateLimit fields of HTTP name it: `quota` requests in `window_s` seconds."""

    name: str
    quota: int
    window_s: int


class RateLimited(ModelyardError):
    """More requests than allowed; `retry_after_s` says when to come back, `policy` which limit it was."""

    code = "rate_limited"
    title = "Too many requests"

    def __init__(self, detail: str, *, retry_after_s: float, hint: str = "", policy: RatePolicy | None = None) -> None:
        super().__init__(detail, hint=hint)
        self.retry_after_s = retry_after_s
        self.policy = policy


class RequestQuotaUsedUp(RateLimited):
    """A key or a project has had all predictions of its day or month."""

    code = "request_quota_used_up"
    title = "The quota of predictions is used up"


class Unavailable(ModelyardError):
    """Cannot answer now; later it may."""

    code = "unavailable"
    title = "Not available at the moment"

    def __init__(self, detail: str, *, hint: str = "", retry_after_s: float = 1.0) -> None:
        super().__init__(detail, hint=hint)
        self.retry_after_s = retry_after_s


class NotSupported(ModelyardError):
    """Understood, and not offered."""

    code = "not_supported"
    title = "Not supported"


class StorageFull(ModelyardError):
    """The disk has no room for it."""

    code = "storage_full"
    title = "The storage is full"


class MissingExtra(ModelyardError):
    """An optional library is absent; the text names the command that installs it."""

    code = "missing_extra"
    title = "An optional part is not installed"


class StartRefused(ModelyardError):
    """A process will not start like this: port taken, data directory in use, unsafe address, newer data."""

    code = "start_refused"
    title = "Modelyard does not start like this"


class JobFailed(ModelyardError):
    """The work of a job ended with an error of its own; its log has the rest."""

    code = "job_failed"
    title = "The job failed"


class JobLimitReached(JobFailed):
    """A job took more memory, time or disk than it may."""

    code = "job_limit_reached"
    title = "The job took more than it may"


class BackupDamaged(ModelyardError):
    """A backup that is not whole, or not one at all; nothing of it was put back."""

    code = "backup_damaged"
    title = "The backup cannot be used"


class ArtifactDamaged(ModelyardError):
    """Stored bytes are no longer those that were stored; they are not given out."""

    code = "artifact_damaged"
    title = "Stored bytes are damaged"
