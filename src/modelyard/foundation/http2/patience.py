"""Count what costs us more than it costs the client: resets and control frames (CVE-2023-44487, CVE-2019-9512 ff.)."""

from modelyard.foundation.http2.frames import Code, ConnectionFault
from modelyard.foundation.http2.limits import Http2Limits


class Patience:
    """What one connection may still do beyond what its traffic explains; both counts refill with time."""

    __slots__ = (
        "_answered",
        "_frames",
        "_frames_rate",
        "_max_frames",
        "_max_resets",
        "_resets",
        "_resets_rate",
        "_seen",
        "_sent",
    )

    def __init__(self, limits: Http2Limits) -> None:
        self._max_frames = self._frames = float(limits.max_control_frames)
        self._max_resets = self._resets = float(limits.max_resets)
        self._frames_rate = limits.max_control_frames / limits.refill_s
        self._resets_rate = limits.max_resets / limits.refill_s
        self._answered = 0
        self._sent = 0
        self._seen = 0.0

    def control(self, sent: int | None = None) -> None:
        """A frame came that brings nothing. `sent` counts the pieces of answers that we ever cut for this client.

        Raises:
            ConnectionFault: there were too many.
        """
        self._frames -= 1
        if self._frames < 0 and sent is not None:  # window updates come of what we send
            self._frames += min(4 * (sent - self._sent), self._max_frames)
            self._sent = sent
        if self._frames < 0:
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "too many control frames")

    def traffic(self) -> None:
        """A part of a message, or a call, came: a few control frames go with each."""
        if self._frames < self._max_frames:
            self._frames += 4

    def reset(self, answered: int) -> None:
        """A stream ended in a reset. `answered` is how many calls the connection was ever answered.

        Raises:
            ConnectionFault: there were too many.
        """
        self._resets = min(self._resets + answered - self._answered, self._max_resets) - 1
        self._answered = answered
        if self._resets < 0:
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "too many streams were reset")

    def refill(self, now: float) -> None:
        """Time has passed."""
        passed = now - self._seen if self._seen else 0.0
        self._seen = now
        self._frames = min(self._frames + passed * self._frames_rate, self._max_frames)
        self._resets = min(self._resets + passed * self._resets_rate, self._max_resets)
