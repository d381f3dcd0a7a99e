"""A worker of jobs: claims one at a time from the control plane and has it done in a process of its own.

    python -m modelyard.processes.job_worker --config FILE [--ready-fd N] [--tied-to PID]

The configuration is a `JobWorkerConfig` as JSON. While there is nothing to do it waits in one long poll and holds
little memory: what jobs need is imported with the first. SIGTERM gives the present job back. Whatever a worker that was
killed left behind, the next one of its name ends before it asks for work.
"""

import asyncio
import logging
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from modelyard.domain.errors.base import ModelyardError
from modelyard.domain.errors.platform import Unavailable
from modelyard.foundation.local_http import ask
from modelyard.foundation.supervision import EXIT_REFUSED
from modelyard.foundation.supervision.inside import ChildArguments, child_arguments
from modelyard.foundation.telemetry import set_up_logging
from modelyard.processes.jobs.leftovers import end_marked
from modelyard.processes.jobs.orders import JobWorkerConfig

_LOG: Final = logging.getLogger(__name__)
_WAIT_S: Final = 30.0
_MORE_S: Final = 10.0
_AWAY_S: Final = 0.5
_OK, _LOST, _LATER = 200, 409, 503


class JobWorker:
    """One running worker."""

    def __init__(self, config: JobWorkerConfig) -> None:
        self.config = config
        self.stopping = asyncio.Event()

    async def run(self, arguments: ChildArguments) -> None:
        """Work until SIGTERM."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self.stopping.set)
        end_marked(self.config.mark)
        arguments.ready()
        stop = asyncio.create_task(self.stopping.wait(), name="stop")
        while not self.stopping.is_set():
            claiming = asyncio.create_task(self._claim(), name="claim")
            await asyncio.wait({claiming, stop}, return_when=asyncio.FIRST_COMPLETED)
            if not claiming.done():
                claiming.cancel()  # should it have been claimed meanwhile, the next worker of this name says so
                await asyncio.gather(claiming, return_exceptions=True)
                return
            claim = claiming.result()
            if claim is not None:
                await self._work(claim)

    async def _claim(self) -> dict[str, Any] | None:
        body = msgspec.json.encode({"worker": self.config.name, "wait_s": _WAIT_S})
        status, answer = await self.say("claim", body, patience_s=_WAIT_S + _MORE_S)
        if status != _OK:
            if status == _LATER:
                await asyncio.sleep(_AWAY_S)
            return None
        claim: dict[str, Any] = msgspec.json.decode(answer)
        return claim

    async def _work(self, claim: dict[str, Any]) -> None:
        from modelyard.processes.jobs.attempt import Attempt

        attempt = Attempt(self.config, claim, say=self.say, stopping=self.stopping)
        what, word = await attempt.run()
        if what:
            await self._deliver(what, word)
        attempt.close(succeeded=what == "finish")

    async def _deliver(self, what: str, word: dict[str, Any]) -> None:
        """Say how it ended until it was heard. A word that is refused as it stands becomes a failure."""
        while True:
            status, answer = await self.say(what, msgspec.json.encode(word))
            if status == _LATER:
                if self.stopping.is_set() and what == "give-back":
                    return
                await asyncio.sleep(_AWAY_S)
                continue
            if status in (400, 413) and what == "finish":
                detail = f"its outcome cannot be kept: {answer[:300].decode(errors='replace')}"
                error = {"code": "job_failed", "title": "The job failed", "detail": detail, "hint": ""}
                what, word = "fail", {"job": word["job"], "token": word["token"], "failure": "refused", "error": error}
                continue
            if status == _LOST:
                _LOG.warning("the claim on a job was lost", extra={"job": word["job"], "token": word["token"]})
            return

    async def say(self, what: str, body: bytes, *, patience_s: float = 10.0) -> tuple[int, bytes]:
        """One word to the control plane; 503 while it is away."""
        with suppress(OSError, TimeoutError, EOFError, Unavailable, ValueError):
            socket = Path(self.config.control_socket)
            return await ask(socket, "POST", f"/internal/v1/jobs/{what}", body=body, patience_s=patience_s)
        return _LATER, b""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one worker; the exit code."""
    arguments = child_arguments(list(sys.argv[1:] if argv is None else argv), title="modelyard: job-worker")
    try:
        config = msgspec.json.decode(arguments.config.read_bytes(), type=JobWorkerConfig)
        _take_name(config)
        set_up_logging(level="info")
        asyncio.run(JobWorker(config).run(arguments))
    except ModelyardError as error:
        print(str(error), file=sys.stderr)  # noqa: T201  (last words)
        return EXIT_REFUSED
    except (OSError, ValueError) as error:
        print(f"the worker of jobs cannot start: {error}", file=sys.stderr)  # noqa: T201  (last words)
        return EXIT_REFUSED
    return 0


def _take_name(config: JobWorkerConfig) -> None:
    import setproctitle

    setproctitle.setproctitle(f"modelyard: job-worker {config.number}")


if __name__ == "__main__":
    sys.exit(main())
