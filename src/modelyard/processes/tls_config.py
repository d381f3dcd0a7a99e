"""TLS as the configuration files of supervised programs name it: one form for every listener."""

from pathlib import Path

import msgspec

from modelyard.foundation.http import TlsFiles


class TlsConfig(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Certificate chain and key, PEM files."""

    certificate: str
    key: str


def tls_files(config: TlsConfig | None) -> TlsFiles | None:
    """What a listener takes; None is plain text."""
    return None if config is None else TlsFiles(certificate=Path(config.certificate), key=Path(config.key))
