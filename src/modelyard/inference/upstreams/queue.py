"""The queue in front of a V2 upstream: to the listeners, the same as a batcher in front of a model."""

import asyncio
from collections.abc import Mapping
from time import perf_counter

from modelyard.domain.errors.base import ModelyardError
from modelyard.domain.errors.inference import DeadlineExceeded, UpstreamFailed
from modelyard.inference.batching import Call, EachAlone, Observer
from modelyard.inference.upstreams.v2 import Array, V2Upstream


class UpstreamQueue(EachAlone):
    """Each call is one request there; how they are gathered is the upstream's business.

    One that is settled before is told to the upstream by a closed connection.
    """

    def __init__(self, upstream: V2Upstream, loop: asyncio.AbstractEventLoop, *, observer: Observer) -> None:
        super().__init__(loop, observer=observer, name="ask an upstream")
        self._upstream = upstream

    async def answer(self, call: Call) -> Mapping[str, Array]:
        """What the upstream answers by the deadline of `call`."""
        try:
            async with asyncio.timeout(max(0.0, call.deadline - perf_counter())):
                return await self._upstream.infer(call.inputs)
        except TimeoutError as error:
            raise DeadlineExceeded("the upstream's answer was not there by the deadline") from error

    def unforeseen(self) -> ModelyardError:
        """Something came that nobody foresaw."""
        return UpstreamFailed("the upstream's answer could not be used")
