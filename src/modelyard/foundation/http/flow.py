"""Notice a client that does not take what it asked for.

A client that reads a byte a second keeps an answer in our memory for days. What counts is what is still unsent, in the
transport and in the kernel: it has to shrink by a least rate, or the connection is dropped.
"""

import asyncio
import contextlib
import fcntl
import struct
import termios
from typing import Final

from modelyard.foundation.http.limits import EdgeLimits

LARGE_ANSWER: Final = 65536
"""Answers below this are left to the kernel and to the idle limit."""


class WriteWatch:
    """Watches one connection while something large, or too much, is on its way out."""

    __slots__ = ("_mark", "_transport", "is_on", "step_s")

    def __init__(self, transport: asyncio.Transport, limits: EdgeLimits) -> None:
        self._transport = transport
        self._mark = 0
        self.step_s = limits.write_deadline_s / 2  # what the kernel's own buffers take at first is no progress yet
        self.is_on = False

    def begin(self) -> None:
        """Watch from now on."""
        self.is_on = True
        self._mark = self._unsent()

    def goes_on(self, least_rate: int) -> bool:
        """Whether enough was taken in the last step; switches itself off when all was."""
        unsent = self._unsent()
        enough = unsent == 0 or self._mark - unsent >= least_rate * self.step_s
        self._mark = unsent
        self.is_on = unsent > 0
        return enough

    def _unsent(self) -> int:
        return self._transport.get_write_buffer_size() + _kernel_queue(self._transport)


def _kernel_queue(transport: asyncio.Transport) -> int:
    """Bytes that the kernel holds unacknowledged (Linux; 0 where that cannot be asked)."""
    socket = transport.get_extra_info("socket")
    if socket is None:
        return 0
    with contextlib.suppress(OSError, ValueError):
        answer = fcntl.ioctl(socket.fileno(), termios.TIOCOUTQ, struct.pack("i", 0))
        return int(struct.unpack("i", answer)[0])
    return 0
