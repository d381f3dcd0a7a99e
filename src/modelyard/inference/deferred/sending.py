"""Deliver messages to webhooks: found on the disk, tried until they are taken, given up after a day of trying.

The address comes from a caller, so it is trusted with nothing (safety.md, AZ-15): http and https, listed ports, a name
resolved once and only a public address connected to, no redirect followed, nothing of the answer read but its status.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic, time
from typing import Final

from modelyard.domain.errors.base import ModelyardError
from modelyard.domain.upstreams import origin_of
from modelyard.foundation.outbound import OutboundRules, Pool, Question
from modelyard.inference.deferred.hooks import Message, read_message, signed_headers
from modelyard.inference.deferred.spool import HOOK

PAUSES_S: Final = (1.0, 5.0, 30.0, 120.0, 600.0, 1800.0, 3600.0, 7200.0, 14_400.0, 28_800.0, 28_800.0)
"""Between tries; about a day, each up to a fifth longer."""
_LOOK_S: Final = 0.5
_PATIENCE_S: Final = 15.0
_AT_ONCE: Final = 16
_TAKEN: Final = range(200, 300)
_GONE: Final = 410
_log = logging.getLogger(__name__)
Tell = Callable[[str], None]


@dataclass(slots=True)
class _Due:
    tries: int
    at: float


class Sender:
    """The messages of all servers below `root`. `tell` hears how each ended: delivered, refused, given_up."""

    def __init__(self, root: Path, *, key: bytes, allow_private: bool, tell: Tell) -> None:
        self._root = root
        self._key = key
        self._rules = OutboundRules(allow_private=allow_private)
        self._tell = tell
        self._due: dict[Path, _Due] = {}
        self._busy: set[Path] = set()
        self._room = asyncio.Semaphore(_AT_ONCE)

    async def run(self) -> None:
        """Look and deliver until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                found = await asyncio.to_thread(lambda: list(self._root.glob(f"*/*{HOOK}")))
                self._due = {path: self._due.get(path) or _Due(0, 0.0) for path in found}
                for path, due in self._due.items():
                    if path not in self._busy and due.at <= monotonic():
                        self._busy.add(path)
                        group.create_task(self._deliver(path, due))
                await asyncio.sleep(_LOOK_S)

    async def _deliver(self, path: Path, due: _Due) -> None:
        try:
            async with self._room:
                await self._try(path, due)
        except OSError as error:  # the request was let go meanwhile, or the disk does not answer
            _log.info("a message could not be read", extra={"reason": str(error)})
        finally:
            self._busy.discard(path)

    async def _try(self, path: Path, due: _Due) -> None:
        try:
            message, body = read_message(await asyncio.to_thread(path.read_bytes))
        except ValueError:
            await self._end(path, "refused")
            return
        outcome, reason = await self._send(message, body)
        extra = {"request_id": message.id, "reason": reason, "tries": due.tries + 1}
        if outcome == "again":
            if due.tries >= len(PAUSES_S):
                _log.warning("a webhook was given up", extra=extra)
                await self._end(path, "given_up")
                return
            _log.info("a webhook is tried again later", extra=extra)
            due.at = monotonic() + PAUSES_S[due.tries] * random.uniform(1.0, 1.2)  # noqa: S311  (spreads the load)
            due.tries += 1
            return
        _log.info("a webhook ended", extra={**extra, "outcome": outcome})
        await self._end(path, outcome)

    async def _end(self, path: Path, outcome: str) -> None:
        with suppress(FileNotFoundError):
            await asyncio.to_thread(partial(path.unlink))
        self._tell(outcome)

    async def _send(self, message: Message, body: bytes) -> tuple[str, str]:
        """How one try ended, and why: delivered, refused (for good), again."""
        pool: Pool | None = None
        try:
            pool = Pool(origin_of(message.url), self._rules, size=1)
            headers = signed_headers(message, body, key=self._key, now=int(time()))
            async with asyncio.timeout(_PATIENCE_S), pool.ask(Question("POST", "", headers, body)) as answer:
                status = answer.status
        except TimeoutError:
            return "again", f"no answer within {_PATIENCE_S:g} s"
        except ModelyardError as error:
            return "again", error.detail
        finally:
            if pool is not None:
                pool.close()
        if status in _TAKEN:
            return "delivered", ""
        return ("refused" if status == _GONE else "again"), f"answered {status}"
