"""Which address may be served how: loopback is open for a laptop, anything else needs keys and TLS, or is refused."""

from dataclasses import dataclass

from modelyard.domain.errors.platform import StartRefused
from modelyard.foundation.listening import is_loopback


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposure:
    """How a listener meets the world. `auth` is open, required, or None for the default of the host."""

    host: str
    auth: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    trusted_proxies: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()

    @property
    def auth_required(self) -> bool:
        """Whether a key is asked for."""
        return self.auth == "required" or (self.auth is None and not is_loopback(self.host))

    @property
    def scheme(self) -> str:
        """The URL scheme that clients of this machine use."""
        return "https" if self.tls_cert else "http"


def require_safe(exposure: Exposure, *, command: str) -> None:
    """Refuse an address that others can reach without keys, or without TLS here or at a named proxy.

    Raises:
        StartRefused: with the command that would start.
    """
    if bool(exposure.tls_cert) != bool(exposure.tls_key):
        raise StartRefused(
            "--tls-cert and --tls-key go together", hint=f"{command} --tls-cert cert.pem --tls-key key.pem"
        )
    if is_loopback(exposure.host):
        return
    if exposure.auth == "open":
        raise StartRefused(
            f"{exposure.host} can be reached from other machines, so keys are required there",
            hint=f"{command} --host {exposure.host} --auth required --tls-cert cert.pem --tls-key key.pem",
        )
    if not exposure.tls_cert and not exposure.trusted_proxies:
        raise StartRefused(
            f"{exposure.host} can be reached from other machines, and keys would cross the network in clear text",
            hint=f"{command} --host {exposure.host} --tls-cert cert.pem --tls-key key.pem"
            "  (or --trusted-proxy CIDR when TLS ends at a proxy in front)",
        )
