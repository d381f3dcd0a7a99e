"""What stands in front of whatever answers: a listener hands its calls over and hears of each exactly once."""

from typing import Protocol

from modelyard.domain.errors.base import ModelyardError
from modelyard.inference.batching.batcher import BatchLimits
from modelyard.inference.batching.call import Call


class Queue(Protocol):
    """A `Batcher` is one; so is the queue in front of a server elsewhere. All methods belong to the event loop."""

    limits: BatchLimits

    @property
    def pending(self) -> int:
        """Calls that wait or run."""

    @property
    def may_wait(self) -> bool:
        """Whether a new call may have to wait longer than this turn, so that its client can go meanwhile."""

    def submit(self, call: Call) -> None:
        """Take `call`; it is answered, failed or dropped, exactly once."""

    def discard(self, call: Call) -> None:
        """Drop a call whose client has gone."""

    def wake(self) -> None:
        """Look again: what answers can take more."""

    def refuse_all(self, error: ModelyardError) -> None:
        """Fail everything that waits."""
