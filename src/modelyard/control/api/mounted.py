"""The routes that are mounted below `/api/v1`, capability by capability."""

from typing import Final

from fastapi import APIRouter

from modelyard.control.catalog.routes import router as catalog
from modelyard.control.history.routes import router as history
from modelyard.control.identity.routes import router as identity

ROUTERS: Final[tuple[APIRouter, ...]] = (catalog, history, identity)
