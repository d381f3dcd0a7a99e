"""Install the system packages that tests of real systems need, where that is possible (root on Debian).

Elsewhere nothing is installed and the tests that need a missing program are skipped by name.
"""

import os
import shutil
import subprocess
import sys

PROGRAMS: dict[str, str] = {
    "strace": "strace",
    "redis-server": "redis-server",
    "rabbitmq-server": "rabbitmq-server",
}
"""Program that a test starts → Debian package that brings it."""


def main() -> int:
    """Install what is missing; 0 also where nothing can be installed."""
    missing = sorted({package for program, package in PROGRAMS.items() if shutil.which(program) is None})
    if not missing or os.geteuid() != 0 or shutil.which("apt-get") is None:
        return 0
    quiet = {"env": {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}, "stdout": subprocess.DEVNULL}
    subprocess.run(["apt-get", "update", "-q"], check=False, **quiet)
    install = ["apt-get", "install", "-yq", "--no-install-recommends", *missing]
    return subprocess.run(install, check=False, **quiet).returncode


if __name__ == "__main__":
    sys.exit(main())
