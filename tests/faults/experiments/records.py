"""Faults of whoever writes the records: killed in the middle of it, and power that goes after an answer was given."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.faults.experiment import Run, Unable, experiment
from tests.faults.stand import within

ROOT = Path(__file__).parents[3]
_SYNCS = ("fsync", "fdatasync")
_LINE = re.compile(r"^(?:\[pid +)?(\d+)\]? +([\d:.]+) +(?:<\.\.\. )?(\w+)(.*)$")


@experiment(
    "D02", injection="a process that writes projects with their history is forked, killed at a random moment, and so on"
)
def killed_writer(run: Run) -> None:
    """What was acknowledged is there, the file is whole, and two tables agree."""
    file = run.stands.folder() / "modelyard.db"
    rounds = 20 if run.scale.short else 1000
    command = [sys.executable, "-m", "tests.faults.writer", str(file), "--rounds", str(rounds), "--seed", str(run.seed)]
    run.note(f"{rounds} writers are killed")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=5400, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    run.figures |= found
    run.check("rounds", found["rounds"], at_least=rounds)
    run.check("acknowledged rows", found["acknowledged"], at_least=rounds)
    run.check("acknowledged rows that are lost", found["lost"], at_most=0)
    run.check("rounds after which the file is damaged", found["damaged"], at_most=0)
    run.check("rows in one of the two tables only", found["uneven"], at_most=0)


@experiment(
    "D03",
    short=bool(shutil.which("strace")),
    injection="strace of the control plane: where is the sync of the write-ahead log, between commit and reply?",
)
def synced_before_the_reply(run: Run) -> None:
    """Each change is in the log, and the log synced, before its 201 leaves. (a) of the experiment; (b) needs FUSE."""
    if shutil.which("strace") is None:
        raise Unable("strace is not installed")
    stand = run.stand()
    rounds = 10 if run.scale.short else 1000
    trace = run.stands.folder() / "trace"
    control = stand.platform.pid_of("control-plane")
    tracer = _attach(run, control, trace)
    names = [f"synced-{run.seed}-{number}-{os.getpid()}" for number in range(rounds)]
    for name in names:
        answer = stand.control("POST", "/projects", json={"name": name})
        assert answer.status_code == 201, answer.text
    tracer.send_signal(signal.SIGINT)
    tracer.wait(60)
    replied, unsynced, unseen = _judge(trace, names)
    run.figures["changes"] = rounds
    run.check("replies seen", replied, at_least=rounds)
    run.check("changes whose row was not seen on its way to the log", len(unseen), at_most=0, detail=str(unseen[:3]))
    run.check("replies before the sync", len(unsynced), at_most=0, detail=str(unsynced[:3]))


def _attach(run: Run, pid: int, trace: Path) -> "subprocess.Popen[bytes]":
    calls = "trace=fsync,fdatasync,pwrite64,write,writev,sendto,sendmsg"
    command = ["strace", "-f", "-y", "-tt", "-s", "5000", "-e", calls, "-o", str(trace), "-p", str(pid)]
    tracer = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    run.cleanup.enter_context(tracer)  # waits for it and closes its pipe, after it was ended
    run.cleanup.callback(tracer.kill)
    within(lambda: tracer.poll() is not None or _is_traced(pid), limit_s=20.0)
    if tracer.poll() is not None or not _is_traced(pid):
        assert tracer.stderr is not None
        raise Unable(f"strace may not trace here: {tracer.stderr.read(300).decode() if tracer.poll() else 'no answer'}")
    time.sleep(0.2)  # its other threads follow one by one
    return tracer


def _is_traced(pid: int) -> bool:
    text = Path(f"/proc/{pid}/status").read_text()
    return "TracerPid:\t0\n" not in text


def _judge(trace: Path, names: list[str]) -> tuple[int, list[str], list[str]]:
    """Replies, changes whose reply left before a sync of the log, and changes that were not seen at all.

    The thread that put a name into the log has to end a sync of the log after that, before any reply with the name.
    """
    wanted = set(names)
    writers: dict[str, str] = {}
    open_in: dict[str, list[str]] = {}
    synced: set[str] = set()
    replied: set[str] = set()
    unsynced: list[str] = []
    for thread, call, text in _calls(trace):
        found = wanted.intersection(re.findall(r"synced-\d+-\d+-\d+", text))
        if call == "pwrite64" and "-wal>" in text:
            for name in found - writers.keys():
                writers[name] = thread
                open_in.setdefault(thread, []).append(name)
        elif call in _SYNCS and "-wal>" in text:
            synced.update(open_in.pop(thread, []))
        elif "HTTP/1.1 201" in text:
            replied |= found
            unsynced += [name for name in found if name not in synced]
    return len(replied), unsynced, [name for name in names if name not in writers]


def _calls(trace: Path) -> Iterator[tuple[str, str, str]]:
    """Thread, call and text of each call: where it began for writes, where it ended for syncs."""
    begun: dict[str, str] = {}
    with trace.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            found = _LINE.match(line)
            if found is None:
                continue
            thread, call, text = found.group(1), found.group(3), found.group(4)
            if text.rstrip().endswith("<unfinished ...>"):
                begun[thread] = text
                if call in _SYNCS:
                    continue
            elif "resumed>" in text:
                if call not in _SYNCS:
                    continue
                text = begun.pop(thread, "")
            yield thread, call, text
