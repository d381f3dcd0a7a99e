"""A seccomp filter by hand: which system calls end the process, and which fail (seccomp(2), classic BPF).

Starting a program ends the process at once, since nothing in an audit ever does. What a library may try in good faith
(a socket, a fork, a signal to another process) fails with EPERM, so that its own fallback runs. Threads may be started,
processes not.
"""

import ctypes
import os
import platform
import struct
from collections.abc import Mapping, Sequence
from typing import Final

_ALLOW: Final = 0x7FFF0000
_KILL: Final = 0x80000000
_EPERM: Final = 0x00050000 | 1
_ENOSYS: Final = 0x00050000 | 38

_LD_W_ABS: Final = 0x20
_JEQ: Final = 0x15
_JGE: Final = 0x35
_JSET: Final = 0x45
_RET: Final = 0x06
_NR, _ARCH, _ARG0 = 0, 4, 16
_CLONE_THREAD: Final = 0x00010000
_X32_BIT: Final = 0x40000000

_PR_SET_SECCOMP: Final = 22
_MODE_FILTER: Final = 2
_SET_MODE_FILTER: Final = 1
_FLAG_TSYNC: Final = 1

_ARCHITECTURES: Final = {"x86_64": (0xC000003E, 0, 317), "aarch64": (0xC00000B7, 1, 277)}
"""machine → AUDIT_ARCH value, column in the table below, number of seccomp(2)."""

_FATAL: Final[dict[str, tuple[int | None, int | None]]] = {
    "execve": (59, 221),
    "execveat": (322, 281),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "setns": (308, 268),
    "unshare": (272, 97),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "bpf": (321, 280),
}
_REFUSED: Final[dict[str, tuple[int | None, int | None]]] = {
    "fork": (57, None),
    "vfork": (58, None),
    "socket": (41, 198),
    "socketpair": (53, 199),
    "connect": (42, 203),
    "bind": (49, 200),
    "listen": (50, 201),
    "accept": (43, 202),
    "accept4": (288, 242),
    "sendto": (44, 206),
    "sendmsg": (46, 211),
    "tkill": (200, 130),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "open_by_handle_at": (304, 265),
    "name_to_handle_at": (303, 264),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "mount_setattr": (442, 442),
    "setuid": (105, 146),
    "setgid": (106, 144),
    "setreuid": (113, 145),
    "setregid": (114, 143),
    "setresuid": (117, 147),
    "setresgid": (119, 149),
    "setgroups": (116, 159),
    "setsid": (112, 157),
    "setpgid": (109, 154),
    "personality": (135, 92),
    "quotactl": (179, 60),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "acct": (163, 89),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "mknod": (133, None),
    "mknodat": (259, 33),
    "symlink": (88, None),
    "symlinkat": (266, 36),
    "link": (86, None),
    "linkat": (265, 37),
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "chown": (92, None),
    "fchown": (93, 55),
    "fchownat": (260, 54),
    "lchown": (94, None),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
}
_WORKER_NEEDS: Final = frozenset(
    {"accept", "accept4", "listen", "sendto", "sendmsg", "socketpair", "chmod", "fchmod", "fchmodat", "personality"}
)
_CLONE, _CLONE3 = (56, 220), (435, 435)
_TO_SELF_ONLY: Final = {"kill": (62, 129), "tgkill": (234, 131)}


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def install(code: bytes | None = None) -> str:
    """Put a filter, the audit's without `code`, over every thread; "stands", or why it does not. Cannot be undone."""
    known = _ARCHITECTURES.get(platform.machine())
    if known is None:
        return f"no filter is written for {platform.machine()}"
    architecture, column, seccomp_call = known
    code = code or _compile(architecture, column, os.getpid())
    buffer = ctypes.create_string_buffer(code)
    program = _Program(len(code) // 8, ctypes.cast(buffer, ctypes.c_void_p))
    libc = ctypes.CDLL(None, use_errno=True)
    failed = libc.syscall(seccomp_call, _SET_MODE_FILTER, _FLAG_TSYNC, ctypes.byref(program))
    if failed:
        failed = libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program), 0, 0)
    return os.strerror(ctypes.get_errno()) if failed else "stands"


def worker_filter(pid: int, *, families: Sequence[int]) -> bytes | None:
    """The filter for a worker that runs own code as process `pid`, as `struct sock_filter[]`; None: none is written.

    Nothing ends the process: what is refused fails with EPERM. It may accept connections on the socket it was given;
    it may open sockets of the address `families` only, none when that is empty. It can start no process and signal none
    but itself.
    """
    known = _ARCHITECTURES.get(platform.machine())
    if known is None:
        return None
    architecture, column, _ = known
    opened = {"connect", "bind"} if families else set()
    refused = {name: numbers for name, numbers in (_FATAL | _REFUSED).items() if name not in _WORKER_NEEDS | opened}
    if families:
        del refused["socket"]
    lines = [*_head(architecture, column), *_answers(refused, column, _EPERM)]
    if families:
        tests = [line for family in families for line in (_line(_JEQ, family, 0, 1), _line(_RET, _ALLOW))]
        after = len(tests) + 2
        lines += [_line(_JEQ, _REFUSED["socket"][column] or 0, 0, after), _line(_LD_W_ABS, _ARG0), *tests]
        lines.append(_line(_RET, _EPERM))
    return b"".join([*lines, *_tail(column, pid)])


def _compile(architecture: int, column: int, pid: int) -> bytes:
    """The filter as `struct sock_filter[]`; every test is followed by its answer, so that jumps stay short."""
    lines = _head(architecture, column)
    for table, answer in ((_FATAL, _KILL), (_REFUSED, _EPERM)):
        lines += _answers(table, column, answer)
    return b"".join([*lines, *_tail(column, pid)])


def _head(architecture: int, column: int) -> list[bytes]:
    """Only the system calls of this architecture."""
    lines = [_line(_LD_W_ABS, _ARCH), _line(_JEQ, architecture, 1, 0), _line(_RET, _KILL), _line(_LD_W_ABS, _NR)]
    if column == 0:
        lines += [_line(_JGE, _X32_BIT, 0, 1), _line(_RET, _KILL)]
    return lines


def _answers(table: Mapping[str, tuple[int | None, int | None]], column: int, answer: int) -> list[bytes]:
    """One answer to every call of `table`."""
    numbers = [number for row in table.values() if (number := row[column]) is not None]
    return [line for number in numbers for line in (_line(_JEQ, number, 0, 1), _line(_RET, answer))]


def _tail(column: int, pid: int) -> list[bytes]:
    """Threads but no processes, signals to itself only; everything else is allowed."""
    lines = [
        _line(_JEQ, _CLONE3[column], 0, 1),
        _line(_RET, _ENOSYS),
    ]  # flags lie in memory: glibc falls back to clone
    for numbers in _TO_SELF_ONLY.values():
        lines += [_line(_JEQ, numbers[column], 0, 4), _line(_LD_W_ABS, _ARG0)]
        lines += [_line(_JEQ, pid, 0, 1), _line(_RET, _ALLOW), _line(_RET, _EPERM)]
    lines += [_line(_JEQ, _CLONE[column], 0, 4), _line(_LD_W_ABS, _ARG0)]
    lines += [_line(_JSET, _CLONE_THREAD, 0, 1), _line(_RET, _ALLOW), _line(_RET, _EPERM)]
    lines.append(_line(_RET, _ALLOW))
    return lines


def _line(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)
