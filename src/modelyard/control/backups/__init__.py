"""Backups: the whole platform in one file, made while it works, and put back into an empty place.

`Backups.make` gives the bytes of an archive; `restore_platform` reads one. `archive` is the format that both share.
"""

from modelyard.control.backups.archive import SUFFIX, Summary
from modelyard.control.backups.making import Backups
from modelyard.control.backups.restoring import Restored, read_summary, restore_platform

__all__ = ["SUFFIX", "Backups", "Restored", "Summary", "read_summary", "restore_platform"]
