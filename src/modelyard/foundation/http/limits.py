"""What the edge allows: sizes, counts and times, each with its unit, and the rule of one route."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeLimits:
    """The limits of one listener. Sizes are bytes, times are seconds.

    Times are kept by one coarse clock for the whole listener, so each may come true up to a tenth of itself (at most
    0.25 s) early, never late by more than that.
    """

    max_header_bytes: int = 32768
    """Request line and header section together; more is answered 431."""
    max_headers: int = 100
    """Header lines; more is answered 431."""
    max_target_bytes: int = 8192
    """Request target (the address); more is answered 414."""
    max_body_bytes: int = 64 * MIB
    """Body of a route that has no rule of its own, as sent and as inflated; more is answered 413."""
    max_chunk_line_bytes: int = 256
    """One chunk-size line with its extensions (RFC 9112 section 7.1.1)."""
    max_trailer_bytes: int = 8192
    """The trailer section after the last chunk; trailers are checked and dropped."""
    max_inflate_ratio: int = 200
    """How many times its size a gzip body may grow, beyond the first MiB."""
    receipt_deadline_s: float = 10.0
    """From the first byte of a request (or the connection) to its last byte; then 408 and close."""
    idle_s: float = 75.0
    """How long a kept-alive connection may stay silent between requests."""
    write_deadline_s: float = 30.0
    """How long a client may leave an answer untaken before the connection is dropped."""
    min_write_rate_bytes_s: int = 1024
    """The least rate at which a client has to take an answer that waits for it."""
    linger_s: float = 0.7
    """After a refusal: how long input is still drained, so that the answer is not lost to a reset."""
    half_close_grace_s: float = 0.5
    """How long a client that closed its sending side may still wait for what it asked."""
    drain_s: float = 30.0
    """How long `Listener.close` waits for what is in flight."""
    drain_idle_s: float = 1.0
    """How long a silent connection may stay when the listener drains."""
    max_pipelined: int = 64
    """Unanswered requests of one connection; the rest waits unread."""
    max_requests: int = 1_000_000
    """Requests of one connection before it is asked to reconnect."""
    max_connections: int = 10_000
    """Open connections of one listener; more are answered 503 and closed."""
    max_buffered_bytes: int = 1024 * MIB
    """Bodies being received by all connections of the listener together; more is answered 503."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteRule:
    """How the body of one route is received.

    A streamed route gets its request as soon as the head is there and reads the body itself (`Request.stream`): the
    receipt deadline then covers the head only, and the body has to keep `min_rate_bytes_s` over each `rate_window_s`
    in which we did not hold the client back ourselves.
    """

    max_body_bytes: int
    streamed: bool = False
    min_rate_bytes_s: int = 1024
    rate_window_s: float = 10.0


RouteRules = Callable[[str, str], RouteRule | None]
"""(method, raw path) → the rule, or None for the listener's own limit. Pure and quick: the edge keeps its answers."""
