"""What a person asked of `up`."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from modelyard.foundation.places import Places, default_data_directory
from modelyard.processes.edge_rules import Exposure


@dataclass(frozen=True, slots=True, kw_only=True)
class UpOptions:
    """Ports that are None move to the next free one. `servers` is the number of listening model servers.

    `nodes` other than 0 makes that many nodes of this machine, each with an agent that keeps isolated workers.
    """

    data: Path = field(default_factory=default_data_directory)
    control_port: int | None = None
    inference_port: int | None = None
    grpc_port: int | None = None
    servers: int = field(default_factory=lambda: max(1, os.cpu_count() or 1))
    nodes: int = 0
    settings: Path | None = None
    exposure: Exposure = field(default_factory=lambda: Exposure(host="127.0.0.1"))
    grace_s: float = 10.0

    @property
    def node_names(self) -> tuple[str, ...]:
        """The nodes that have agents; none where the supervisor keeps the workers itself."""
        return tuple(f"node-{number + 1}" for number in range(self.nodes))

    @property
    def places(self) -> Places:
        """Where this platform keeps its things."""
        return Places(self.data.resolve())
