"""One upstream as this server asks it: our key, its limits in time, what its refusals mean, and when to spare it.

An upstream that failed to answer several times in a row is left alone for a while, and then tried with one request:
callers hear at once what they would otherwise hear after a time-out (Nygard, Release It!, "Circuit Breaker").
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Final

from modelyard.domain.errors.base import ModelyardError
from modelyard.domain.errors.inference import (
    UpstreamBusy,
    UpstreamFailed,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from modelyard.domain.upstreams import Upstream, UpstreamProtocol, UpstreamRules, origin_of
from modelyard.foundation.outbound import Answer, OutboundRules, Pool, Question

_log = logging.getLogger(__name__)
_ROW: Final = 5
_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 30.0
_LONGEST_WAIT_S: Final = 60.0
_PROBE_S: Final = 5.0
_UNAUTHORIZED: Final = frozenset({401, 403, 407})
_BUSY: Final = frozenset({429, 503})
_TOO_LATE: Final = frozenset({408, 504})
_REDIRECTS: Final = range(300, 400)
_CLIENT: Final = range(400, 500)
_FAILURES: Final = 500


class UpstreamClient:
    """Asks one upstream. `secret` gives the text of the secret that it names."""

    def __init__(self, upstream: Upstream, rules: UpstreamRules, *, secret: Callable[[str], str]) -> None:
        self.upstream = upstream
        self.rules = rules
        self.timeout_s = upstream.timeout_ms / 1000
        self._secret = secret
        self._pool = Pool(origin_of(upstream.url), _outbound(rules), size=upstream.max_connections)
        self._failures = 0
        self._spared_until = 0.0
        self.trouble = ""

    @property
    def remark(self) -> str:
        """What an operator should know: what went wrong last, or which address the connections go to."""
        return self.trouble or (f"asked at {self._pool.address}" if self._pool.address else "")

    def follow(self, rules: UpstreamRules) -> None:
        """Let these rules hold for every connection from now on."""
        self.rules = rules
        self._pool.rules = _outbound(rules)

    @asynccontextmanager
    async def ask(self, question: Question) -> AsyncIterator[Answer]:
        """The answer's head within the upstream's time; its body is the caller's to bound.

        An answer that blames the caller (4xx) is given like any other.

        Raises:
            UpstreamUnreachable, UpstreamRefused, UpstreamBusy, UpstreamFailed, UpstreamTimeout: as they are named.
        """
        self._require_hope()
        headers = (*question.headers, *self._key())
        asked = Question(question.method, question.target, headers, question.body)
        try:
            async with asyncio.timeout(self.timeout_s) as limit, self._pool.ask(asked) as answer:
                error = _refusal(answer)
                if error is not None:
                    raise error
                self._went_well()
                limit.reschedule(None)  # the head is there: its body has bounds of its own
                yield answer
        except TimeoutError as error:
            if not limit.expired():
                raise
            late = UpstreamTimeout(f"the upstream did not answer within {self.timeout_s:g} s", hint="try again later")
            self._went_wrong(late)
            raise late from error
        except (UpstreamUnreachable, UpstreamFailed) as error:
            self._went_wrong(error)
            raise

    async def read(self, question: Question) -> tuple[Answer, bytes]:
        """The whole answer within the upstream's time; raises as `ask` does."""
        try:
            async with asyncio.timeout(self.timeout_s) as limit, self.ask(question) as answer:
                return answer, await answer.read(self.rules.max_answer_bytes)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise UpstreamTimeout(f"the upstream did not answer within {self.timeout_s:g} s") from error

    async def probe(self) -> None:
        """Ask for a sign of life, whatever is known.

        Raises:
            ModelyardError: there is none, with the reason.
        """
        self._spared_until = 0.0
        target = "/models" if self.upstream.protocol is UpstreamProtocol.OPENAI else "/v2/health/live"
        try:
            async with asyncio.timeout(min(self.timeout_s, _PROBE_S)):
                await self.read(Question("GET", target, ((b"accept", b"application/json"),)))
        except TimeoutError as error:
            raise UpstreamTimeout("the upstream gives no sign of life") from error

    async def watch(self) -> None:
        """Ask for a sign of life as often as the specification says, for ever."""
        while True:
            await asyncio.sleep(self.upstream.check_s)
            try:
                await self.probe()
            except ModelyardError as error:
                self._went_wrong(error)

    def close(self) -> None:
        """Let go of all connections."""
        self._pool.close()

    def _key(self) -> tuple[tuple[bytes, bytes], ...]:
        auth = self.upstream.auth
        if auth is None:
            return ()
        text = self._secret(auth.secret)
        value = f"{auth.scheme} {text}" if auth.scheme else text
        if not value.isascii() or not value.isprintable():
            raise UpstreamUnreachable(f"the secret {auth.secret} holds characters that a header cannot carry")
        return ((auth.header.lower().encode(), value.encode()),)

    def _require_hope(self) -> None:
        left = self._spared_until - perf_counter()
        if left > 0:
            raise UpstreamUnreachable(
                f"the upstream did not answer lately: {self.trouble}", hint=f"it is tried again in {left:.0f} s"
            )
        if self._failures >= _ROW:
            self._spare()  # one request goes through now; the others wait for what it finds

    def _went_well(self) -> None:
        self._failures = 0
        self._spared_until = 0.0
        self.trouble = ""

    def _went_wrong(self, error: ModelyardError) -> None:
        self._failures += 1
        self.trouble = error.detail
        if self._failures >= _ROW:
            self._spare()
            _log.warning("an upstream is spared", extra={"url": self.upstream.url, "reason": error.detail})

    def _spare(self) -> None:
        pause = min(_FIRST_PAUSE_S * 2 ** min(self._failures - _ROW, 10), _LONGEST_PAUSE_S)
        self._spared_until = perf_counter() + pause


def _refusal(answer: Answer) -> ModelyardError | None:
    """What an answer means that is none for the caller."""
    status = answer.status
    if status in _UNAUTHORIZED:
        return UpstreamRefused(
            f"the upstream does not take our key (it answers {status})", hint="an operator sets the secret anew"
        )
    if status in _BUSY:
        wait = answer.headers.get(b"retry-after", b"1")
        wait_s = min(float(wait), _LONGEST_WAIT_S) if wait.isdigit() else 1.0
        return UpstreamBusy(
            "the upstream takes no more requests just now",
            retry_after_s=wait_s,
            hint="wait as long as Retry-After says",
        )
    if status in _TOO_LATE:
        return UpstreamTimeout("the upstream ran out of time", hint="try again later")
    if status in _REDIRECTS:
        return UpstreamFailed("the upstream answers with a redirect, which is not followed", hint="name its new place")
    if status >= _FAILURES:
        return UpstreamFailed(f"the upstream failed (it answers {status})", hint="try again later")
    if answer.headers.get(b"content-encoding", b"identity").lower() != b"identity":
        return UpstreamFailed("the upstream answers in a coding that was not asked for")
    return None


def _outbound(rules: UpstreamRules) -> OutboundRules:
    return OutboundRules(allow_private=rules.allow_private, ca_file=rules.ca_file)


def is_for_caller(status: int) -> bool:
    """Whether a status blames the request itself."""
    return status in _CLIENT
