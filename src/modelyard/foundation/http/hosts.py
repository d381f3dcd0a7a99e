"""Which names a listener answers to, and whose word about the client it takes.

The Host list is what stops DNS rebinding: a page of another site can make a browser reach us, but not name us.
"""

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from modelyard.domain.errors.edge import BadHost
from modelyard.foundation.http.refusal import Refused

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_HOST: Final = re.compile(rb"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9](?:[A-Za-z0-9._-]{0,253}))(?::([0-9]{1,5}))?")
_MAX_PORT: Final = 65535
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})


@dataclass(frozen=True, slots=True)
class HostPolicy:
    """The names that `Host` may carry.

    A name without a port stands for that name with no port or with a port of the listener; `name:port` allows exactly
    that port too (what a proxy shows to the world). `names=None` allows every name, which only a Unix socket or a
    listener behind keys on an open network may do; the form of the header is checked all the same.
    """

    names: frozenset[str] | None = _LOOPBACK
    ports: frozenset[int] = field(default_factory=frozenset)

    @staticmethod
    def of(names: Iterable[str]) -> "HostPolicy":
        """A policy of these names, with the loopback names always in."""
        return HostPolicy(frozenset(_written(name) for name in names) | _LOOPBACK)

    def at(self, *ports: int) -> "HostPolicy":
        """This policy on a listener that is bound to `ports`."""
        return HostPolicy(self.names, self.ports | frozenset(ports))

    def check(self, value: bytes) -> None:
        """Let `value` of a Host header (or the authority of an absolute target) pass.

        Raises:
            Refused: 400 when it is no host at all, 421 when it is not one of ours (RFC 9110 section 7.4).
        """
        match = _HOST.fullmatch(value)
        if match is None or (match[2] is not None and not 0 < int(match[2]) <= _MAX_PORT):
            raise Refused(400, BadHost("the Host header is not a host name with an optional port"))
        if self.names is None:
            return
        name = match[1].decode("ascii").lower()
        port = match[2]
        if name in self.names and (port is None or int(port) in self.ports):
            return
        if port is not None and f"{name}:{int(port)}" in self.names:
            return
        raise Refused(
            421, BadHost("this server does not answer to that Host", hint="add the name to the listener's hosts")
        )


def _written(name: str) -> str:
    """`name` as it stands in a Host header."""
    name = name.strip().lower()
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name
    return f"[{address}]" if isinstance(address, ipaddress.IPv6Address) else name


@dataclass(frozen=True, slots=True)
class TrustedProxies:
    """The peers whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed; everybody else's are dropped."""

    networks: tuple[Network, ...] = ()
    unix: bool = False

    @staticmethod
    def of(networks: Iterable[str], *, unix: bool = False) -> "TrustedProxies":
        """Trust these CIDRs; `ValueError` on one that is none."""
        return TrustedProxies(tuple(ipaddress.ip_network(text) for text in networks), unix)

    def trusts(self, address: str) -> bool:
        """Whether `address` (empty: a Unix socket) is a proxy of ours."""
        if not address:
            return self.unix
        try:
            parsed = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
            parsed = parsed.ipv4_mapped
        return any(parsed.version == network.version and parsed in network for network in self.networks)

    def client(self, peer: str, fields: Mapping[bytes, bytes]) -> str:
        """The nearest address on the way that is not a proxy of ours; `peer` when the header does not say."""
        claimed = fields.get(b"x-forwarded-for")
        if claimed is None or not self.trusts(peer):
            return peer
        nearest = peer
        for hop in reversed(claimed.decode("latin-1").split(",")):
            try:
                nearest = str(ipaddress.ip_address(hop.strip()))
            except ValueError:
                break
            if not self.trusts(nearest):
                break
        return nearest
