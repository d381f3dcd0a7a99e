"""One attempt of a job: its inputs fetched, its process started, watched and ended, its files stored.

The process is the leader of a group and a session of its own and dies with the worker. It is ended with everything that
carries the job's mark when the claim is lost, the worker stops, or it takes more time, memory or disk than it may.
"""

import asyncio
import hashlib
import os
import shutil
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from modelyard.domain.errors.base import ModelyardError
from modelyard.domain.errors.platform import InvalidRequest, JobFailed
from modelyard.foundation.documents import read_package
from modelyard.foundation.memory import held_memory
from modelyard.foundation.telemetry import redact
from modelyard.inference.hosting import require_whole
from modelyard.processes.artifact_stores import ARTIFACT_STORES
from modelyard.processes.jobs.leftovers import end_marked
from modelyard.processes.jobs.limits import too_late, too_much_disk, too_much_memory
from modelyard.processes.jobs.orders import JobWorkerConfig, Kept, Offered, Order, Said

Say = Callable[[str, bytes], Awaitable[tuple[int, bytes]]]
_LOOK_S: Final = 0.25
_DISK_EVERY: Final = 4
"""Looks at memory between two at the disk, which cost more."""
_LONGEST_LINE: Final = 16 << 20
_LOST: Final = 409
_LAST_WORDS: Final = 8192
_OUT_OF_MEMORY: Final = (
    b"memoryerror",
    b"memory alloc",
    b"bad_alloc",
    b"allocate memory",
    b"failed to allocate",
    b"failed to map segment",
)


