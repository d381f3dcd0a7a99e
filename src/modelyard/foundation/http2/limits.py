"""What a listener for gRPC allows, besides what it shares with the HTTP/1.1 edge (`EdgeLimits`)."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Http2Limits:
    """The limits of one HTTP/2 connection. Sizes are bytes.

    Of `EdgeLimits` these hold here too: `max_body_bytes` (the message, as sent and as inflated), `max_inflate_ratio`,
    `receipt_deadline_s` (preface, frame, header block, message), `idle_s`, `write_deadline_s`,
    `min_write_rate_bytes_s`, `linger_s`, `drain_s`, `drain_idle_s`, `max_connections`, `max_buffered_bytes`.
    """

    max_streams: int = 256
    """Calls under way at once, streams included; more are refused with REFUSED_STREAM."""
    max_frame_bytes: int = 65536
    """Payload of one frame, 16,384 or more."""
    max_header_block_bytes: int = 32768
    """A header block with its CONTINUATION frames, as sent; more ends the connection."""
    max_continuations: int = 8
    """CONTINUATION frames of one block (CVE-2024-27316); more ends the connection."""
    max_metadata_bytes: int = 16384
    """Metadata as RFC 9113 section 6.5.2 counts it (32 a field on top); more is RESOURCE_EXHAUSTED."""
    max_metadata_fields: int = 100
    """Metadata fields; more is RESOURCE_EXHAUSTED."""
    stream_window_bytes: int = 1 << 20
    """What a client may send on one stream before we give more, 65,535 or more."""
    connection_window_bytes: int = 8 << 20
    """What a client may send on all streams before we give more."""
    max_resets: int = 1000
    """Streams that may end in a reset (CVE-2023-44487) beyond those answered; refilled in `refill_s`."""
    max_control_frames: int = 4000
    """PING, SETTINGS, PRIORITY, WINDOW_UPDATE, empty DATA and the like beyond what the traffic explains."""
    keepalive_s: float = 60.0
    """How long a client with calls under way may be silent before it is asked whether it is there (PING)."""
    keepalive_timeout_s: float = 20.0
    """How long the answer to that may take; then the connection is dropped."""
    refill_s: float = 10.0
    """How long it takes until both counts are whole again."""
