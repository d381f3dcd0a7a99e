"""Change a model: its description, tags, visibility, and where its aliases point."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import delete, insert, update

from modelyard.control.catalog.lookup import find_model, find_version
from modelyard.control.catalog.search import index_model
from modelyard.control.catalog.tables import model_aliases, model_shares, model_tags, models
from modelyard.control.catalog.values import ModelRecord
from modelyard.control.history import append
from modelyard.control.identity import Principal, Visibility, find_project, missing, require
from modelyard.control.records import Transaction
from modelyard.domain.access import Verb
from modelyard.domain.errors.base import quote
from modelyard.domain.errors.platform import Conflict, InvalidRequest
from modelyard.domain.lifecycle import VersionState
from modelyard.domain.names import require_name

MAX_TAGS: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelChanges:
    """What is to be different; None leaves a thing as it is. Lists replace the whole list."""

    description: str | None = None
    visibility: Visibility | None = None
    tags: Sequence[str] | None = None
    shared_with: Sequence[str] | None = None

    def payload(self) -> dict[str, object]:
        """What was asked for, as history keeps it."""
        found: dict[str, object] = {}
        if self.description is not None:
            found["description"] = self.description
        if self.visibility is not None:
            found["visibility"] = self.visibility.value
        if self.tags is not None:
            found["tags"] = sorted(set(self.tags))
        if self.shared_with is not None:
            found["shared_with"] = sorted(set(self.shared_with))
        return found


def change_model(tx: Transaction, principal: Principal, model: ModelRecord, changes: ModelChanges) -> ModelRecord:
    """Carry out the changes, with their history entry. Sharing and publishing need `admin`, the rest `deploy`."""
    require(principal, Verb.DEPLOY, project=model.project, name=model.name)
    payload = changes.payload()
    if changes.visibility is not None or changes.shared_with is not None:
        require(principal, Verb.ADMIN, project=model.project, name=model.name)
    if not payload:
        return model
    if changes.tags is not None:
        _replace_tags(tx, model, changes.tags)
    if changes.shared_with is not None:
        _replace_shares(tx, model, changes.shared_with)
    values = {name: payload[name] for name in ("description", "visibility") if name in payload}
    _touch(tx, model, **values)
    index_model(tx, model.id)
    append(
        tx,
        actor=principal.actor,
        action="model.changed",
        subject=f"model/{model.name}",
        project=model.project,
        payload=payload,
    )
    return find_model(tx, model.project, model.name)


def set_alias(tx: Transaction, principal: Principal, model: ModelRecord, alias: str, version: str) -> ModelRecord:
    """Point `alias` at an approved version; `Conflict` when it is not approved. Needs `deploy`."""
    require(principal, Verb.DEPLOY, project=model.project, name=model.name)
    require_name(alias, what="alias")
    target = find_version(tx, model, version)
    if target.state is not VersionState.APPROVED:
        raise Conflict(
            f"{model.name}:{target.version} is {target.state}, and aliases point at approved versions",
            hint=f"modelyard approve {model.name}:{target.version} first",
        )
    before = model.aliases.get(alias)
    if before == target.version:
        return model
    tx.execute(delete(model_aliases).where(model_aliases.c.model_id == model.id, model_aliases.c.alias == alias))
    tx.execute(
        insert(model_aliases).values(
            model_id=model.id, alias=alias, version_id=target.id, set_at=tx.now, set_by=principal.name
        )
    )
    _touch(tx, model)
    append(
        tx,
        actor=principal.actor,
        action="model.alias_set",
        subject=f"model/{model.name}",
        project=model.project,
        payload={"model": model.name, "alias": alias, "version": target.version, "before": before},
    )
    return find_model(tx, model.project, model.name)


def remove_alias(tx: Transaction, principal: Principal, model: ModelRecord, alias: str) -> None:
    """Take the alias away; `NotFound` when there is none. Needs `deploy`."""
    require(principal, Verb.DEPLOY, project=model.project, name=model.name)
    if alias not in model.aliases:
        raise missing(f"alias {quote(alias)} of model {quote(model.name)}")
    tx.execute(delete(model_aliases).where(model_aliases.c.model_id == model.id, model_aliases.c.alias == alias))
    _touch(tx, model)
    append(
        tx,
        actor=principal.actor,
        action="model.alias_removed",
        subject=f"model/{model.name}",
        project=model.project,
        payload={"model": model.name, "alias": alias, "before": model.aliases[alias]},
    )


def _touch(tx: Transaction, model: ModelRecord, **values: object) -> None:
    tx.execute(
        update(models).where(models.c.id == model.id).values(**values, updated_at=tx.now, edition=model.edition + 1)
    )


def _replace_tags(tx: Transaction, model: ModelRecord, tags: Sequence[str]) -> None:
    wanted = sorted({require_name(tag, what="tag") for tag in tags})
    if len(wanted) > MAX_TAGS:
        raise InvalidRequest(f"a model has at most {MAX_TAGS} tags")
    tx.execute(delete(model_tags).where(model_tags.c.model_id == model.id))
    if wanted:
        tx.execute(insert(model_tags), [{"model_id": model.id, "tag": tag} for tag in wanted])


def _replace_shares(tx: Transaction, model: ModelRecord, projects: Sequence[str]) -> None:
    wanted = sorted(set(projects) - {model.project})
    for project in wanted:
        find_project(tx, project)
    tx.execute(delete(model_shares).where(model_shares.c.model_id == model.id))
    if wanted:
        tx.execute(insert(model_shares), [{"model_id": model.id, "project": project} for project in wanted])
