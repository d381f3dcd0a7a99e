"""Errors of a prediction request: what the caller sent does not fit the model, or the model cannot answer now."""

from modelyard.domain.errors.base import ModelyardError
from modelyard.domain.errors.platform import NotFound, Unavailable


class InferenceInvalid(ModelyardError):
    """The request cannot be given to the model; the details name the culprit."""

    code = "bad_request"
    title = "The inference request is not valid"


class BadEvent(InferenceInvalid):
    """The request comes as a CloudEvent that is none."""

    code = "bad_event"
    title = "The CloudEvent cannot be used"


class BadJson(InferenceInvalid):
    """Not strict JSON: syntax, duplicate keys, NaN, depth, digits."""

    code = "bad_json"
    title = "The body is not strict JSON"


class UnknownInput(InferenceInvalid):
    """An input name that the model does not have."""

    code = "unknown_input"
    title = "The model has no such input"


class MissingInput(InferenceInvalid):
    """An input that the model needs was not sent."""

    code = "missing_input"
    title = "An input is missing"


class UnknownOutput(InferenceInvalid):
    """An output name that the model does not have."""

    code = "unknown_output"
    title = "The model has no such output"


class BadShape(InferenceInvalid):
    """A shape that is not one: negative, fractional, overflowing."""

    code = "bad_shape"
    title = "The shape is not valid"


class ShapeMismatch(InferenceInvalid):
    """A valid shape, but not the model's: wrong width, rank or row count."""

    code = "shape_mismatch"
    title = "The shape does not fit the model"


class BadDatatype(InferenceInvalid):
    """A datatype that is unknown, or not the model's."""

    code = "bad_datatype"
    title = "The datatype does not fit the model"


class BadData(InferenceInvalid):
    """Values that cannot be used: ragged, out of range, NaN where the model cannot take it, wrong type."""

    code = "bad_data"
    title = "The data does not fit the model"


class UnknownCategory(BadData):
    """A value that the model was not trained on, and whose model refuses such."""

    code = "unknown_category"
    title = "The model does not know this category"


class SizeMismatch(InferenceInvalid):
    """The number of values or bytes is not what the shape says."""

    code = "size_mismatch"
    title = "The amount of data does not fit the shape"


class BadBinary(InferenceInvalid):
    """The binary tensor framing is broken."""

    code = "bad_binary"
    title = "The binary tensor data is not valid"


class ModelNotFound(NotFound):
    """No service of this name, or none that the caller may see."""

    code = "model_not_found"
    title = "No such model"


class VersionNotFound(NotFound):
    """The service has no live revision of this version."""

    code = "version_not_found"
    title = "No such model version"


class NotReady(Unavailable):
    """The model is known but not loaded yet."""

    code = "not_ready"
    title = "The model is not ready"


class Overloaded(Unavailable):
    """Queue or concurrency bound reached; the request was not run."""

    code = "overloaded"
    title = "The server is at its limit"


class DeadlineExceeded(ModelyardError):
    """The answer was not there by the deadline."""

    code = "deadline_exceeded"
    title = "The deadline passed"


class RunFailed(ModelyardError):
    """The model itself failed on valid input."""

    code = "run_failed"
    title = "The model failed to answer"


class UpstreamUnreachable(ModelyardError):
    """The upstream could not be asked: no connection, or it refuses ours."""

    code = "upstream_unreachable"
    title = "The upstream cannot be reached"


class UpstreamRefused(UpstreamUnreachable):
    """The upstream does not take the key that this platform has for it."""

    code = "upstream_refused"
    title = "The upstream does not take our key"


class UpstreamFailed(RunFailed):
    """The upstream failed, or answered something that cannot be relayed."""

    code = "upstream_failed"
    title = "The upstream failed to answer"


class UpstreamTimeout(DeadlineExceeded):
    """The upstream did not answer in the time that its service allows it."""

    code = "upstream_timeout"
    title = "The upstream took too long"


class UpstreamBusy(Unavailable):
    """The upstream takes no more requests just now; Retry-After is its own where it gave one."""

    code = "upstream_busy"
    title = "The upstream is at its limit"


class PoisonRequest(RunFailed):
    """The request ended the processes that ran it, twice; it is not tried again."""

    code = "poison_request"
    title = "The request ends the process that runs it"


class WorkersUnavailable(Unavailable):
    """The isolated workers cannot take the request now; it was not run, or did not come to an end."""

    code = "workers_unavailable"
    title = "The model's workers cannot answer at the moment"
