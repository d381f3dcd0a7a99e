"""Alive, ready, and figures: what probes and scrapers ask."""

from fastapi import APIRouter, Request, Response
from sqlalchemy import text

from modelyard.control.records import parts_of
from modelyard.domain.errors.base import ModelyardError
from modelyard.domain.errors.platform import NotSupported

router = APIRouter(tags=["health"])
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


@router.get("/healthz", summary="Whether the control plane is alive", response_class=Response)
def healthz(request: Request) -> Response:
    """200 while the process answers at all. Without a body where keys are asked for."""
    return _said(request, "ok")


@router.get("/readyz", summary="Whether the control plane can do its work", response_class=Response)
def readyz(request: Request) -> Response:
    """200 when the records can be read, 503 otherwise. Without a body where keys are asked for."""
    try:
        with parts_of(request).database.read() as tx:
            tx.execute(text("SELECT 1"))
    except ModelyardError:
        return _said(request, "the records cannot be read", status=503)
    return _said(request, "ready")


@router.get("/metrics", summary="Figures for Prometheus", response_class=Response)
def metrics(request: Request) -> Response:
    """All figures of this process group, in the Prometheus text format."""
    figures = parts_of(request).metrics
    if figures is None:
        raise NotSupported("this control plane keeps no figures")
    return Response(figures(), media_type=PROMETHEUS)


def _said(request: Request, words: str, *, status: int = 200) -> Response:
    body = b"" if parts_of(request).auth_required else words.encode() + b"\n"
    return Response(body, status, media_type="text/plain")
