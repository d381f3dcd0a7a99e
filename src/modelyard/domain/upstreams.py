"""Upstreams: a service whose answers come from a server elsewhere, relayed with our keys, limits and accounts.

An upstream's address is an operator's configuration, and still never free: http and https only, no credentials in it,
and no address of the network's own machinery (`forbidden_address`), so that nobody makes this machine ask what only it
can reach (OWASP, Server Side Request Forgery Prevention). What a URL resolves to is checked again for every connection.
"""

import hashlib
import ipaddress
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Final
from urllib.parse import urlsplit

from modelyard.domain.digests import PREFIX
from modelyard.domain.errors.base import quote
from modelyard.domain.errors.platform import InvalidRequest
from modelyard.domain.names import NAME_PATTERN
from modelyard.domain.tensors import TensorSpec

MOST_MS: Final = 3_600_000
MOST_MODEL_CHARS: Final = 200
MOST_URL_CHARS: Final = 2000
VERSION_DIGITS: Final = 12
_PATH: Final = re.compile(r"(?:/[A-Za-z0-9._~!$&'()*+,;=:@%-]+)*")
_HOST: Final = re.compile(r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?|[0-9a-f:.]+")
_HEADER: Final = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,63}")
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,31}|")
_MODEL: Final = re.compile(r"[\x21-\x7e]+")
_PORTS: Final = {"http": 80, "https": 443}
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
_SHARED: Final = ipaddress.ip_network("100.64.0.0/10")
_METADATA: Final = frozenset(map(ipaddress.ip_address, ("100.100.100.200", "fd00:ec2::254", "192.0.0.192")))
_OWN_HEADERS: Final = frozenset(
    {"connection", "content-length", "content-type", "host", "transfer-encoding", "accept", "accept-encoding"}
)
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class UpstreamProtocol(StrEnum):
    """What is spoken with the upstream, and with our callers."""

    OPENAI = "openai"
    V2 = "v2"


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamAuth:
    """How we show who we are: the sealed secret `secret` in `header`, behind `scheme` where that is not empty."""

    secret: str
    header: str = "Authorization"
    scheme: str = "Bearer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """A server elsewhere. `url` is its base: `/chat/completions` (openai) or `/v2/models/…` (v2) is added to it.

    `model` is the name it is asked by there, `version` a model version there (v2 only). `timeout_ms` bounds the
    wait for an answer's head and that for the rest of it, of a stream for each of its parts; `stream_timeout_ms` the
    whole stream.
    `check_s` asks for a sign of life that often, 0 never. `stream_usage` lets a stream tell its token counts. `inputs`
    and `outputs` say what a v2 server takes and gives that does not say so itself.
    """

    protocol: UpstreamProtocol
    url: str
    model: str
    version: str | None = None
    auth: UpstreamAuth | None = None
    timeout_ms: int = 60_000
    stream_timeout_ms: int = 600_000
    max_connections: int = 64
    check_s: float = 0.0
    stream_usage: bool = True
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamRules:
    """What holds for all upstreams.

    `allow_private` lets private addresses be asked; `ca_file` (PEM) vouches for certificates in place of the system's
    authorities; no larger answer than `max_answer_bytes` is passed on.
    """

    allow_private: bool = False
    ca_file: str | None = None
    max_answer_bytes: int = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a URL leads: `path` has no slash at its end."""

    is_tls: bool
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """The value of `Host`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = _PORTS["https" if self.is_tls else "http"]
        return host if self.port == usual else f"{host}:{self.port}"


def upstream_digest(upstream: Upstream) -> str:
    """The digest that a revision of an upstream has: of its whole specification."""
    text = json.dumps(asdict(upstream), sort_keys=True, separators=(",", ":"))
    return PREFIX + hashlib.sha256(text.encode()).hexdigest()


def upstream_version(upstream: Upstream) -> str:
    """The version that answers name: the first digits of the digest, for an upstream has no version of ours."""
    return upstream_digest(upstream).removeprefix(PREFIX)[:VERSION_DIGITS]


def origin_of(url: str) -> Origin:
    """Where `url` leads.

    Raises:
        InvalidRequest: it is not a plain http or https address.
    """
    hint = "write http://HOST[:PORT][/PATH] or https://…, without user, query or fragment"
    refused = InvalidRequest(f"{quote(url)} is not the address of an upstream", hint=hint)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise refused from error
    host = (parts.hostname or "").rstrip(".")
    path = parts.path.rstrip("/")
    plain = url.isascii() and url.isprintable() and "?" not in url and "#" not in url and "\\" not in url
    if not plain or len(url) > MOST_URL_CHARS or parts.scheme not in _PORTS or "@" in parts.netloc or port == 0:
        raise refused
    if not _HOST.fullmatch(host) or not _PATH.fullmatch(path) or ".." in path.split("/"):
        raise refused
    return Origin(is_tls=parts.scheme == "https", host=host, port=port or _PORTS[parts.scheme], path=path)


def forbidden_address(text: str, *, allow_private: bool) -> str | None:
    """Why this IP address is not connected to; None when it may be."""
    address = _unwrapped(ipaddress.ip_address(text.partition("%")[0]))
    if address.is_link_local or address in _METADATA:
        return "it is the address of the network's own services (link-local)"
    if address.is_unspecified or address.is_multicast or (address.is_reserved and not address.is_loopback):
        return "it is no address of a server"
    is_shared = isinstance(address, ipaddress.IPv4Address) and address in _SHARED
    if not allow_private and (is_shared or not address.is_global):
        return "it is a private address; see upstreams.allow_private, or deferred.webhook_private"
    return None


def problems_of(upstream: Upstream) -> Iterator[tuple[str, str, str]]:
    """What is wrong with a specification: the field's path below `upstream`, what is wrong, what would be right."""
    try:
        why = forbidden_host(origin_of(upstream.url).host, allow_private=True)
    except InvalidRequest as error:
        yield "url", error.detail, error.hint
    else:
        if why is not None:
            yield "url", f"{quote(upstream.url)} is never asked: {why}", "the address of a server"
    if not _MODEL.fullmatch(upstream.model) or len(upstream.model) > MOST_MODEL_CHARS:
        yield "model", f"{quote(upstream.model)} names no model", "the name that the upstream knows it by"
    for field in ("timeout_ms", "stream_timeout_ms"):
        if not 1 <= getattr(upstream, field) <= MOST_MS:
            yield field, f"{getattr(upstream, field)} is not possible", f"1 to {MOST_MS} milliseconds"
    if not 1 <= upstream.max_connections <= 1024:  # noqa: PLR2004  (said in the hint)
        yield "max_connections", f"{upstream.max_connections} is not possible", "1 to 1024"
    if upstream.check_s and not 1 <= upstream.check_s <= 3600:  # noqa: PLR2004  (said in the hint)
        yield "check_s", f"{upstream.check_s:g} is not possible", "0, or 1 to 3600 seconds"
    yield from _problems_of_auth(upstream.auth)
    yield from _problems_by_protocol(upstream)


