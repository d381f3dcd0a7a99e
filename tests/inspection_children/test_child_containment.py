"""What a child program can do is bounded by its walls: each attempt is made inside a real child, by hostile code."""

import os
import socket
import sys
import time
from pathlib import Path

import pytest

from modelyard.domain.report import Check
from modelyard.foundation.documents import to_plain
from modelyard.inspection.child import ChildLimits
from modelyard.inspection.child_process import ChildAnswer, StartedChild

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's walls are Linux's")

HOSTILE = """
import ctypes, os, socket, subprocess, sys, time
from modelyard.inspection.children.program import Program
libc = ctypes.CDLL(None, use_errno=True)
def work(request, channel):
    found = {}
    exec(request.body["code"], {**globals(), "found": found})
    channel.done(found)
sys.exit(Program("hostile", lambda kind: None, work).main(sys.argv[1:]))
"""


def attempt(code: str, place: Path, **limits: float) -> tuple[ChildAnswer, list[Check]]:
    checks: list[Check] = []
    allowed = ChildLimits(**{"wall_s": 20.0, **limits})
    with StartedChild("hostile", launch=("-c", HOSTILE)) as child:
        request = {"job": {"code": code}, "read": [], "write": [str(place)], "limits": to_plain(allowed)}
        answer = child.ask(request, wall_s=allowed.wall_s, on_check=checks.append)
        pid = child.pid
    with pytest.raises(ProcessLookupError):
        os.killpg(pid, 0)
    return answer, checks


def test_every_wall_stands_and_is_evidence(tmp_path: Path) -> None:
    answer, checks = attempt("found['uid'] = os.getuid()", tmp_path)
    walls = checks[0].evidence["walls"]
    assert checks[0].name == "sandbox.walls"
    assert walls["no_new_privileges"] == walls["audit_hook"] == walls["limits"] == "stands"
    assert "stands" in {walls["seccomp"], walls["landlock"]}
    assert answer.refusal is None
    assert answer.result["uid"] == 65534 or walls["namespaces"] != "stands"


@pytest.mark.parametrize(
    "code",
    [
        "os.system('touch {canary}')",
        "subprocess.run(['touch', {canary!r}])",
        "os.execv('/bin/true', ['true'])",
        "os.posix_spawn('/bin/true', ['true'], {{}})",
        "os.fork()",
        "socket.socket()",
        "open({canary!r}, 'w')",
        "os.kill(os.getppid(), 9)",
        "libc.execve(b'/bin/true', None, None)",
        "libc.ptrace(16, os.getppid(), 0, 0)",
        "libc.unshare(0x20000000)",
    ],
)
def test_what_no_model_needs_ends_the_child_and_is_named(tmp_path: Path, code: str) -> None:
    canary = tmp_path / "canary"
    inside = tmp_path / "inside"
    inside.mkdir()
    answer, checks = attempt(code.format(canary=str(canary)), inside)
    assert answer.refusal is not None
    assert answer.refusal.code == "weights_unsafe"
    assert checks[-1].name == "hostile.ended"
    assert not canary.exists()


def test_native_code_meets_the_kernels_walls(tmp_path: Path) -> None:
    canary, secret, inside = tmp_path / "canary", tmp_path / "secret", tmp_path / "inside"
    secret.write_text("key")
    inside.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        code = f"""
found['fork'] = libc.fork()
found['socket'] = libc.socket(2, 1, 0)
found['write'] = libc.open({str(canary).encode()!r}, os.O_CREAT | os.O_WRONLY, 0o600)
found['read'] = libc.open({str(secret).encode()!r}, os.O_RDONLY)
found['kill'] = libc.kill(os.getppid(), 9)
found['link'] = libc.link({str(secret).encode()!r}, {str(inside / "link").encode()!r})
found['inside'] = libc.open({str(inside / "mine").encode()!r}, os.O_CREAT | os.O_WRONLY, 0o600) > 0
"""
        answer, _ = attempt(code, inside)
        listening.settimeout(0)
        with pytest.raises(BlockingIOError):
            listening.accept()
    assert answer.refusal is None
    assert dict(answer.result) == {
        "fork": -1,
        "socket": -1,
        "write": -1,
        "read": -1,
        "kill": -1,
        "link": -1,
        "inside": True,
    }
    assert not canary.exists()


def test_a_memory_bomb_is_refused_as_too_large(tmp_path: Path) -> None:
    answer, _ = attempt("found['size'] = len(bytearray(4 << 30))", tmp_path, memory_bytes=1 << 30)
    assert answer.refusal is not None
    assert answer.refusal.code == "audit_timeout"
    assert "memory" in answer.refusal.detail


def test_an_endless_loop_ends_at_the_wall_clock(tmp_path: Path) -> None:
    began = time.monotonic()
    answer, checks = attempt("while True: time.sleep(0.01)", tmp_path, wall_s=1.0)
    assert time.monotonic() - began < 10
    assert answer.refusal is not None
    assert answer.refusal.code == "audit_timeout"
    assert "1 s" in checks[-1].summary


def test_an_endless_loop_ends_at_the_processor_limit(tmp_path: Path) -> None:
    answer, _ = attempt("while True: pass", tmp_path, cpu_s=1)
    assert answer.refusal is not None
    assert answer.refusal.code == "audit_timeout"
    assert "processor" in answer.refusal.detail


def test_a_file_bomb_stops_at_the_file_limit(tmp_path: Path) -> None:
    code = f"open({str(tmp_path / 'big')!r}, 'wb').write(bytes(4 << 20))"
    answer, _ = attempt(code, tmp_path, file_bytes=1 << 20)
    assert answer.refusal is not None
    assert (tmp_path / "big").stat().st_size <= 1 << 20


def test_a_crash_is_a_refusal_with_its_signal(tmp_path: Path) -> None:
    answer, _ = attempt("os.abort()", tmp_path)
    assert answer.refusal is not None
    assert answer.refusal.code == "probe_failed"
    assert "SIGABRT" in answer.refusal.detail


def test_what_a_child_says_out_of_turn_is_not_believed(tmp_path: Path) -> None:
    answer, _ = attempt('os.write(int(sys.argv[1]), b\'{"check": {"name": 1}}\\n\')', tmp_path)
    assert answer.refusal is not None
    assert answer.refusal.code == "probe_failed"


def test_a_child_that_closes_its_events_and_stays_is_ended(tmp_path: Path) -> None:
    answer, _ = attempt("os.close(int(sys.argv[1]))\nwhile True: time.sleep(0.01)", tmp_path, wall_s=1.0)
    assert answer.refusal is not None


def test_a_child_sees_nothing_of_our_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELYARD_KEY", "secret")
    answer, _ = attempt("found['names'] = sorted(os.environ)", tmp_path)
    assert not [name for name in answer.result["names"] if name.startswith(("MODELYARD", "SSH", "AWS"))]


def test_a_started_child_that_is_not_needed_leaves_nothing(tmp_path: Path) -> None:
    child = StartedChild("hostile", launch=("-c", HOSTILE))
    place = Path(f"/proc/{child.pid}/cwd").resolve()
    child.close()
    assert not place.exists()
    with pytest.raises(ProcessLookupError):
        os.killpg(child.pid, 0)
