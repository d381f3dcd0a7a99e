"""What a server and all its descendants use: processor time, memory, and how many they are."""

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """MiB. `pss` divides what processes share among them, so that their sum is what the machine gave."""

    pss: float
    rss: float
    processes: int


def tree(pids: Sequence[int]) -> list[psutil.Process]:
    """The processes of `pids` with their descendants."""
    found: list[psutil.Process] = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            root = psutil.Process(pid)
            found += [root, *root.children(recursive=True)]
    return found


def cpu_seconds(pids: Sequence[int]) -> float:
    """User and system time so far."""
    total = 0.0
    for process in tree(pids):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def busy_seconds() -> float:
    """Processor time that the whole machine has used so far."""
    times = psutil.cpu_times()
    return float(times.user + times.system + getattr(times, "nice", 0.0) + getattr(times, "softirq", 0.0))


def memory(pids: Sequence[int]) -> Memory:
    """What they hold now."""
    pss = rss = 0.0
    count = 0
    for process in tree(pids):
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            full = process.memory_full_info()
            pss += full.pss / 2**20
            rss += full.rss / 2**20
            count += 1
    return Memory(pss=pss, rss=rss, processes=count)


def end(roots: Iterable[psutil.Popen], *, grace_s: float = 5.0) -> None:
    """Stop what was started, with all descendants."""
    roots = list(roots)
    everything = {process.pid: process for process in tree([root.pid for root in roots])}
    for root in roots:
        with contextlib.suppress(psutil.NoSuchProcess):
            root.terminate()
    _, left = psutil.wait_procs(list(everything.values()), timeout=grace_s)
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=grace_s)
