"""TLS for a listener, with certificates that may be replaced while it runs.

The context stays; a new certificate is tried in a context of its own first, so a half-written file never takes a
listener down. Connections that are open keep the certificate they began with.
"""

import logging
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from modelyard.domain.errors.platform import StartRefused

_LOG: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """Where the certificate chain and its key are (PEM)."""

    certificate: Path
    key: Path


class ReloadingTls:
    """A server context, TLS 1.2 or later, that follows its files."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        try:
            self.context = _context(files)
            self._seen = self._stamps()
        except (OSError, ssl.SSLError) as error:
            raise StartRefused(
                f"the TLS certificate or key cannot be used: {error}",
                hint="both files have to be PEM, readable, and belong together",
            ) from error

    def reload_if_changed(self) -> bool:
        """Take the files up again when they have changed; what cannot be used is logged and left for later."""
        try:
            stamps = self._stamps()
            if stamps == self._seen:
                return False
            _context(self._files)
            self.context.load_cert_chain(self._files.certificate, self._files.key)
        except (OSError, ssl.SSLError) as error:
            _LOG.warning("the new TLS certificate cannot be used, the old one stays: %s", error)
            return False
        self._seen = stamps
        _LOG.info("TLS certificate taken up anew")
        return True

    def _stamps(self) -> tuple[tuple[int, int, int], ...]:
        found = [path.stat() for path in (self._files.certificate, self._files.key)]
        return tuple((each.st_mtime_ns, each.st_size, each.st_ino) for each in found)


def _context(files: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(files.certificate, files.key)
    return context
