"""Services: what is wanted of them, how they get there, every revision they had.

`Deployments` takes wishes, `Reconciler` fulfils them, `service_routes` is what the routing table says of all services.
Where workers run is an orchestrator's business; they are reached by name.
"""

from typing import Final

from modelyard.control.deployments.preparation import EnvironmentPreparer
from modelyard.control.deployments.reconciler import Pace, Reconciler
from modelyard.control.deployments.service import Deployments, Wish
from modelyard.control.deployments.store import TOPIC, Publish, service_routes, services_using
from modelyard.control.deployments.view import Addresses
from modelyard.foundation.registry import Registry
from modelyard.ports.orchestrator import Orchestrator

ORCHESTRATORS: Final = Registry[Orchestrator](
    group="modelyard.orchestrators",
    builtin={"local": "modelyard.integrations.orchestrators.local:LocalOrchestrator"},
)

__all__ = [
    "ORCHESTRATORS",
    "TOPIC",
    "Addresses",
    "Deployments",
    "EnvironmentPreparer",
    "Pace",
    "Publish",
    "Reconciler",
    "Wish",
    "service_routes",
    "services_using",
]
