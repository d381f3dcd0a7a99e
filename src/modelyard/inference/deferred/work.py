"""Answer what was accepted: in the order of acceptance, a few at once, as often as it takes, until it ended.

A run is an ordinary request to the service, with a reply that keeps the answer (`kept_reply`). Where the service has no
room at the moment (429, 503) it is asked again later; a run that ended without an answer, because its process or
worker died or its time was up, is begun again up to `MOST_TRIES` times. All else is the answer.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from time import time
from typing import Any, Final, TypeVar

import msgspec

from modelyard.domain.deferred import MOST_TRIES, DeferredRules, DeferredState
from modelyard.domain.errors.inference import Overloaded
from modelyard.foundation.http.wire import NO_HEADERS
from modelyard.inference.deferred.documents import Accepted, Found, Outcome
from modelyard.inference.deferred.hooks import write_message
from modelyard.inference.deferred.kept_reply import KeptAnswer, KeptReply
from modelyard.inference.deferred.measures import DeferredMeasures
from modelyard.inference.deferred.spool import Spool

T = TypeVar("T")
Replay = Callable[[Accepted, bytes, KeptReply], None]
"""Asks the service; answers through the reply, now or later. Raises nothing."""
_TICK_S: Final = 1.0
_TICKS_TO_EXPIRE: Final = 60
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0
_OK: Final = range(200, 300)
_NO_ROOM: Final = frozenset({429, 503})
_NO_ANSWER: Final = frozenset({500, 502, 504})
_log = logging.getLogger(__name__)
ServiceKey = tuple[str, str]


@dataclass(slots=True)
class _Line:
    """The requests of one service that wait here."""

    waiting: deque[Accepted] = field(default_factory=deque)
    running: int = 0
    pause_s: float = _FIRST_PAUSE_S
    paused: bool = False


@dataclass(slots=True)
class _Run:
    """One run of one request."""

    accepted: Accepted
    tries: int
    reply: KeptReply | None = None
    cancelled: bool = False


@dataclass(slots=True)
class _Arriving:
    """Requests that wait to be written down together."""

    batch: list[tuple[Accepted, bytes]] = field(default_factory=list)
    done: list["asyncio.Future[None]"] = field(default_factory=list)


class Deferrals:
    """The deferred requests of one server. Belongs to its loop; the disk is touched in one thread of its own."""

    def __init__(
        self,
        spool: Spool,
        rules: DeferredRules,
        *,
        replay: Replay,
        measures: DeferredMeasures,
    ) -> None:
        self.rules = rules
        self._spool = spool
        self._replay = replay
        self._measures = measures
        self._lines: dict[ServiceKey, _Line] = {}
        self._runs: dict[str, _Run] = {}
        self._sizes: dict[str, int] = {}
        self._bytes = 0
        """The sum of the sizes."""
        self._arriving = _Arriving()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="deferred")
        self._stopped = False
        self._writing = False

    async def follow(self) -> None:
        """Take over what others left, end what is to end, forget what is old; until cancelled."""
        ticks = 0
        while True:
            for accepted, size in await self._on_disk(self._spool.adopt):
                _log.info("took over an accepted request", extra={"request_id": accepted.id})
                self._remember(accepted.id, size)
                self._enter(accepted)
            for request_id in await self._on_disk(lambda: list(self._spool.cancelled())):
                await self._cancel(request_id)
            if ticks % _TICKS_TO_EXPIRE == 0:
                await self._on_disk(partial(self._spool.expire, time() - self.rules.kept_s))
            await self._give_up_late()
            ticks += 1
            await asyncio.sleep(_TICK_S)

    async def close(self, patience_s: float) -> None:
        """Begin nothing more; what is under way may end within the patience. The rest waits for whoever comes next."""
        self._stopped = True
        if self._tasks:
            await asyncio.wait(list(self._tasks), timeout=patience_s)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._disk.shutdown(wait=True)
        self._spool.close()

    async def accept(self, accepted: Accepted, body: bytes) -> None:
        """Return when the request is on the disk; it will be answered.

        Raises:
            Overloaded: as many wait as may.
        """
        waiting = len(self._sizes)
        if waiting >= self.rules.most_waiting or self._bytes + len(body) > self.rules.most_bytes:
            raise Overloaded(
                f"{waiting} requests wait already to be answered later",
                hint="send them more slowly; Retry-After says when to try again",
                retry_after_s=5.0,
            )
        self._remember(accepted.id, len(body))
        future = asyncio.get_running_loop().create_future()
        self._arriving.batch.append((accepted, body))
        self._arriving.done.append(future)
        if not self._writing:
            self._start(self._write_down())
        try:
            await asyncio.shield(future)
        except OSError:
            self._forget(accepted.id)
            raise
        self._measures.happened("accepted", project=accepted.project, service=accepted.service)
        self._enter(accepted)

    async def known(self, request_id: str, digest: str) -> Found | None:
        """The request that came with the same idempotency key, if there is one (`Spool.claim_key`)."""
        return await self._on_disk(partial(self._spool.claim_key, request_id, digest, now=time()))

    async def find(self, request_id: str) -> Found | None:
        """What is known of a request, whichever server has it."""
        return await asyncio.to_thread(self._spool.find, request_id)

    async def answer(self, found: Found) -> bytes:
        """The body of the answer. Raises `OSError` when it was let go meanwhile."""
        return await asyncio.to_thread(self._spool.answer, found)

    async def end(self, found: Found) -> None:
        """Let go of an answer, or see to it that there will be none."""
        if found.outcome is not None:
            await self._on_disk(partial(self._spool.let_go, found))
            return
        await self._on_disk(partial(self._spool.ask_to_cancel, found))
        await self._cancel(found.accepted.id)

    def is_running(self, found: Found) -> bool:
        """Whether the model is being asked; of another server's request, whether it was ever."""
        run = self._runs.get(found.accepted.id)
        return run.reply is not None if run is not None else found.outcome is None and found.tries > 0

    def _enter(self, accepted: Accepted) -> None:
        line = self._line(accepted)
        line.waiting.append(accepted)
        self._go_on(line)

    def _line(self, accepted: Accepted) -> _Line:
        return self._lines.setdefault((accepted.project, accepted.service), _Line())

    def _go_on(self, line: _Line) -> None:
        while line.waiting and line.running < self.rules.at_once and not line.paused and not self._stopped:
            line.running += 1
            self._start(self._run(line, line.waiting.popleft()))

    async def _run(self, line: _Line, accepted: Accepted) -> None:
        run = self._runs[accepted.id] = _Run(accepted, 0)
        try:
            answer = await self._ask(run)
        except LookupError:
            answer = None
        finally:
            self._runs.pop(accepted.id, None)
            line.running -= 1
        if answer is None:
            self._forget(accepted.id)
        elif run.cancelled:
            await self._finish(run, DeferredState.CANCELLED, KeptAnswer(0, b"", "", answer.headers), code="cancelled")
        elif answer.status in _NO_ROOM and time() < accepted.expires_at:
            await self._on_disk(partial(self._spool.put_back, accepted.id))
            self._wait_for_room(line, accepted)
        elif answer.status in _NO_ANSWER and run.tries < MOST_TRIES and time() < accepted.expires_at:
            line.waiting.append(accepted)
        else:
            line.pause_s = _FIRST_PAUSE_S
            fine = answer.status in _OK
            await self._finish(run, DeferredState.SUCCEEDED if fine else DeferredState.FAILED, answer)
        self._go_on(line)

    async def _ask(self, run: _Run) -> KeptAnswer:
        body, run.tries = await self._on_disk(partial(self._spool.begin, run.accepted.id))
        if run.tries > MOST_TRIES:
            return _refusal(500, "run_failed", f"its process ended {MOST_TRIES} times while it was at work on this")
        future: asyncio.Future[KeptAnswer] = asyncio.get_running_loop().create_future()

        def done(answer: KeptAnswer) -> None:
            if not future.done():
                future.set_result(answer)

        run.reply = KeptReply(done)
        if run.cancelled:
            return _refusal(0, "cancelled", "cancelled")
        self._replay(run.accepted, body, run.reply)
        return await future

    def _wait_for_room(self, line: _Line, accepted: Accepted) -> None:
        """Ask again after a pause that grows; meanwhile nothing of this service is asked."""
        line.waiting.appendleft(accepted)
        if line.paused:
            return
        line.paused = True

        def go_on() -> None:
            line.paused = False
            self._go_on(line)

        asyncio.get_running_loop().call_later(line.pause_s, go_on)
        line.pause_s = min(_LONGEST_PAUSE_S, line.pause_s * 2)

    async def _finish(self, run: _Run, state: DeferredState, answer: KeptAnswer, code: str = "") -> None:
        now = time()
        outcome = Outcome(
            state=state,
            status=answer.status,
            content_type=answer.content_type,
            headers=answer.headers.decode("latin-1"),
            finished_at=now,
            kept_until=now + self.rules.kept_s,
            tries=run.tries,
            code=code or _code_of(answer),
        )
        hook = None
        if run.accepted.webhook is not None and state is not DeferredState.CANCELLED:
            hook = write_message(run.accepted, outcome, answer.body)
        try:
            await self._on_disk(partial(self._spool.finish, run.accepted, outcome, answer.body, hook))
        except (OSError, LookupError):  # the disk is full: the request stays, and is run again by whoever comes next
            _log.exception("an answer could not be kept", extra={"request_id": run.accepted.id})
            self._line(run.accepted).waiting.append(run.accepted)
            return
        self._forget(run.accepted.id)
        self._measures.happened(state.value, project=run.accepted.project, service=run.accepted.service)

    def _remember(self, request_id: str, size: int) -> None:
        self._bytes += size - self._sizes.get(request_id, 0)
        self._sizes[request_id] = size
        self._measures.waiting(len(self._sizes))

    def _forget(self, request_id: str) -> None:
        self._bytes -= self._sizes.pop(request_id, 0)
        self._measures.waiting(len(self._sizes))

    async def _cancel(self, request_id: str) -> None:
        run = self._runs.get(request_id)
        if run is not None:
            run.cancelled = True
            if run.reply is not None:
                run.reply.leave()
                run.reply.send(0)
            return
        for line in self._lines.values():
            for accepted in line.waiting:
                if accepted.id == request_id:
                    line.waiting.remove(accepted)
                    await self._finish(
                        _Run(accepted, 0), DeferredState.CANCELLED, _refusal(0, "", ""), code="cancelled"
                    )
                    return

    async def _give_up_late(self) -> None:
        """End what has waited too long."""
        now = time()
        for line in self._lines.values():
            late = [accepted for accepted in line.waiting if accepted.expires_at <= now]
            for accepted in late:
                line.waiting.remove(accepted)
                refusal = _refusal(504, "deadline_exceeded", "there was no room for it in the time it was accepted for")
                await self._finish(_Run(accepted, 0), DeferredState.FAILED, refusal)

    async def _write_down(self) -> None:
        """Write what has arrived, and what arrives meanwhile, each time with one wait for the disk."""
        self._writing = True
        try:
            while self._arriving.batch:
                arriving, self._arriving = self._arriving, _Arriving()
                try:
                    await self._on_disk(partial(self._spool.accept, arriving.batch))
                except OSError as error:
                    _settle(arriving.done, error)
                else:
                    _settle(arriving.done, None)
        finally:
            self._writing = False

    async def _on_disk(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._disk, work)

    def _start(self, work: Any) -> None:  # noqa: ANN401  (a coroutine of any result)
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("deferred work failed", exc_info=error)


def _settle(futures: "list[asyncio.Future[None]]", error: Exception | None) -> None:
    for future in futures:
        if future.done():
            continue
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)


def _refusal(status: int, code: str, text: str) -> KeptAnswer:
    return KeptAnswer(status, msgspec.json.encode({"error": text, "code": code}), "application/json", NO_HEADERS)


def _code_of(answer: KeptAnswer) -> str:
    """The code of an error document; "" of an answer."""
    if answer.status in _OK:
        return ""
    try:
        return str(msgspec.json.decode(answer.body)["code"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return "failed"
