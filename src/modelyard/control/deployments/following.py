"""Services that follow an alias: when it points at another version, the platform makes the revision that says so.

What was given up or rolled back stays so: a service is moved only when the alias points at something else than what it
was asked for last, and never to a digest that is rejected for it.
"""

from modelyard.control.deployments import store
from modelyard.control.deployments.manifest_fields import Manifest, manifest_of, wish_of
from modelyard.control.deployments.service import Deployments
from modelyard.control.deployments.state import Service
from modelyard.control.deployments.wishes import Wish, spec_of
from modelyard.control.identity import system_actor
from modelyard.control.records import Transaction
from modelyard.domain.errors import ModelyardError
from modelyard.domain.service import Phase, ServiceSpec


def follow_aliases(deployments: Deployments) -> int:
    """Revise every following service whose alias has moved; how many there were."""
    with deployments.database.read() as tx:
        moved = [
            (stored.service.project, stored.service.name)
            for stored in store.find_services(tx)
            if _next(tx, deployments, stored.service) is not None
        ]
    for project, name in moved:
        with deployments.changing() as tx:
            present = store.find_any(tx, project, name)
            spec = None if present is None else _next(tx, deployments, present.service)
            if present is not None and spec is not None:
                why = f"the alias {spec.alias} points at {spec.version} now"
                deployments.revise(tx, system_actor("alias-follower"), present, spec, why=why, action="service.changed")
    return len(moved)


def _next(tx: Transaction, deployments: Deployments, service: Service) -> ServiceSpec | None:
    """The spec that a following service has to get; None when its alias stands where it stood, or is not followed."""
    status = service.status
    asked = status.asked or service.spec(status.goal)
    if not asked.follow or status.phase in (Phase.DELETING, Phase.DELETED):
        return None
    try:
        spec, _ = spec_of(tx, as_wish(asked), present=None, targets=deployments.targets)
    except ModelyardError:
        return None  # the alias is gone, or what it names cannot be served: what answers stays
    moved = (spec.version, spec.digest) != (asked.version, asked.digest)
    return spec if moved and spec.digest not in status.rejected else None


def as_wish(spec: ServiceSpec) -> Wish:
    """The wish that a spec came of."""
    return wish_of(Manifest.model_validate(manifest_of(spec)))
