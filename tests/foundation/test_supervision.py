"""The supervisor against real processes."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest

from modelyard.domain.errors.platform import StartRefused
from modelyard.foundation.supervision import EXIT_REFUSED, Child, ChildSpec, ChildState, DirectoryLock, Supervisor
from modelyard.foundation.supervision.adoption import borrow_descriptor, left_of, read_left, write_left

PROGRAM = "modelyard.testing.programs.sleeper"


class Watched(Supervisor):
    def __init__(self, place: Path) -> None:
        self.told: list[str] = []
        self.place = place
        super().__init__(on_event=lambda child, text: self.told.append(f"{child.spec.name}: {text}"))

    def spec(self, name: str, *, tied: bool = True, **config: object) -> ChildSpec:
        path = self.place / f"{name}.json"
        path.write_text(json.dumps(config))
        return ChildSpec(
            name=name, module=PROGRAM, arguments=("--config", str(path)), log=self.place / f"{name}.log", tied=tied
        )


@pytest.fixture
async def supervisor(tmp_path: Path) -> AsyncIterator[Watched]:
    watched = Watched(tmp_path)
    yield watched
    await watched.stop_all([child.spec.name for child in watched.children], grace_s=2)


async def until(condition: Callable[[], bool], *, limit_s: float = 20) -> None:
    async with asyncio.timeout(limit_s):
        while not condition():  # noqa: ASYNC110  (the condition is of another process)
            await asyncio.sleep(0.02)


async def started(supervisor: Watched, name: str, **config: object) -> Child:
    child = supervisor.start(supervisor.spec(name, **config))
    await supervisor.started(child, timeout_s=20)
    return child


async def test_a_child_is_running_once_it_says_so(supervisor: Watched) -> None:
    child = await started(supervisor, "good")
    assert child.state is ChildState.RUNNING
    assert psutil.pid_exists(child.pid or 0)


async def test_a_killed_child_is_started_again_and_the_reason_is_told(supervisor: Watched) -> None:
    child = await started(supervisor, "killed")
    first = child.pid
    os.kill(first or 0, signal.SIGKILL)
    await until(lambda: child.pid not in (None, first) and child.ready.is_set())
    assert child.restarts == 1
    assert "killed by SIGKILL" in supervisor.told[0]


async def test_the_last_words_of_a_child_are_its_reason(supervisor: Watched) -> None:
    child = supervisor.start(supervisor.spec("speaks", die_after_s=0.01, say="the disk is on fire"))
    await until(lambda: bool(supervisor.told))
    assert "ended with exit code 1: the disk is on fire" in child.reason


async def test_a_child_that_refuses_is_not_started_again(supervisor: Watched) -> None:
    spec = supervisor.spec("refuses", ready=False, die_after_s=0.01, exit_code=EXIT_REFUSED, say="newer data")
    child = supervisor.start(spec)
    with pytest.raises(StartRefused, match="newer data"):
        await supervisor.started(child, timeout_s=20)
    assert child.restarts == 0
    assert child.state is ChildState.REFUSED


async def test_a_stubborn_child_is_ended_after_its_grace(supervisor: Watched) -> None:
    child = await started(supervisor, "stubborn", stubborn=True)
    pid = child.pid or 0
    await supervisor.stop("stubborn", grace_s=0.2)
    assert not psutil.pid_exists(pid)
    assert supervisor.children == []


async def test_a_start_of_a_running_child_is_no_second_process(supervisor: Watched) -> None:
    first = await started(supervisor, "one")
    assert supervisor.start(first.spec) is first


async def test_a_name_that_was_stopped_can_be_started_again(supervisor: Watched) -> None:
    first = await started(supervisor, "again")
    await supervisor.stop("again", grace_s=2)
    second = await started(supervisor, "again")
    assert second.pid != first.pid


async def test_a_process_that_was_left_is_adopted_and_replaced_when_it_dies(supervisor: Watched) -> None:
    spec = supervisor.spec("left", tied=False)
    command = [sys.executable, "-m", PROGRAM, *spec.arguments]
    orphan = await asyncio.to_thread(subprocess.Popen, command)
    left = left_of("left", orphan.pid, fingerprint="f")
    assert left is not None
    write_left(supervisor.place / "list.json", [left])
    assert [entry.pid for entry in read_left(supervisor.place / "list.json")] == [orphan.pid]

    child = supervisor.start(spec, adopt=orphan.pid)
    await supervisor.started(child, timeout_s=5)
    assert child.pid == orphan.pid
    orphan.kill()
    await asyncio.to_thread(orphan.wait)
    await until(lambda: child.pid not in (None, orphan.pid) and child.ready.is_set())


def test_the_list_of_left_processes_forgets_those_that_ended(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    left = left_of("x", ended.pid, fingerprint="f")
    assert left is not None
    write_left(tmp_path / "list.json", [left])
    ended.communicate(b"\n")
    assert read_left(tmp_path / "list.json") == []
    (tmp_path / "list.json").write_text("{broken")
    assert read_left(tmp_path / "list.json") == []


@pytest.mark.skipif(sys.platform != "linux", reason="pidfd_getfd is Linux's")
def test_a_listening_socket_survives_its_first_owner(tmp_path: Path) -> None:
    program = (
        "import socket,sys\ns=socket.socket(); s.bind(('127.0.0.1',0)); s.listen()\n"
        "print(s.fileno(), s.getsockname()[1], flush=True); sys.stdin.read()"
    )
    owner = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    number, port = map(int, owner.stdout.readline().split())
    with socket.socket(fileno=borrow_descriptor(owner.pid, number)) as listener:
        owner.communicate("")
        with socket.create_connection(("127.0.0.1", port)) as client:
            accepted, _ = listener.accept()
            accepted.close()
            assert client.recv(1) == b""


def test_a_data_directory_has_one_supervisor_and_the_second_is_told_which(tmp_path: Path) -> None:
    lock = DirectoryLock(tmp_path / "lock")
    lock.take()
    with pytest.raises(StartRefused, match=rf"{tmp_path.name}.*process id {os.getpid()}"):
        DirectoryLock(tmp_path / "lock").take()
    lock.release()
    DirectoryLock(tmp_path / "lock").take()
