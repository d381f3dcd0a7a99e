"""From an origin to a connected socket: resolve, judge every address, connect to that very one."""

import asyncio
import functools
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TypeVar

from modelyard.domain.errors.inference import UpstreamUnreachable
from modelyard.domain.upstreams import Origin, forbidden_address

P = TypeVar("P", bound=asyncio.Protocol)
_MOST_ADDRESSES: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboundRules:
    """Where connections may go, and who vouches for a certificate: the system's authorities, or those in `ca_file`."""

    allow_private: bool = False
    ca_file: str | None = None
    connect_s: float = 5.0


async def resolve(origin: Origin, *, allow_private: bool) -> list[str]:
    """The addresses of `origin` that may be connected to, in the resolver's order.

    Raises:
        UpstreamUnreachable: the name is not known, or none of its addresses is allowed; says which and why.
    """
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise UpstreamUnreachable(f"the name {origin.host} cannot be resolved", hint="check upstream.url") from error
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    reasons = {address: forbidden_address(address, allow_private=allow_private) for address in addresses}
    allowed = [address for address in addresses if reasons[address] is None]
    if not allowed:
        first = addresses[0] if addresses else "nothing"
        raise UpstreamUnreachable(
            f"{origin.host} is {first}, and that is not connected to: {reasons.get(first)}",
            hint="name another address, or see the setting upstreams.allow_private",
        )
    return allowed[:_MOST_ADDRESSES]


async def connect(origin: Origin, rules: OutboundRules, make: Callable[[], P]) -> P:
    """A connection to `origin`, driven by what `make` gives.

    Raises:
        UpstreamUnreachable: nothing answers there, or it cannot prove who it is.
    """
    loop = asyncio.get_running_loop()
    context = _context_of(rules) if origin.is_tls else None
    reason = "nothing answers"
    for address in await resolve(origin, allow_private=rules.allow_private):
        try:
            async with asyncio.timeout(rules.connect_s):
                _, protocol = await loop.create_connection(
                    make, address, origin.port, ssl=context, server_hostname=origin.host if context else None
                )
        except ssl.SSLCertVerificationError as error:
            reason = f"its certificate is not accepted: {error.verify_message or error.reason}"
        except (OSError, TimeoutError) as error:
            reason = _why(error)
        else:
            return protocol
    raise UpstreamUnreachable(f"no connection to {origin.authority}: {reason}", hint="check that it runs and answers")


@functools.lru_cache(maxsize=8)
def tls_context(ca_file: str | None) -> ssl.SSLContext:
    """A client's TLS settings: 1.2 or newer, certificate and name checked."""
    context = ssl.create_default_context(cafile=ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    with suppress(NotImplementedError):
        context.set_alpn_protocols(["http/1.1"])
    return context


def _context_of(rules: OutboundRules) -> ssl.SSLContext:
    try:
        return tls_context(rules.ca_file)
    except OSError as error:
        raise UpstreamUnreachable(
            "the file of certificate authorities cannot be read", hint="see the setting upstreams.ca_file"
        ) from error


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "nothing answers in time"
    if isinstance(error, ConnectionRefusedError):
        return "it refuses connections"
    return getattr(error, "strerror", None) or type(error).__name__
