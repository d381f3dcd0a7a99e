"""Where workers come: claims by long poll, and what they say of their jobs. On the internal socket, without keys."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

import msgspec

from modelyard.control.jobs.claims import Claims
from modelyard.control.jobs.store import TOPIC
from modelyard.control.jobs.values import Claim, Wanted, Word
from modelyard.domain.errors.base import ModelyardError
from modelyard.domain.errors.platform import ClaimLost, InvalidRequest
from modelyard.foundation.documents import from_json, to_json

_LONGEST_WAIT_S: Final = 60.0
_SWEEP_S: Final = 5.0
Answer = tuple[int, bytes]


class JobDesk:
    """Answers workers. `start` on the loop that serves; `stop` lets everybody go who waits."""

    def __init__(self, claims: Claims) -> None:
        self._claims = claims
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed = asyncio.Event()
        self._is_over = False
        self._leave = claims.database.subscribe(TOPIC, self._wake)
        self._words: Mapping[str, Callable[[Word], object]] = {
            "heartbeat": claims.heartbeat,
            "finish": claims.finish,
            "fail": claims.fail,
            "give-back": claims.give_back,
        }

    def start(self) -> None:
        """Begin to listen for changes."""
        self._loop = asyncio.get_running_loop()

    def stop(self) -> None:
        """Let everybody go. Idempotent."""
        self._leave()
        self._is_over = True
        self._ring()

    async def answer(self, what: str, body: bytes) -> Answer:
        """Status and body of one request: 204 is "understood", or no job; 409 says that a claim is over."""
        try:
            if what == "claim":
                return await self._claim(from_json(body, Wanted))
            say = self._words.get(what)
            if say is None:
                return 404, b""
            await asyncio.to_thread(say, from_json(body, Word))
        except (msgspec.MsgspecError, InvalidRequest, ValueError) as error:
            return 400, _said("invalid_request", str(error))
        except ClaimLost as error:
            return 409, _said(error.code, error.detail)
        except ModelyardError as error:
            return 503, _said(error.code, error.detail)
        return 204, b""

    async def _claim(self, wanted: Wanted) -> Answer:
        loop = asyncio.get_running_loop()
        end = loop.time() + min(max(wanted.wait_s, 0.0), _LONGEST_WAIT_S)
        while True:
            changed = self._changed
            claim: Claim | None = await asyncio.to_thread(self._claims.claim, wanted.worker)
            if claim is not None:
                return 200, to_json(claim)
            left = end - loop.time()
            if left <= 0 or self._is_over:
                return 204, b""
            with suppress(TimeoutError):
                async with asyncio.timeout(min(left, _SWEEP_S)):
                    await changed.wait()

    def _wake(self) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._ring)

    def _ring(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _said(code: str, detail: str) -> bytes:
    return msgspec.json.encode({"code": code, "detail": detail})
