"""Manifests over HTTP: the same plan value for those who look and those who apply."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from modelyard.control.deployments.manifest_reading import read_manifests
from modelyard.control.deployments.manifests import ManifestPlan, Manifests
from modelyard.control.deployments.schemas import NAME, ManifestsBody
from modelyard.control.deployments.service import Deployments
from modelyard.control.identity import caller, reach_of
from modelyard.control.records import parts_of
from modelyard.foundation.documents import to_plain

router = APIRouter(tags=["manifests"])


@router.post("/manifests/plan", summary="What applying manifests would do")
def plan_manifests(request: Request, body: ManifestsBody) -> dict[str, Any]:
    """What applying these manifests would do now, field by field; nothing is changed."""
    made = _manifests(request).plan(caller(request), read_manifests(body.documents), retry=body.retry)
    return _document(made)


@router.post("/manifests/apply", summary="Apply manifests, all or none")
def apply_manifests(request: Request, body: ManifestsBody) -> dict[str, Any]:
    """Apply these manifests in one unit of work; gives the plan that was carried out."""
    made = _manifests(request).apply(
        caller(request), read_manifests(body.documents), retry=body.retry, fingerprint=body.fingerprint
    )
    return _document(made)


@router.get("/manifests", summary="Manifests of what is deployed")
def export_manifests(
    request: Request, *, project: Annotated[str | None, Query(pattern=NAME, max_length=63)] = None
) -> dict[str, Any]:
    """Manifests of all services that the caller may see: what `apply` reads. Nothing that the platform decides."""
    items = _manifests(request).export(reach_of(caller(request)), project)
    return {"items": items, "next_cursor": None}


def _manifests(request: Request) -> Manifests:
    return Manifests(parts_of(request).get(Deployments))


def _document(made: ManifestPlan) -> dict[str, Any]:
    return {"has_changes": made.has_changes, **to_plain(made)}