class Attempt:
    """Does one claim. `run` gives what to tell the control plane; empty when the claim was lost."""

    def __init__(self, config: JobWorkerConfig, claim: Mapping[str, Any], *, say: Say, stopping: asyncio.Event) -> None:
        self._config = config
        self._claim = claim
        self._say = say
        self._stopping = stopping
        self._place = Path(config.jobs) / claim["job"]
        self._work = self._place / "work"
        self._mark = f"MODELYARD_JOB={claim['job']}"
        store: Any = ARTIFACT_STORES.get("files")
        self._job_files, self._artifacts = store(Path(config.job_files)), store(Path(config.artifacts))
        self._process: asyncio.subprocess.Process | None = None
        self._log = bytearray()
        self._log_cut = False
        self._progress: dict[str, Any] = {}
        self._news = asyncio.Event()
        self._kept: list[Kept] = []
        self._offered: list[Offered] = []
        self._last: Said | None = None
        self._limit: ModelyardError | None = None
        self._is_lost = False

    async def run(self) -> tuple[str, dict[str, Any]]:
        """Do it; what to say, and the word."""
        try:
            order = await asyncio.to_thread(self._prepare)
            status = await self._go(order)
        except ModelyardError as error:
            return self._failed(error, refused=isinstance(error, InvalidRequest))
        except OSError as error:
            return self._failed(JobFailed(f"the job cannot be begun: {error.strerror}", hint="look at the disk"))
        finally:
            await asyncio.to_thread(end_marked, self._mark)
        if self._is_lost:
            return "", {}
        if self._last is None and self._limit is None and self._stopping.is_set():
            return "give-back", self._word()
        return await asyncio.to_thread(self._conclude, status)

    def close(self, *, succeeded: bool) -> None:
        """Remove the scratch; with it the checkpoint of a job that succeeded."""
        shutil.rmtree(self._place if succeeded else self._work, ignore_errors=True)

    # Before

    def _prepare(self) -> Order:
        end_marked(self._mark)  # an earlier attempt that nobody ended
        claim = self._claim
        shutil.rmtree(self._work, ignore_errors=True)
        scratch, checkpoint = self._work / "scratch", self._place / "checkpoint"
        for place in (scratch, checkpoint, self._work / "inputs", scratch / "tmp"):
            place.mkdir(parents=True, exist_ok=True, mode=0o700)
        inputs = {name: str(self._fetch(name, given)) for name, given in claim["inputs"].items()}
        service = claim.get("service") or {}
        return Order(
            job=claim["job"],
            kind=claim["kind"],
            parameters=claim["parameters"],
            inputs=inputs,
            directory=str(scratch),
            checkpoint=str(checkpoint),
            seed=claim["seed"],
            attempt=claim["attempt"],
            parent=os.getpid(),
            memory_bytes=self._config.memory_bytes,
            disk_bytes=self._config.disk_bytes,
            read=[str(self._work / "inputs")],
            network=claim.get("network", False),
            service_url=service.get("url", ""),
            service_key=service.get("key", ""),
        )

    def _fetch(self, name: str, given: Mapping[str, Any]) -> Path:
        """An input on the disk: a file under its own name, or `files` and `package` of a version."""
        place = self._work / "inputs" / name
        if given["store"] == "jobs":
            place.mkdir(mode=0o700)
            file = given["files"][0]
            self._job_files.fetch(file["sha256"], place / file["name"])
            return Path(place / str(file["name"]))
        (place / "files").mkdir(parents=True, mode=0o700)
        for file in given["files"]:
            self._artifacts.fetch(file["sha256"], place / "files" / file["name"])
        if given.get("package"):
            shutil.copytree(Path(self._config.packages) / given["package"], place / "package")
            require_whole(place / "package", read_package(place / "package"))
        return Path(place)

    # Meanwhile

    async def _go(self, order: Order) -> int:
        """Start the process and see it to its end; its exit status."""
        events, theirs = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-I", "-u", "-B", "-X", "faulthandler", "-m", "modelyard.processes.job_program", str(theirs)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                pass_fds=(theirs,),
                env=self._surroundings(order),
                cwd=order.directory,
                start_new_session=True,
            )
        except BaseException:
            os.close(events)
            raise
        finally:
            os.close(theirs)
        self._process = process
        assert process.stdin is not None
        process.stdin.write(msgspec.json.encode(order) + b"\n")
        watching = [asyncio.create_task(each) for each in (self._beat(), self._watch_limits(order), self._watch_stop())]
        try:
            await asyncio.gather(self._hear(events), self._hear_noise(process))
            return await process.wait()
        finally:
            for task in watching:
                task.cancel()
            await asyncio.gather(*watching, return_exceptions=True)
            self._kill()
            await process.wait()

    async def _hear(self, events: int) -> None:
        """Lines of the process until its last; then its group has no more to do."""
        reader = asyncio.StreamReader(limit=_LONGEST_LINE)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(events))
        try:
            while line := await reader.readline():
                self._take(msgspec.json.decode(line, type=Said))
        except (ValueError, msgspec.MsgspecError) as error:
            self._limit = JobFailed(f"the job's process said what cannot be read: {error}"[:300])
        finally:
            transport.close()
            await self._settle()

    def _take(self, said: Said) -> None:
        if said.progress is not None:
            self._progress = said.progress
            self._news.set()
        elif said.keep is not None:
            self._kept.append(said.keep)
        elif said.candidate is not None:
            self._offered.append(said.candidate)
        else:
            self._last = said

    async def _settle(self) -> None:
        """Let the process end by itself for a moment; what it left in its group does not."""
        assert self._process is not None
        with suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), self._config.grace_s)
        self._kill()

    async def _hear_noise(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        most = self._config.log_bytes
        while data := await process.stdout.read(1 << 16):
            self._log += data
            if len(self._log) > most:
                del self._log[: len(self._log) - most]
                self._log_cut = True

    async def _beat(self) -> None:
        """Say that the job lives, at once when it has progressed, and hear whether it is still ours."""
        pause = self._config.lease_s / 5
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), pause)
            self._news.clear()
            word = self._word(progress=self._progress) if self._progress else self._word()
            status, _ = await self._say("heartbeat", msgspec.json.encode(word))
            if status == _LOST:
                self._is_lost = True
                await self._end()
                return
            await asyncio.sleep(min(1.0, pause))

    async def _watch_stop(self) -> None:
        await self._stopping.wait()
        await self._end()

    async def _watch_limits(self, order: Order) -> None:
        assert self._process is not None
        loop = asyncio.get_running_loop()
        longest = min(self._claim.get("limit_s") or self._config.limit_s, self._config.limit_s)
        end, looks = loop.time() + longest, 0
        while self._limit is None:
            await asyncio.sleep(_LOOK_S)
            looks += 1
            if loop.time() > end:
                self._limit = too_late(longest)
            elif await asyncio.to_thread(held_memory, self._process.pid) > self._config.memory_bytes:
                self._limit = too_much_memory(self._config.memory_bytes)
            elif looks % _DISK_EVERY == 0 and await asyncio.to_thread(_size, self._place) > order.disk_bytes:
                self._limit = too_much_disk(order.disk_bytes)
        self._kill()

    async def _end(self) -> None:
        """Ask the process to end, and end it after a moment."""
        assert self._process is not None
        with suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.write(b"cancel\n")
        with suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), self._config.grace_s)
        self._kill()

    def _kill(self) -> None:
        assert self._process is not None
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _surroundings(self, order: Order) -> dict[str, str]:
        name, _, mark = self._config.mark.partition("=")
        job, _, number = self._mark.partition("=")
        return {
            "PATH": os.defpath,
            "HOME": order.directory,
            "TMPDIR": str(Path(order.directory) / "tmp"),
            "LANG": "C.UTF-8",
            name: mark,
            job: number,
        }

    # After

    def _conclude(self, status: int) -> tuple[str, dict[str, Any]]:
        if self._limit is not None:
            return self._failed(self._limit)
        if self._last is None:
            if any(word in self._log[-_LAST_WORDS:].lower() for word in _OUT_OF_MEMORY):  # too little to say so itself
                return self._failed(too_much_memory(self._config.memory_bytes))
            return self._failed(_why_it_ended(status))
        if self._last.failed is not None:
            failed = self._last.failed
            return "fail", self._word(failure=failed["failure"], error=failed["error"], log=self._keep_log())
        try:
            files = {kept.name: self._store(Path(kept.path)) for kept in self._kept}
            candidates = [self._store_candidate(offered) for offered in self._offered]
        except ModelyardError as error:
            return self._failed(error)
        except OSError as error:
            return self._failed(JobFailed(f"what came out cannot be kept: {error.strerror}"))
        word = self._word(
            result=self._last.done,
            files=files,
            candidates=candidates,
            log=self._keep_log(),
            progress=self._progress or None,
        )
        return "finish", word

    def _failed(self, error: ModelyardError, *, refused: bool = False) -> tuple[str, dict[str, Any]]:
        told = {"code": error.code, "title": error.title, "detail": error.detail, "hint": error.hint}
        failure = "refused" if refused else "error"
        return "fail", self._word(failure=failure, error=told, log=self._keep_log())

    def _word(self, **more: object) -> dict[str, Any]:
        return {"job": self._claim["job"], "token": self._claim["token"], **more}

    def _store(self, path: Path) -> dict[str, Any]:
        """A file of the job in the store; only what lies in its own directories, and is a plain file."""
        whole = path.resolve()
        if not whole.is_relative_to(self._place.resolve()) or not whole.is_file() or path.is_symlink():
            raise JobFailed(f"{path.name} is not a file in the job's own directories")
        with whole.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        self._job_files.put(whole, sha256)
        return {"sha256": sha256, "size_bytes": whole.stat().st_size}

    def _store_candidate(self, offered: Offered) -> dict[str, Any]:
        path = Path(offered.path)
        files = [path] if path.is_file() else sorted(each for each in path.iterdir() if each.is_file())
        stored = [{"name": each.name, **self._store(each)} for each in files]
        documents = (("labels.json", offered.labels), ("config.json", offered.config))
        for name, document in documents:
            if document is not None:
                written = self._work / name
                written.write_bytes(msgspec.json.encode(document))
                stored.append({"name": name, **self._store(written)})
        return {"name": offered.name, "parent": offered.parent, "files": stored, "state": "waiting"}

    def _keep_log(self) -> str:
        """The digest of the stored end of the log, with secrets blacked out; empty when nothing was printed."""
        if not self._log:
            return ""
        text = redact(self._log.decode(errors="replace"))
        key = (self._claim.get("service") or {}).get("key", "")
        text = text.replace(key, "***") if key else text
        path = self._work / "log"
        cut = f"(the beginning is not kept: only the last {self._config.log_bytes >> 10} KiB)\n"
        with suppress(OSError, ModelyardError):
            self._work.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.write_text((cut if self._log_cut else "") + text, encoding="utf-8")
            return str(self._store(path)["sha256"])
        return ""


def _why_it_ended(status: int) -> JobFailed:
    how = f"by the signal {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
    return JobFailed(f"its process ended {how} before it was done", hint="its log may say why")


def _size(place: Path) -> int:
    total = 0
    for folder, _, files in os.walk(place):
        for name in files:
            with suppress(OSError):
                total += os.lstat(os.path.join(folder, name)).st_blocks * 512  # noqa: PTH118  (thousands)
    return total