def _problems_of_auth(auth: UpstreamAuth | None) -> Iterator[tuple[str, str, str]]:
    if auth is None:
        return
    if not re.fullmatch(NAME_PATTERN, auth.secret):
        yield "auth.secret", f"{quote(auth.secret)} names no secret", "`modelyard secrets list` shows their names"
    if not _HEADER.fullmatch(auth.header) or auth.header.lower() in _OWN_HEADERS:
        yield "auth.header", f"{quote(auth.header)} cannot carry a key", "Authorization, X-Api-Key, …"
    if not _SCHEME.fullmatch(auth.scheme):
        yield "auth.scheme", f"{quote(auth.scheme)} is not an authentication scheme", 'Bearer, or "" for none'


def _problems_by_protocol(upstream: Upstream) -> Iterator[tuple[str, str, str]]:
    if upstream.protocol is UpstreamProtocol.OPENAI:
        for field in ("version", "inputs", "outputs"):
            if getattr(upstream, field):
                yield field, "the protocol openai has none", "leave it out"
    elif bool(upstream.inputs) != bool(upstream.outputs):
        yield "inputs", "inputs and outputs belong together", "give both, or leave both to the upstream's metadata"
    elif not re.fullmatch(r"[A-Za-z0-9._-]+", upstream.model):
        yield "model", f"{quote(upstream.model)} names no v2 model", "letters, digits, . _ -"


def forbidden_host(host: str, *, allow_private: bool) -> str | None:
    """Why an address that stands in the URL itself is not connected to; names are judged when they resolve."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return None
    return forbidden_address(host, allow_private=allow_private)


def _unwrapped(address: Address) -> Address:
    """The address behind an IPv4-mapped, 6to4 or NAT64 one: that is where packets go."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    inner = address.ipv4_mapped or address.sixtofour
    if inner is None and address in _NAT64:
        inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return inner or address
