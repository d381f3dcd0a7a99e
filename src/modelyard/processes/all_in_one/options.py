"""What a person asked of `up`."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from modelyard.foundation.places import Places, default_data_directory
from modelyard.processes.edge_rules import Exposure


@dataclass(frozen=True, slots=True, kw_only=True)
class UpOptions:
    """Ports that are None move to the next free one. `servers` is the number of listening model servers."""

    data: Path = field(default_factory=default_data_directory)
    control_port: int | None = None
    inference_port: int | None = None
    grpc_port: int | None = None
    servers: int = field(default_factory=lambda: max(1, os.cpu_count() or 1))
    settings: Path | None = None
    exposure: Exposure = field(default_factory=lambda: Exposure(host="127.0.0.1"))
    grace_s: float = 10.0

    @property
    def places(self) -> Places:
        """Where this platform keeps its things."""
        return Places(self.data.resolve())
