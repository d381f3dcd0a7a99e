"""What is known of a service's traffic, over HTTP: the evidence about its canary, the report of its shadow."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request

from modelyard.control.deployments import Deployments
from modelyard.control.identity import caller, missing
from modelyard.control.nodes import Board
from modelyard.control.records import parts_of
from modelyard.control.traffic.guard import keeping
from modelyard.control.traffic.guard.loop import GuardLoop
from modelyard.control.traffic.shadows import shadow_document
from modelyard.domain.errors.base import quote
from modelyard.domain.names import NAME_PATTERN

router = APIRouter(tags=["services"])
_NAME = f"^{NAME_PATTERN}$"
ServiceName = Annotated[str, Path(pattern=_NAME, max_length=63)]
Project = Annotated[str | None, Query(pattern=_NAME, max_length=63, description="The project; default: the caller's.")]


@router.get("/services/{service}/rollout/evidence", summary="What is known of a service's canary")
def show_evidence(request: Request, service: ServiceName, *, project: Project = None) -> dict[str, Any]:
    """The last canary against what was live: n, effect with interval, evidence, what cannot be seen yet, for how long.

    Effects are shares for errors and predictions, factors for latency; null is without bound.
    """
    who, deployments = caller(request), parts_of(request).get(Deployments)
    place = project or who.project
    stored = deployments.find(who, place, service)
    with deployments.database.read() as tx:
        kept = keeping.newest(tx, place, service)
    if kept is None:
        raise missing(f"evidence about a canary of {quote(service)}")
    return parts_of(request).get(GuardLoop).document(kept, stored.service)


@router.get("/services/{service}/shadow", summary="How a shadow's answers compare")
def show_shadow(request: Request, service: ServiceName, *, project: Project = None) -> dict[str, Any]:
    """Requests copied, compared, dropped and failed since the servers hold this shadow; where its answers differ.

    Examples name the output, both answers and a digest of the row's inputs. Times are those of runs of the models.
    """
    who = caller(request)
    place = project or who.project
    present = parts_of(request).get(Deployments).find(who, place, service).service
    board = parts_of(request).get(Board)
    live = present.status.goal if present.status.live is None else present.status.live
    found = shadow_document((*board.alive(), *board.silent()), present.spec(live), revision=live)
    if found is None:
        raise missing(f"a shadow of {quote(service)}")
    return found
