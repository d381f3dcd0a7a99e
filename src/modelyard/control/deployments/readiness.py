"""How ready a revision is, by what orchestrator and model servers say. Pure."""

from modelyard.control.deployments.state import PreparationState, Service
from modelyard.control.deployments.steps import Observed, Readiness
from modelyard.control.deployments.workers import judge_workers
from modelyard.domain.contract import Isolation
from modelyard.domain.routing import BackendStatus, ServerReport
from modelyard.domain.service import ServiceSpec


def judge(service: Service, revision: int, observed: Observed) -> Readiness:
    """How ready `revision` is: prepared, its workers ready, and right on every live model server."""
    spec = service.spec(revision)
    unprepared = judge_preparation(revision, observed)
    if unprepared is not None:
        return unprepared
    if spec.isolation is Isolation.PROCESS:
        of_workers = judge_workers(service, revision, observed)
        if not of_workers.ready:
            return of_workers
    return judge_servers(spec, revision, observed)


def judge_preparation(revision: int, observed: Observed) -> Readiness | None:
    """None when nothing has to be built first, or all of it is."""
    if observed.is_prepared(revision):
        return None
    preparation = observed.preparations[revision]
    return Readiness(failed=preparation.state is PreparationState.FAILED, reason=preparation.reason)


def judge_servers(spec: ServiceSpec, revision: int, observed: Observed) -> Readiness:
    """Ready when every live server has it loaded and got its golden request answered right."""
    if not observed.servers:
        return Readiness(reason="no model server has reported yet")
    said = [(report.server, status_of(report, spec, revision)) for report in observed.servers]
    if all(status is not None and status.state == "ready" for _, status in said):
        return Readiness(ready=True)
    decided = all(status is not None and status.state in ("ready", "failed") for _, status in said)
    for server, status in said:
        if decided and status is not None and status.state == "failed":
            return Readiness(failed=True, reason=f"{server} cannot serve it: {status.reason or 'no reason given'}")
    ready = sum(status is not None and status.state == "ready" for _, status in said)
    return Readiness(reason=f"{ready} of {len(said)} model servers have revision {revision} ready")


def status_of(report: ServerReport, spec: ServiceSpec, revision: int) -> BackendStatus | None:
    """What one server says of one revision of a service, if anything; what it says of other bytes does not count."""
    for status in report.backends:
        place = (status.project, status.service, status.revision, status.digest)
        if place == (spec.project, spec.name, revision, spec.digest):
            return status
    return None
