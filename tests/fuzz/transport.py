"""A transport that keeps what is written, and holds the reader to the rules of asyncio."""

from typing import Any


class Taken:
    """What a connection did with its transport."""

    def __init__(self) -> None:
        self.sent = bytearray()
        self.closed = False
        self.paused = False

    def get_extra_info(self, name: str, default: object = None) -> Any:
        return ("127.0.0.1", 1) if name == "peername" else default

    def write(self, data: bytes) -> None:
        assert not self.closed, "something is written after the connection was closed"
        self.sent += data

    def writelines(self, parts: list[bytes]) -> None:
        self.write(b"".join(parts))

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def can_write_eof(self) -> bool:
        return False

    def write_eof(self) -> None:
        raise AssertionError("this transport has no end of writing")

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def is_reading(self) -> bool:
        return not self.paused

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass


def feed(connection: Any, data: bytes, pieces: int) -> Taken:
    """Give `data` to `connection` in that many pieces, as far as it goes on reading, then end it."""
    taken = Taken()
    connection.connection_made(taken)
    size = max(1, -(-len(data) // pieces))
    for start in range(0, len(data), size):
        if taken.closed:
            break
        connection.data_received(data[start : start + size])
    connection.connection_lost(None)
    return taken
