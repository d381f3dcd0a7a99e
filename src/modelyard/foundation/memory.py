"""Memory of processes: give it back to the system, see how much one holds, bound what this one may take.

glibc keeps what was freed for itself unless it is told to let go. What a process holds is counted without the pages of
files it has mapped, which the system takes back by itself and processes share.
"""

import ctypes
import gc
import resource
import sys
from contextlib import suppress
from pathlib import Path

import psutil


def return_free_memory() -> None:
    """Collect what nobody holds, and hand free pages back. Takes milliseconds; to be called beside the event loop."""
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def held_memory(pid: int) -> int:
    """Bytes that a process and its children hold: anonymous and shared memory (proc(5), status). 0 when it is gone."""
    pids = [pid]
    with suppress(psutil.Error):
        pids += [child.pid for child in psutil.Process(pid).children(recursive=True)]
    return sum(_held(each) for each in pids)


def _held(pid: int) -> int:
    if sys.platform != "linux":
        with suppress(psutil.Error):
            return int(psutil.Process(pid).memory_info().rss)
        return 0
    with suppress(OSError, ValueError):
        fields = dict(
            line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
        )
        return sum(int(fields[name].split()[0]) << 10 for name in ("RssAnon", "RssShmem") if name in fields)
    return 0


def bound_memory(most: int) -> None:
    """Let this process take so much private memory: beyond it allocations fail (setrlimit(2), RLIMIT_DATA)."""
    if sys.platform == "linux":
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        wanted = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (wanted, wanted))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, as far as a library's words tell."""
    words = str(error).lower()
    return isinstance(error, MemoryError) or "bad_alloc" in words or "failed to allocate" in words
