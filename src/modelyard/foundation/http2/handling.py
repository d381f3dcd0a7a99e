"""What a listener needs to have its calls answered."""

from typing import Protocol

from modelyard.foundation.http2.call import Call
from modelyard.foundation.http2.streaming import StreamCall


class GrpcHandler(Protocol):
    """What answers calls. `streams` are the paths of methods that take or give more than one message."""

    @property
    def streams(self) -> frozenset[bytes]:
        """Never changes while connections are open."""

    def handle(self, call: Call) -> None:
        """Take `call`; called on the loop, once the whole message is in. Answer now or later, on the loop."""

    def open(self, call: StreamCall) -> None:
        """Take a call of `streams`, before its first message; it has to `listen`, or to end the call."""
