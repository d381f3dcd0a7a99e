"""Restore a backup: the composition of what that takes, without a running platform."""

import os
from importlib import import_module
from pathlib import Path
from typing import Any

from modelyard.control.backups import Restored, Summary, read_summary, restore_platform
from modelyard.control.records import records_url
from modelyard.foundation.settings import load
from modelyard.processes.artifact_stores import ARTIFACT_STORES


def look_into(file: Path) -> tuple[Summary, str]:
    """What a backup holds and its digest, after its seal was checked; raises as `read_summary` does."""
    return read_summary(file)


def restore_into(file: Path, data: Path, *, settings: Path | None = None) -> Restored:
    """Put `file` back into the empty directory `data`, and the records where `settings` say that they are kept.

    Raises as `restore_platform` and `load` do.
    """
    store: Any = ARTIFACT_STORES.get("files")
    chosen = load(file=settings, environment=os.environ)
    url = records_url(chosen.records)
    if url is not None:
        import_module("modelyard.control.api")  # every capability declares its tables, so that all are copied
    return restore_platform(file, data, store=store, url=url)
