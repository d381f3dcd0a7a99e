"""Enter a new version into the library. Called by intake, in the unit of work that ends an upload."""

from typing import Final

from sqlalchemy import Column, Select, func, insert, select, update

from modelyard.control.catalog.lookup import find_model, find_version
from modelyard.control.catalog.search import index_model
from modelyard.control.catalog.tables import model_versions, models, version_files
from modelyard.control.catalog.values import NewVersion, VersionRecord
from modelyard.control.history import append
from modelyard.control.records import Transaction, make_id
from modelyard.domain.errors.base import quote
from modelyard.domain.errors.platform import Conflict, InvalidRequest
from modelyard.domain.lifecycle import VersionState
from modelyard.domain.names import require_name
from modelyard.domain.report import Verdict
from modelyard.foundation.documents import to_plain

_STATE_OF: Final = {
    Verdict.APPROVED: VersionState.APPROVED,
    Verdict.NEEDS_REVIEW: VersionState.NEEDS_REVIEW,
}
_BIGGEST: Final = 10**15


def register_version(tx: Transaction, new: NewVersion) -> VersionRecord:
    """The new version, with its model when that is new too, and its history entry.

    Version names are never used twice, not even after a deletion. The same name with the same digest is the same
    version, so a repeated registration gives the first one back.

    Raises:
        Conflict: the version exists with other content, or the audit refused it.
        InvalidRequest: a name that cannot be one.
    """
    if new.audit.verdict not in _STATE_OF:
        raise Conflict(f"the audit refused {quote(new.model)}; a refused upload is not kept")
    require_name(new.model, what="model name")
    model_id = _model_of(tx, new)
    label, existing = _label(tx, model_id, new)
    if existing:
        return find_version(tx, find_model(tx, new.project, new.model), label)
    _add_version(tx, model_id, label, new)
    _touch_model(tx, model_id, new)
    record = find_version(tx, find_model(tx, new.project, new.model), label)
    append(
        tx,
        actor=new.author,
        action="model.version_added",
        subject=f"model/{new.model}",
        project=new.project,
        payload={
            "model": new.model,
            "version": label,
            "digest": new.digest,
            "format": new.format.value,
            "state": record.state.value,
            "verdict": new.audit.verdict.value,
            "source": dict(new.source),
        },
    )
    return record


def _add_version(tx: Transaction, model_id: str, label: str, new: NewVersion) -> None:
    version_id = make_id("ver", now=tx.now)
    tx.execute(
        insert(model_versions).values(
            id=version_id,
            model_id=model_id,
            version=label,
            ordinal=(tx.scalar(_highest(model_versions.c.ordinal, model_id)) or 0) + 1,
            numeric=_number(label),
            digest=new.digest,
            format=new.format.value,
            task=new.task.value,
            library=new.library,
            isolation=new.isolation.value,
            size_bytes=sum(file.size_bytes for file in new.files.values()),
            state=_STATE_OF[new.audit.verdict].value,
            has_package=new.has_package,
            contract=None if new.contract is None else to_plain(new.contract),
            golden=None if new.golden is None else to_plain(new.golden),
            audit=to_plain(new.audit),
            card=new.card,
            source=dict(new.source),
            author_id=new.author.id,
            author_name=new.author.name,
            created_at=tx.now,
            reason="",
            edition=1,
        )
    )
    _add_files(tx, version_id, new)


def _touch_model(tx: Transaction, model_id: str, new: NewVersion) -> None:
    tx.execute(
        update(models)
        .where(models.c.id == model_id)
        .values(
            task=new.task.value,
            library=new.library,
            format=new.format.value,
            updated_at=tx.now,
            edition=models.c.edition + 1,
        )
    )
    index_model(tx, model_id)


def _model_of(tx: Transaction, new: NewVersion) -> str:
    found = tx.scalar(select(models.c.id).where(models.c.project == new.project, models.c.name == new.model))
    if found is not None:
        return str(found)
    model_id = make_id("mod", now=tx.now)
    tx.execute(
        insert(models).values(
            id=model_id,
            project=new.project,
            name=new.model,
            description=new.description,
            created_at=tx.now,
            created_by=new.author.name,
            updated_at=tx.now,
            visibility="private",
            task="",
            library="",
            format="",
            search_text="",
            edition=1,
        )
    )
    return model_id


def _label(tx: Transaction, model_id: str, new: NewVersion) -> tuple[str, bool]:
    """The version's name, and whether the very same one is there already."""
    if new.version is None:
        return str((tx.scalar(_highest(model_versions.c.numeric, model_id)) or 0) + 1), False
    label = require_name(new.version, what="version name")
    row = tx.execute(
        select(model_versions.c.digest, model_versions.c.state).where(
            model_versions.c.model_id == model_id, model_versions.c.version == label
        )
    ).first()
    if row is None:
        return label, False
    if row.state == VersionState.DELETED or row.digest != new.digest:
        raise Conflict(
            f"version {quote(label)} of {quote(new.model)} exists with other content, and versions never change",
            hint="leave the version out to take the next number",
        )
    return label, True


def _add_files(tx: Transaction, version_id: str, new: NewVersion) -> None:
    if not new.files:
        raise InvalidRequest("a version needs at least one file")
    tx.execute(
        insert(version_files),
        [
            {"version_id": version_id, "name": name, "sha256": file.sha256, "size_bytes": file.size_bytes}
            for name, file in new.files.items()
        ],
    )


def _highest(column: Column[int], model_id: str) -> Select[int]:
    return select(func.max(column)).where(model_versions.c.model_id == model_id)


def _number(label: str) -> int | None:
    """The label as a number, when it is written as one and small enough to count on from."""
    if label.isascii() and label.isdecimal() and str(int(label)) == label and int(label) < _BIGGEST:
        return int(label)
    return None
