"""Restore a backup: the composition of what that takes, without a running platform."""

from pathlib import Path
from typing import Any

from modelyard.control.backups import Restored, Summary, read_summary, restore_platform
from modelyard.processes.artifact_stores import ARTIFACT_STORES


def look_into(file: Path) -> tuple[Summary, str]:
    """What a backup holds and its digest, after its seal was checked; raises as `read_summary` does."""
    return read_summary(file)


def restore_into(file: Path, data: Path) -> Restored:
    """Put `file` back into the empty directory `data`; raises as `restore_platform` does."""
    store: Any = ARTIFACT_STORES.get("files")
    return restore_platform(file, data, store=store)
