"""The walls around a child program, as far as this kernel has them.

`enter_namespaces` runs first, while the process has one thread: a user namespace without rights and a network namespace
without interfaces. `close` runs after the imports and before the upload is read: no new privileges, Landlock over the
file system, a seccomp filter over the system calls. Each function says which wall stands and which does not, and why;
nothing is ever claimed that was not confirmed by the kernel.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from modelyard.foundation.containment import landlock, seccomp
from modelyard.foundation.containment.roots import library_roots

STANDS: Final = "stands"
_CLONE_NEWNS: Final = 0x00020000
_CLONE_NEWIPC: Final = 0x08000000
_CLONE_NEWUSER: Final = 0x10000000
_CLONE_NEWNET: Final = 0x40000000
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_NO_NEW_PRIVS: Final = 38


def enter_namespaces() -> dict[str, str]:
    """Leave the machine's network and rights behind, and end when the parent does. To be called before any thread."""
    if sys.platform != "linux":
        return {"namespaces": "this system has none", "no_new_privileges": "this system has none"}
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    flags = _CLONE_NEWUSER | _CLONE_NEWNET | _CLONE_NEWIPC | _CLONE_NEWNS
    entered = libc.unshare(flags)
    state = STANDS if entered == 0 else os.strerror(ctypes.get_errno())
    private = libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    return {"namespaces": state, "no_new_privileges": STANDS if private == 0 else os.strerror(ctypes.get_errno())}


def close(*, read: Sequence[Path], write: Sequence[Path]) -> dict[str, str]:
    """Landlock and seccomp: afterwards only `read`, `write` and the libraries can be opened, and nothing started."""
    if sys.platform != "linux":
        return {"landlock": "this system has none", "seccomp": "this system has none"}
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    return {
        "landlock": landlock.confine(read=[*library_roots(), *read], write=write),
        "seccomp": seccomp.install(),
    }
