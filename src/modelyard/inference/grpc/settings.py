"""What a gRPC listener is told."""

from collections.abc import Callable
from dataclasses import dataclass

from modelyard.foundation.http import TlsFiles

LogLine = Callable[[str, str, int, float, int], None]
"""(method, path, status, seconds, bytes sent), as the edge's access log; the status is the one that HTTP would have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpcSettings:
    """`max_message_bytes` bounds a request message, as sent and as inflated; a larger one is RESOURCE_EXHAUSTED."""

    max_message_bytes: int = 64 << 20
    tls: TlsFiles | None = None
    access_log: LogLine | None = None
