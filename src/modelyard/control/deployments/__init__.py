"""Services: what is wanted of them, how they get there, every revision they had.

`Deployments` takes wishes, `Reconciler` fulfils them, `Rollouts` moves those that are on their way (a guard hands it a
`Decision` with its evidence), `service_routes` is what the routing table says of all services.
Where workers run is an orchestrator's business; they are reached by name.
"""

from typing import Final

from modelyard.control.deployments.loading import look, set_loaded
from modelyard.control.deployments.preparation import EnvironmentPreparer
from modelyard.control.deployments.reconciler import Reconciler
from modelyard.control.deployments.rollouts import Decision, Rollouts
from modelyard.control.deployments.routing import is_canary
from modelyard.control.deployments.scaler import Scaler
from modelyard.control.deployments.service import STEPS, Deployments
from modelyard.control.deployments.state import RolloutProgress, Service, Status
from modelyard.control.deployments.steps import Pace
from modelyard.control.deployments.store import (
    TOPIC,
    Publish,
    Stored,
    find_services,
    service_routes,
    services_using,
    services_with_secret,
)
from modelyard.control.deployments.targets import Targets
from modelyard.control.deployments.view import Addresses
from modelyard.control.deployments.wishes import Wish
from modelyard.foundation.registry import Registry
from modelyard.ports.orchestrator import Orchestrator

ORCHESTRATORS: Final = Registry[Orchestrator](
    group="modelyard.orchestrators",
    builtin={"local": "modelyard.integrations.orchestrators.local:LocalOrchestrator"},
)

__all__ = [
    "ORCHESTRATORS",
    "STEPS",
    "TOPIC",
    "Addresses",
    "Decision",
    "Deployments",
    "EnvironmentPreparer",
    "Pace",
    "Publish",
    "Reconciler",
    "RolloutProgress",
    "Rollouts",
    "Scaler",
    "Service",
    "Status",
    "Stored",
    "Targets",
    "Wish",
    "find_services",
    "is_canary",
    "look",
    "service_routes",
    "services_using",
    "services_with_secret",
    "set_loaded",
]
