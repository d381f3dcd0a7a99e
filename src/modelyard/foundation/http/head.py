r"""Read the head of a request, strictly: RFC 9112 sections 2 to 6, with every leniency left out.

One regular expression decides on the common path: what it matches has CRLF line ends only, no folded line, no space
before a colon, no control character. What it does not match is looked at line by line, to say what is wrong. A head
that has come in part is judged by the same rules in the same order, so a request gets the same answer however its
bytes were split.

The lenient parsers measured for this design accepted bare LF, obs-fold, lists of lengths, or a length beside a transfer
coding; here each of them is a refusal, because the next hop may read them differently.
"""

import re
from dataclasses import dataclass
from typing import Final

from modelyard.domain.errors.edge import (
    BadHost,
    BodyTooLarge,
    EdgeError,
    HeadersTooLarge,
    MethodNotAllowed,
    UnsupportedEncoding,
    UriTooLong,
)
from modelyard.foundation.http.hosts import HostPolicy, TrustedProxies
from modelyard.foundation.http.limits import EdgeLimits, RouteRule, RouteRules
from modelyard.foundation.http.refusal import Refused, bad_framing, bad_header, bad_request

_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
_TARGET: Final = rb"[!$-;=?-\[\]_a-z~]"
FIELD_LINE: Final = _TOKEN + rb"++:[\t\x20-\x7e\x80-\xff]*+\r\n"
_HEAD: Final = re.compile(
    rb"(" + _TOKEN + rb"{1,32}+) (" + _TARGET + rb"++) HTTP/1\.([01])\r\n((?:" + FIELD_LINE + rb")*+)\r\n"
)
_FIELD: Final = re.compile(rb"([^:]++):[ \t]*+([^\r]*+)\r\n")
_FIELDS: Final = re.compile(rb"(?:" + FIELD_LINE + rb")*+")
_ILLEGAL: Final = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|(?<!\r)\n|\r(?!\n|\Z)")
_METHOD_START: Final = re.compile(_TOKEN + rb"{1,32}+(?: |\Z)")
_REQUEST_LINE: Final = re.compile(rb"(" + _TOKEN + rb"{1,32}+) (" + _TARGET + rb"++) HTTP/(\d)\.(\d)\r\n")
_LENGTH: Final = re.compile(rb"[0-9]{1,19}")
_BAD_PERCENT: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})|%00")
_ABSOLUTE: Final = re.compile(rb"https?://([^/?]*)(.*)", re.IGNORECASE)
REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._:\-]{1,64}")

