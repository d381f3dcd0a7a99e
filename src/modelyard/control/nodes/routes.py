"""Nodes over HTTP."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request

from modelyard.control.identity import caller, missing, require_everywhere
from modelyard.control.nodes.board import Board
from modelyard.control.nodes.machine import node_documents
from modelyard.control.records import parts_of
from modelyard.domain.access import Verb
from modelyard.domain.errors.base import quote

router = APIRouter(tags=["nodes"])


@router.get("/nodes", summary="What runs where")
def list_nodes(request: Request) -> dict[str, Any]:
    """The machines of the platform, their servers, and which model runs where and why."""
    require_everywhere(caller(request), Verb.READ)
    return {"items": node_documents(parts_of(request).get(Board)), "next_cursor": None}


@router.get("/nodes/{node}", summary="One machine")
def show_node(request: Request, name: Annotated[str, Path(alias="node", max_length=255)]) -> dict[str, Any]:
    """One machine."""
    require_everywhere(caller(request), Verb.READ)
    for node in node_documents(parts_of(request).get(Board)):
        if node["name"] == name:
            return node
    raise missing(f"node {quote(name)}")
