"""List versions: those of a model, and those of all models that wait for a person."""

from typing import cast

from sqlalchemy import select

from modelyard.control.catalog.lookup import read_versions, versions_query
from modelyard.control.catalog.tables import model_versions, models
from modelyard.control.catalog.values import ModelRecord, VersionRecord
from modelyard.control.identity import Principal, reach_of, visible
from modelyard.control.records import Page, Transaction, cut, read_cursor
from modelyard.domain.access import Verb
from modelyard.domain.lifecycle import VersionState


def list_versions(
    tx: Transaction, model: ModelRecord, *, state: VersionState | None, limit: int, cursor: str | None
) -> Page[VersionRecord]:
    """Versions of a model, newest first."""
    query = versions_query().where(model_versions.c.model_id == model.id)
    if state is not None:
        query = query.where(model_versions.c.state == state)
    if cursor is not None:
        (last,) = read_cursor(cursor, kinds=(int,))
        query = query.where(model_versions.c.ordinal < cast("int", last))
    rows = tx.execute(query.order_by(model_versions.c.ordinal.desc()).limit(limit + 1)).mappings().all()
    return cut(read_versions(tx, rows), limit=limit, position=lambda version: (version.ordinal,))


def list_reviews(
    tx: Transaction, principal: Principal, *, project: str | None, limit: int, cursor: str | None
) -> Page[VersionRecord]:
    """Versions that need a person and that the caller may decide on, oldest first."""
    reach = reach_of(principal, Verb.APPROVE) if principal.may_anywhere(Verb.APPROVE) else reach_of(principal)
    query = versions_query().where(
        model_versions.c.state == VersionState.NEEDS_REVIEW,
        model_versions.c.model_id.in_(
            select(models.c.id).where(visible(reach, project=models.c.project, name=models.c.name))
        ),
    )
    if project is not None:
        query = query.where(models.c.project == project)
    if cursor is not None:
        (last,) = read_cursor(cursor, kinds=(str,))
        query = query.where(model_versions.c.id > last)
    rows = tx.execute(query.order_by(model_versions.c.id).limit(limit + 1)).mappings().all()
    return cut(read_versions(tx, rows), limit=limit, position=lambda version: (version.id,))
