"""Errors of the HTTP edge: framing, limits and deadlines, before any meaning is read."""

from modelyard.domain.errors.base import ModelyardError


class EdgeError(ModelyardError):
    """A request that the edge does not let in."""

    code = "bad_request"
    title = "The request is not well formed"


class BadFraming(EdgeError):
    """Content-Length, Transfer-Encoding or chunks that break RFC 9112."""

    code = "bad_framing"
    title = "The message framing is not valid"


class BadHeader(EdgeError):
    """A header line that breaks RFC 9112."""

    code = "bad_header"
    title = "A header is not valid"


class BadHost(EdgeError):
    """Host is missing, repeated, or not one of ours."""

    code = "bad_host"
    title = "The Host is not served here"


class HeadersTooLarge(EdgeError):
    """Too many headers, or too long."""

    code = "headers_too_large"
    title = "The headers are too large"


class UriTooLong(EdgeError):
    """The request target is too long."""

    code = "uri_too_long"
    title = "The address is too long"


class BodyTooLarge(EdgeError):
    """The body is larger than this route allows."""

    code = "body_too_large"
    title = "The body is too large"


class BodyIncomplete(EdgeError):
    """The connection ended before the body did."""

    code = "body_incomplete"
    title = "The body is incomplete"


class ReceiptDeadline(EdgeError):
    """Head and body did not arrive in time."""

    code = "deadline"
    title = "The request took too long to arrive"


class MethodNotAllowed(EdgeError):
    """The path is there, the method is not."""

    code = "method_not_allowed"
    title = "The method is not allowed here"


class RouteNotFound(EdgeError):
    """No such path."""

    code = "route_not_found"
    title = "No such address"


class UnsupportedMediaType(EdgeError):
    """The content type is not one this route reads."""

    code = "unsupported_type"
    title = "The content type is not supported"


class UnsupportedEncoding(EdgeError):
    """The content or transfer coding is not one we read."""

    code = "unsupported_encoding"
    title = "The encoding is not supported"


class NotAcceptable(EdgeError):
    """None of the types that the caller accepts can be given."""

    code = "not_acceptable"
    title = "No acceptable answer type"