METHODS: Final = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"})
_ONCE: Final = frozenset(
    {
        b"authorization", b"content-encoding", b"content-length", b"content-type", b"expect", b"host",
        b"inference-header-content-length", b"transfer-encoding",
    }
)  # fmt: skip
_FORWARDED: Final = frozenset(
    {b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-port", b"x-forwarded-proto", b"x-real-ip"}
)
WATCHED: Final = _FORWARDED | {b"connection", b"content-encoding", b"expect", b"transfer-encoding"}
"""Headers that change how a request is received or where it seems to come from."""
_LINE_RULE: Final = "lines end with CRLF and hold no control characters"
_LINE_EXTRA: Final = 64
CHUNKED: Final = -1

Fields = dict[bytes, bytes]


@dataclass(slots=True, eq=False)
class Head:
    """The head of a request; the same bytes on the same connection give the same head, so it may be kept."""

    raw: bytes
    method: str
    path: str
    query: str
    headers: list[tuple[bytes, bytes]]
    fields: Fields
    length: int
    """Bytes of body that follow, or `CHUNKED`."""
    rule: RouteRule
    http10: bool
    keep_alive: bool
    expects_continue: bool
    gzip: bool
    scheme: str
    request_id: bytes | None
    plain: bool
    """Whether an answer needs no thought: HTTP/1.1, kept alive, with a body, received whole."""
    route: object = None
    """The `turns.Route` on which requests with this head go together with others; None when they do not."""


def unread_head(method: str) -> Head:
    """Stands for a head that was refused."""
    return Head(
        raw=b"", method=method, path="", query="", headers=[], fields={}, length=0, rule=RouteRule(max_body_bytes=0),
        http10=False, keep_alive=False, expects_continue=False, gzip=False, scheme="http", request_id=None,
        plain=False,
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadRules:
    """What a head is judged by on one connection."""

    limits: EdgeLimits
    hosts: HostPolicy
    proxies: TrustedProxies
    routes: RouteRules | None
    default_rule: RouteRule
    peer: str
    scheme: str


def read_head(raw: bytes, rules: HeadRules) -> Head:
    """The head whose bytes, with the empty line at their end, are `raw`.

    Raises:
        Refused: with the status and the error to answer; the connection is not to be used further.
    """
    match = _HEAD.fullmatch(raw)
    if match is None or len(raw) > rules.limits.max_header_bytes or len(match[2]) > rules.limits.max_target_bytes:
        check_partial_head(raw, rules.limits, complete=True)
        raise _line_error(raw, _FIELDS.match(raw, raw.index(b"\n") + 1), "a header line is not valid")
    method, target, minor, block = match.groups()
    headers = [(name.lower(), value.rstrip(b" \t")) for name, value in _FIELD.findall(block)]
    fields = _fields(headers, rules.limits)
    if method not in METHODS:
        raise _unknown_method(method)
    authority, path = _split_target(method, target)
    _check_host(authority, fields, rules.hosts, http10=minor == b"0")
    path, _, query = path.partition(b"?")
    headers = _kept(headers, fields, trusted=rules.proxies.trusts(rules.peer))
    return _assemble(raw, (method.decode(), path.decode(), query.decode()), headers, fields, (minor == b"0", rules))


def check_partial_head(raw: bytes, limits: EdgeLimits, *, complete: bool = False) -> None:
    """Refuse what has come of a head as soon as it can be known to be wrong.

    Judged in the order in which the bytes came: request line, then header lines.
    """
    line_limit = limits.max_target_bytes + _LINE_EXTRA
    newline = raw.find(b"\n")
    line = raw[: newline + 1] if 0 <= newline < line_limit else raw[:line_limit]
    if not _METHOD_START.match(line):
        raise bad_request("this is not an HTTP/1.1 request")
    if _ILLEGAL.search(line):
        raise bad_header(_LINE_RULE)
    if newline >= 0:
        _check_request_line(raw[: newline + 1], limits)
    elif len(raw) > line_limit:
        raise Refused(414, UriTooLong(f"the address is longer than {limits.max_target_bytes} bytes"))
    illegal = _ILLEGAL.search(raw[: limits.max_header_bytes], newline + 1) if newline >= 0 else None
    if illegal is not None:
        raise _line_error(raw, illegal, _LINE_RULE)
    if len(raw) > limits.max_header_bytes:
        raise Refused(431, HeadersTooLarge(f"the header section is larger than {limits.max_header_bytes} bytes"))
    if complete and not _REQUEST_LINE.match(raw):
        raise bad_request("the request line is not valid")


def _line_error(raw: bytes, near: re.Match[bytes] | None, text: str) -> Refused:
    """The error of the header line in which `near` ends: one that would frame the body is a framing error."""
    end = near.end() if near is not None else 0
    start = raw.rfind(b"\n", 0, max(end - 1, 0)) + 1 if near is None or raw[end - 1 : end] != b"\n" else end
    if raw[start : start + 20].lower().lstrip().startswith((b"content-length", b"transfer-encoding")):
        return bad_framing(text)
    return bad_header(text)


def _check_request_line(line: bytes, limits: EdgeLimits) -> None:
    target = line.split(b" ", 2)[1] if line.count(b" ") >= 1 else b""
    if len(target) > limits.max_target_bytes or len(line) > limits.max_target_bytes + _LINE_EXTRA:
        raise Refused(414, UriTooLong(f"the address is longer than {limits.max_target_bytes} bytes"))
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        raise bad_request("the request line is not valid")
    if match[3] != b"1" or match[4] not in {b"0", b"1"}:
        raise Refused(505, EdgeError("this server speaks HTTP/1.1"))


def _fields(headers: list[tuple[bytes, bytes]], limits: EdgeLimits) -> Fields:
    if len(headers) > limits.max_headers:
        raise Refused(431, HeadersTooLarge(f"there are more than {limits.max_headers} headers"))
    fields = dict(headers)
    if len(fields) == len(headers):
        return fields
    fields = {}
    for name, value in headers:
        if name not in fields:
            fields[name] = value
        elif name in {b"content-length", b"transfer-encoding"}:
            raise bad_framing("Content-Length and Transfer-Encoding may each be given once")
        elif name == b"host":
            raise Refused(400, BadHost("the Host header may be given once"))
        elif name in _ONCE:
            raise bad_header(f"{name.decode()} may be given once")
        else:
            fields[name] += b", " + value
    return fields


def _unknown_method(method: bytes) -> Refused:
    status = 405 if method in {b"TRACE", b"CONNECT"} else 501
    return Refused(status, MethodNotAllowed("this method is not served here"))


def _split_target(method: bytes, target: bytes) -> tuple[bytes | None, bytes]:
    """Authority (absolute form only) and path with query (RFC 9112 section 3.2)."""
    authority: bytes | None = None
    path = target
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is not None:
        authority, path = absolute.groups()
        path = path if path.startswith(b"/") else b"/" + path
    elif target == b"*" and method == b"OPTIONS":
        return None, target
    if not path.startswith(b"/"):
        raise bad_request("the address has to begin with a slash")
    if b"%" in path and _BAD_PERCENT.search(path):
        raise bad_request("the address holds a percent sign that encodes nothing")
    return authority, path


def _check_host(authority: bytes | None, fields: Fields, hosts: HostPolicy, *, http10: bool) -> None:
    """RFC 9112 section 3.2: exactly one Host; with an absolute target, the same one."""
    host = fields.get(b"host")
    if host is None:
        if not http10:
            raise Refused(400, BadHost("the Host header is missing"))
    else:
        hosts.check(host)
    if authority is not None:
        if host is not None and authority.lower() != host.lower():
            raise Refused(400, BadHost("the address names another host than the Host header"))
        hosts.check(authority)


def _kept(headers: list[tuple[bytes, bytes]], fields: Fields, *, trusted: bool) -> list[tuple[bytes, bytes]]:
    """Headers without those that only a proxy of ours, or nobody, may send.

    Names with an underscore go too: some gateways and CGI-like layers read them as if they had a hyphen.
    """
    dropped = [
        name
        for name in fields
        if b"_" in name or name.startswith(b"x-internal-") or (name in _FORWARDED and not trusted)
    ]
    if not dropped:
        return headers
    for name in dropped:
        del fields[name]
    return [pair for pair in headers if pair[0] in fields]


def _assemble(
    raw: bytes,
    target: tuple[str, str, str],
    headers: list[tuple[bytes, bytes]],
    fields: Fields,
    circumstances: tuple[bool, HeadRules],
) -> Head:
    http10, rules = circumstances
    method, path, query = target
    rule = rules.default_rule
    if rules.routes is not None:
        rule = rules.routes(method, path) or rule
    length = _body_length(fields, rule, http10=http10)
    keep_alive = _keeps_alive(fields, http10=http10)
    request_id = fields.get(b"x-request-id")
    if request_id is not None and not REQUEST_ID.fullmatch(request_id):
        request_id = None
    scheme = rules.scheme
    if fields.get(b"x-forwarded-proto") in {b"http", b"https"}:  # only a trusted proxy's is still there
        scheme = fields[b"x-forwarded-proto"].decode()
    return Head(
        raw=raw, method=method, path=path, query=query, headers=headers, fields=fields, length=length, rule=rule,
        http10=http10, keep_alive=keep_alive, expects_continue=_expects_continue(fields, http10=http10),
        gzip=_is_gzip(fields, rule), scheme=scheme,
        request_id=request_id, plain=keep_alive and not http10 and method != "HEAD" and not rule.streamed,
    )  # fmt: skip


def _body_length(fields: Fields, rule: RouteRule, *, http10: bool) -> int:
    """RFC 9112 section 6.3, without its leniencies."""
    size = fields.get(b"content-length")
    coding = fields.get(b"transfer-encoding")
    if coding is not None:
        if size is not None:
            raise bad_framing("Content-Length and Transfer-Encoding exclude each other")
        if http10:
            raise bad_framing("HTTP/1.0 has no Transfer-Encoding")
        if coding.lower() != b"chunked":
            raise bad_framing("the only transfer coding served here is chunked")
        return CHUNKED
    if size is None:
        return 0
    if not _LENGTH.fullmatch(size):
        raise bad_framing("Content-Length is not a plain decimal number")
    length = int(size)
    if length > rule.max_body_bytes:
        raise Refused(413, BodyTooLarge(f"the body may have {rule.max_body_bytes} bytes"))
    return length


def _keeps_alive(fields: Fields, *, http10: bool) -> bool:
    connection = fields.get(b"connection")
    if connection is None:
        return not http10
    options = {option.strip() for option in connection.lower().split(b",")}
    return b"close" not in options and (not http10 or b"keep-alive" in options)


def _expects_continue(fields: Fields, *, http10: bool) -> bool:
    expected = fields.get(b"expect")
    if expected is None or http10:
        return False
    if expected.lower() != b"100-continue":
        raise bad_request("the only expectation served here is 100-continue", status=417)
    return True


def _is_gzip(fields: Fields, rule: RouteRule) -> bool:
    coding = fields.get(b"content-encoding", b"").lower()
    if coding in {b"", b"identity"}:
        return False
    if coding not in {b"gzip", b"x-gzip"} or rule.streamed:
        raise Refused(415, UnsupportedEncoding("this content coding is not read here", hint="send the body as it is"))
    return True


def read_trailers(block: bytes, limits: EdgeLimits) -> None:
    """Check the trailer lines in `block`; their values are dropped (RFC 9110 section 6.5.1)."""
    if not _FIELDS.fullmatch(block) or block.count(b"\n") > limits.max_headers:
        raise bad_framing("the trailer section is not valid")
