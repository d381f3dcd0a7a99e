"""Nodes over HTTP."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Path, Request
from pydantic import BaseModel, ConfigDict, Field

from modelyard.control.identity import caller, missing, require_everywhere
from modelyard.control.nodes.board import Board
from modelyard.control.nodes.machine import node_documents
from modelyard.control.nodes.roster import MAX_REASON, Roster
from modelyard.control.records import parts_of
from modelyard.domain.access import Verb
from modelyard.domain.errors.base import quote
from modelyard.domain.nodes import NodeWish

router = APIRouter(tags=["nodes"])
NodeName = Annotated[str, Path(alias="node", max_length=255)]


class WishBody(BaseModel):
    """Why it is wanted; kept with the node and in history."""

    model_config = ConfigDict(extra="forbid")

    why: Annotated[str, Field(max_length=MAX_REASON)] = ""


Why = Annotated[WishBody, Body(default_factory=WishBody)]


@router.get("/nodes", summary="What runs where")
def list_nodes(request: Request) -> dict[str, Any]:
    """The nodes of the platform, their servers and workers, and which model runs where and why."""
    require_everywhere(caller(request), Verb.READ)
    return {"items": _documents(request), "next_cursor": None}


@router.get("/nodes/{node}", summary="One node")
def show_node(request: Request, name: NodeName) -> dict[str, Any]:
    """One node."""
    require_everywhere(caller(request), Verb.READ)
    return _find(request, name)


@router.post("/nodes/{node}/cordon", summary="Keep new workers away from a node")
def cordon(request: Request, name: NodeName, body: Why) -> dict[str, Any]:
    """It takes no new workers and keeps those it has."""
    return _wish(request, name, NodeWish.CORDONED, body.why)


@router.post("/nodes/{node}/drain", summary="Move a node's workers elsewhere")
def drain(request: Request, name: NodeName, body: Why) -> dict[str, Any]:
    """It takes no new workers, and each of those it has ends when it is ready on another node."""
    return _wish(request, name, NodeWish.DRAINING, body.why)


@router.post("/nodes/{node}/uncordon", summary="Open a node again")
def uncordon(request: Request, name: NodeName, body: Why) -> dict[str, Any]:
    """It takes workers again."""
    return _wish(request, name, NodeWish.OPEN, body.why)


def _wish(request: Request, name: str, wish: NodeWish, why: str) -> dict[str, Any]:
    parts_of(request).get(Roster).wish(caller(request), name, wish, why=why)
    return _find(request, name)


def _find(request: Request, name: str) -> dict[str, Any]:
    for node in _documents(request):
        if node["name"] == name:
            return node
    raise missing(f"node {quote(name)}")


def _documents(request: Request) -> list[dict[str, Any]]:
    parts = parts_of(request)
    return node_documents(parts.get(Board), parts.get(Roster))
