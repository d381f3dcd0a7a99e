"""Processors of this machine: which of them a worker stays on."""

import os
from collections import Counter
from contextlib import suppress

import psutil

_OURS = "modelyard: "


def stay_on(count: int) -> None:
    """Use `count` processors from now on, with all threads and children: those that the fewest others are bound to.

    Does nothing where a process cannot be bound, or has no more processors than that.
    """
    if not hasattr(os, "sched_setaffinity"):
        return
    open_to_us = sorted(os.sched_getaffinity(0))
    if count >= len(open_to_us):
        return
    taken = _taken(len(open_to_us))
    os.sched_setaffinity(0, sorted(open_to_us, key=lambda core: (taken[core], core))[:count])


def _taken(all_of_them: int) -> Counter[int]:
    """How many of our other workers are bound to each processor."""
    taken: Counter[int] = Counter()
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and (process.cmdline() or [""])[0].startswith(_OURS):
                bound = os.sched_getaffinity(process.pid)
                taken.update(bound if len(bound) < all_of_them else ())
    return taken
