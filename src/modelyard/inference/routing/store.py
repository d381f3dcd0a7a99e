"""The newest routing table that this server was given, in memory and on its own disk."""

import logging
import os
from pathlib import Path

from modelyard.domain.errors.platform import InvalidRequest
from modelyard.domain.routing import RoutingTable
from modelyard.foundation.documents import to_json
from modelyard.inference.routing.table_checks import read_table

_log = logging.getLogger(__name__)


class TableStore:
    """Keeps the newest table. `path` is where it survives a restart; None keeps it in memory only."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.table: RoutingTable | None = None

    def load(self) -> RoutingTable | None:
        """The table on disk; None when there is none, or it cannot be read (that is logged)."""
        if self._path is None or not self._path.exists():
            return None
        try:
            self.table = read_table(self._path.read_bytes())
        except (OSError, InvalidRequest) as error:
            _log.warning("the kept routing table cannot be read", extra={"reason": str(error)})
            return None
        return self.table

    def offer(self, table: RoutingTable) -> bool:
        """Keep `table` if it is newer than what is held; whether it was."""
        if self.table is not None and table.revision <= self.table.revision:
            return False
        self.table = table
        if self._path is not None:
            try:
                _replace(self._path, to_json(table))
            except OSError as error:  # serving goes on; only a start without the control plane would be older
                _log.warning("the routing table cannot be kept on disk", extra={"reason": str(error)})
        return True


def _replace(path: Path, data: bytes) -> None:
    """Whole or not at all, and still there after a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)
    partial.replace(path)
