"""What every installer has in common: a checked copy of the lock file, one command, its log, and why it failed.

The lock file is read again, strictly, and written anew from what was read: nothing else of it reaches the installer.
"""

import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from modelyard.domain.errors.platform import StartRefused
from modelyard.domain.errors.uploads import UploadRefused
from modelyard.inspection.code_bundle_lock import Pin, read_lock
from modelyard.ports.environments import BuildOrder

_SIGNS: Final = (
    ("THESE PACKAGES DO NOT MATCH THE HASHES", "a package does not match the digest in requirements.lock"),
    ("Hash mismatch", "a package does not match the digest in requirements.lock"),
    ("no usable wheels", "a package has no wheel for this machine, and source distributions are not allowed"),
    ("has no wheels", "a package has no wheel for this machine, and source distributions are not allowed"),
    ("No matching distribution", "a package is not where it was looked for, or has no wheel for this machine"),
    ("No solution found", "a package is not where it was looked for, or has no wheel for this machine"),
    ("was not found in the", "a package is not where it was looked for, or has no wheel for this machine"),
)


def prepare(order: BuildOrder) -> tuple[Path, tuple[Pin, ...]]:
    """The checked lock file beside the site directory, and its pins.

    Raises:
        StartRefused: the lock file is not one, or nothing says where packages come from.
    """
    try:
        pins = read_lock(order.lock.read_text(encoding="utf-8"))
    except UploadRefused as error:
        raise StartRefused(error.detail, hint=error.hint) from error
    if pins and not order.index and order.wheels is None:
        raise StartRefused(
            "nothing says where the packages of requirements.lock come from",
            hint="set environments.wheel_folder (offline) or environments.index; with serve: --wheels DIR, --index URL",
        )
    checked = order.site.parent / "requirements.txt"
    checked.write_text("".join(f"{pin.line}\n" for pin in pins), encoding="utf-8")
    return checked, pins


def sources(order: BuildOrder) -> list[str]:
    """The options, the same for pip and uv, that say where packages come from."""
    found = ["--no-index"] if not order.index else []
    if order.index not in ("", "default"):
        found += ["--index-url", order.index]
    if order.wheels is not None:
        found += ["--find-links", str(order.wheels)]
    return found


def install(command: Sequence[str], order: BuildOrder) -> None:
    """Run the installer in a session of its own, its output in the log.

    Raises:
        StartRefused: it failed, or took longer than the order allows.
    """
    with order.log.open("ab") as log:
        os.chmod(order.log, 0o600)  # noqa: PTH101  (the open file's own path)
        process = subprocess.Popen(
            [*command], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=order.site.parent, start_new_session=True
        )
        try:
            status = process.wait(order.timeout_s)
        except subprocess.TimeoutExpired as error:
            raise StartRefused(
                f"the environment was not built within {order.timeout_s:g} s",
                hint="raise environments.build_timeout_s, or give a folder of wheels",
            ) from error
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if status:
        raise StartRefused(_why(order.log), hint="correct requirements.lock, or add the wheel to the folder of wheels")


def _why(log: Path) -> str:
    text = log.read_text(encoding="utf-8", errors="replace")
    sign = next((meaning for mark, meaning in _SIGNS if mark.lower() in text.lower()), "")
    return f"the environment cannot be built{': ' if sign else ''}{sign}"
