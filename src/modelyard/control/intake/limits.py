"""Bounds of an upload while it is being received; the inspection has its own for what it finds inside."""

from dataclasses import dataclass
from typing import Final

KIB: Final = 1 << 10
MIB: Final = 1 << 20
GIB: Final = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadLimits:
    """Every field can be set; sizes in bytes, times in seconds.

    A body slower than `minimum_bytes_per_s` on average, once `grace_s` have passed, is given up, and so is one that
    takes longer than `receive_s` in all or pauses longer than `pause_s`.
    """

    files: int = 64
    part_headers: int = 16
    part_header_bytes: int = 8 * KIB
    config_bytes: int = 256 * KIB
    labels_bytes: int = 4 * MIB
    total_bytes: int = 4 * GIB
    minimum_bytes_per_s: int = 4 * KIB
    grace_s: float = 15.0
    pause_s: float = 30.0
    receive_s: float = 6 * 3600.0
    resumable_s: float = 24 * 3600.0
    resumable_uploads: int = 64
    inspections: int = 2
    waiting: int = 16
    inspection_memory_bytes: int = 2 * GIB
    project_bytes: int | None = None
    spare_disk_bytes: int = 64 * MIB

    def bytes_for(self, name: str) -> int:
        """The largest size a file of this name may have; the kind is read from the name as the client gave it."""
        lower = name.lower()
        if lower in ("config.json", "model.yaml", "model.yml"):
            return self.config_bytes
        if lower.startswith("labels."):
            return self.labels_bytes
        return self.total_bytes
