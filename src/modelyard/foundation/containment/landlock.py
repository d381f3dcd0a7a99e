"""Landlock by hand: which parts of the file system this process may still open (Linux 5.13; landlock(7)).

Three system calls and two structures, laid out as `linux/landlock.h` has them. What the running kernel does not know of
is left out of the request, so that an older kernel gives the wall it has.
"""

import ctypes
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Final

_CREATE_RULESET: Final = 444  # the same numbers on every architecture
_ADD_RULE: Final = 445
_RESTRICT_SELF: Final = 446
_RULE_PATH_BENEATH: Final = 1
_VERSION: Final = 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = (1 << bit for bit in range(4))
_REMOVE_FILE, _MAKE_DIR, _MAKE_REG, _REMOVE_DIR = 1 << 5, 1 << 7, 1 << 8, 1 << 4
_TRUNCATE: Final = 1 << 14
_LAST_BIT: Final = {1: 12, 2: 13, 3: 14, 4: 14}
_NET_ABI, _SCOPE_ABI = 4, 6
_LAST_BIT_NOW: Final = 15


class _Ruleset(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def confine(*, read: Iterable[Path], write: Iterable[Path], network: bool = False) -> str:
    """Leave only `read` (and below) to be read and `write` (and below) to be written; "stands", or why not.

    TCP goes too, where the kernel has that wall, unless `network` keeps it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION))
    if version < 1:
        return os.strerror(ctypes.get_errno())
    handled = (1 << (_LAST_BIT.get(version, _LAST_BIT_NOW) + 1)) - 1
    rules = _Ruleset(handled, 3 if version >= _NET_ABI and not network else 0, 3 if version >= _SCOPE_ABI else 0)
    size = 24 if version >= _SCOPE_ABI else 16 if version >= _NET_ABI else 8
    ruleset = libc.syscall(_CREATE_RULESET, ctypes.byref(rules), ctypes.c_size_t(size), ctypes.c_uint32(0))
    if ruleset < 0:
        return os.strerror(ctypes.get_errno())
    try:
        reading = _READ_FILE | _READ_DIR | _EXECUTE  # execute: libraries are mapped executable; execve is seccomp's
        writing = _READ_FILE | _READ_DIR | _WRITE_FILE | _REMOVE_FILE | _MAKE_REG | _MAKE_DIR | _REMOVE_DIR | _TRUNCATE
        for paths, access in ((read, reading), (write, writing)):
            for path in paths:
                _allow(libc, ruleset, path, access & handled)
        failed = libc.syscall(_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0))
        return os.strerror(ctypes.get_errno()) if failed else "stands"
    finally:
        os.close(ruleset)


def _allow(libc: ctypes.CDLL, ruleset: int, path: Path, access: int) -> None:
    try:
        parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # what is not there needs no rule; what may not be looked at stays closed
    try:
        if not stat.S_ISDIR(os.fstat(parent).st_mode):
            access &= _READ_FILE | _WRITE_FILE | _EXECUTE | _TRUNCATE
        rule = _PathBeneath(access, parent)
        libc.syscall(_ADD_RULE, ctypes.c_int(ruleset), _RULE_PATH_BENEATH, ctypes.byref(rule), ctypes.c_uint32(0))
    finally:
        os.close(parent)
