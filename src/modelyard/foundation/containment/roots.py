"""What every Python program reads: the interpreter, its libraries, and what they look up of the machine."""

import sys
import sysconfig
from pathlib import Path
from typing import Final

_SYSTEM_READS: Final = (
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/share/zoneinfo",
    "/etc/ld.so.cache",
    "/dev/null",
    "/dev/urandom",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/self",
    "/sys/devices/system/cpu",
)


def library_roots() -> list[Path]:
    """Where the interpreter, its libraries and what they look up lie."""
    paths = {Path(item) for item in (*_SYSTEM_READS, sys.prefix, sys.base_prefix, *sysconfig.get_paths().values())}
    paths |= {Path(item) for item in sys.path if item}
    return sorted(path for path in paths if path.exists() and path != Path("/"))
