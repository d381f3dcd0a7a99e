"""The status codes of gRPC (the gRPC core documentation, "Status codes and their use in gRPC")."""

from enum import IntEnum
from typing import Final

from modelyard.foundation.http.edge import Edge


class Status(IntEnum):
    """How a call ended."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


METHOD: Final = "GRPC"
"""What the access log has as the method of a call."""
_LOGGED: Final = {
    Status.OK: 200,
    Status.CANCELLED: 499,
    Status.DEADLINE_EXCEEDED: 408,
    Status.RESOURCE_EXHAUSTED: 413,
    Status.UNIMPLEMENTED: 501,
    Status.UNAVAILABLE: 503,
    Status.UNAUTHENTICATED: 401,
}


def log_refused(edge: Edge, path: bytes, status: int, *, http_status: int = 0) -> None:
    """Write a call that no handler ever saw into the access log, with the status that HTTP would have."""
    if edge.access_log is not None:
        logged = http_status or _LOGGED.get(Status(status), 400)
        edge.access_log(METHOD, path.decode("latin-1"), logged, 0.0, 0)
