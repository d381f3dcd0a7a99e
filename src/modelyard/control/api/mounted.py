"""The routes that are mounted below `/api/v1`, capability by capability."""

from typing import Final

from fastapi import APIRouter

from modelyard.control.backups.routes import router as backups
from modelyard.control.catalog.routes import router as catalog
from modelyard.control.deployments.routes import router as deployments
from modelyard.control.history.routes import router as history
from modelyard.control.identity.routes import router as identity
from modelyard.control.intake.routes import router as intake
from modelyard.control.jobs.routes import router as jobs
from modelyard.control.nodes.routes import router as nodes
from modelyard.control.traffic.routes import router as traffic

ROUTERS: Final[tuple[APIRouter, ...]] = (
    catalog,
    intake,
    deployments,
    traffic,
    jobs,
    nodes,
    history,
    identity,
    backups,
)
