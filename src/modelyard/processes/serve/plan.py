"""What `serve` starts: the static routing table, the model servers, and isolated workers where the model needs one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelyard.domain.contract import Isolation, ServingPackage
from modelyard.domain.routing import Backend, Batching, RoutingTable, ServiceRoute
from modelyard.foundation.documents import to_json
from modelyard.foundation.supervision import ChildSpec

if TYPE_CHECKING:
    from pathlib import Path

    from modelyard.processes.serve.session import ServeOptions
