"""Find models and versions, and decide which version a name means."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from sqlalchemy import RowMapping, Select, func, select

from modelyard.control.catalog.tables import (
    model_aliases,
    model_shares,
    model_tags,
    model_versions,
    models,
    version_files,
)
from modelyard.control.catalog.values import ModelRecord, Resolved, StoredFile, VersionRecord
from modelyard.control.identity import Principal, Visibility, can_see, missing
from modelyard.control.records import Transaction
from modelyard.domain.contract import Golden, Isolation, ModelContract, ModelFormat, Task
from modelyard.domain.errors.base import quote
from modelyard.domain.errors.platform import Conflict, InvalidRequest
from modelyard.domain.lifecycle import VersionState
from modelyard.domain.report import AuditReport
from modelyard.foundation.documents import from_plain

CHAMPION: Final = "champion"


def find_model(tx: Transaction, project: str, name: str, *, seen_by: Principal | None = None) -> ModelRecord:
    """The model, or `NotFound`, also when it does not exist for `seen_by` (None: the platform itself looks)."""
    row = tx.execute(select(models).where(models.c.project == project, models.c.name == name)).mappings().first()
    if row is not None:
        model = read_models(tx, [row])[0]
        if seen_by is None or can_see(
            seen_by,
            project=project,
            name=name,
            visibility=model.visibility,
            shared_with=model.shared_with,
        ):
            return model
    raise missing(f"model {quote(name)} in project {quote(project)}")


def find_version(tx: Transaction, model: ModelRecord, version: str) -> VersionRecord:
    """The version of this name, or the one an `@alias` points at; `NotFound` otherwise."""
    query = versions_query().where(model_versions.c.model_id == model.id)
    if version.startswith("@"):
        query = query.join(model_aliases, model_aliases.c.version_id == model_versions.c.id)
        query = query.where(model_aliases.c.alias == version[1:])
    else:
        query = query.where(model_versions.c.version == version)
    row = tx.execute(query).mappings().first()
    if row is None:
        raise missing(f"version {quote(version)} of model {quote(model.name)}")
    return read_versions(tx, [row])[0]


def find_by_source(tx: Transaction, project: str, name: str, source: Mapping[str, Any]) -> VersionRecord | None:
    """The version of a model that came from just there; None when there is none."""
    query = versions_query().where(models.c.project == project, models.c.name == name)
    rows = [row for row in tx.execute(query).mappings() if row["source"] == dict(source)]
    return read_versions(tx, rows[:1])[0] if rows else None


def resolve(
    tx: Transaction, project: str, name: str, *, version: str | None = None, alias: str | None = None
) -> Resolved:
    """The version that is to be deployed: the named one, the alias's, else the champion, else the newest approved.

    Raises:
        NotFound: the model, version or alias is not there.
        Conflict: that version is not approved, or none of the model's is.
        InvalidRequest: both a version and an alias are given.
    """
    if version is not None and alias is not None:
        raise InvalidRequest("give a version or an alias, not both", hint=f"{name}:{version} or {name}@{alias}")
    model = find_model(tx, project, name)
    if version is not None:
        return Resolved(_deployable(find_version(tx, model, version)), "version")
    if alias is not None:
        return Resolved(_deployable(find_version(tx, model, f"@{alias}")), f"alias {alias}")
    if CHAMPION in model.aliases:
        return Resolved(_deployable(find_version(tx, model, f"@{CHAMPION}")), f"alias {CHAMPION}")
    newest = (
        versions_query()
        .where(model_versions.c.model_id == model.id, model_versions.c.state == VersionState.APPROVED)
        .order_by(model_versions.c.ordinal.desc())
        .limit(1)
    )
    row = tx.execute(newest).mappings().first()
    if row is None:
        raise Conflict(
            f"no version of {quote(name)} is approved",
            hint=f"modelyard versions {name} lists them; modelyard approve {name}:V approves one",
        )
    return Resolved(read_versions(tx, [row])[0], "newest approved")


def package_directory(packages: Path, version: VersionRecord) -> Path:
    """Where the serving package of a version lies: one directory a digest, shared by all versions of it."""
    return packages / version.digest.removeprefix("sha256:")


def versions_query() -> Select[Any]:
    """Rows that `read_versions` understands; deleted versions are left out."""
    return (
        select(model_versions, models.c.project, models.c.name.label("model"))
        .join(models, models.c.id == model_versions.c.model_id)
        .where(model_versions.c.state != VersionState.DELETED)
    )


def read_versions(tx: Transaction, rows: Sequence[RowMapping]) -> list[VersionRecord]:
    """Records of these rows, in their order, with files and aliases."""
    ids = [row["id"] for row in rows]
    files: dict[str, dict[str, StoredFile]] = {}
    for file in tx.execute(select(version_files).where(version_files.c.version_id.in_(ids)).order_by("name")):
        files.setdefault(file.version_id, {})[file.name] = StoredFile(sha256=file.sha256, size_bytes=file.size_bytes)
    aliases = _grouped(
        tx.execute(
            select(model_aliases.c.version_id, model_aliases.c.alias)
            .where(model_aliases.c.version_id.in_(ids))
            .order_by(model_aliases.c.alias)
        )
    )
    return [_version(row, files=files.get(row["id"], {}), aliases=aliases.get(row["id"], ())) for row in rows]


def read_models(tx: Transaction, rows: Sequence[RowMapping]) -> list[ModelRecord]:
    """Records of these rows, in their order, with tags, shares, aliases and the number of versions."""
    ids = [row["id"] for row in rows]
    tags = _grouped(
        tx.execute(
            select(model_tags.c.model_id, model_tags.c.tag).where(model_tags.c.model_id.in_(ids)).order_by("tag")
        )
    )
    shares = _grouped(
        tx.execute(
            select(model_shares.c.model_id, model_shares.c.project)
            .where(model_shares.c.model_id.in_(ids))
            .order_by(model_shares.c.project)
        )
    )
    aliases: dict[str, dict[str, str]] = {}
    for alias in tx.execute(
        select(model_aliases.c.model_id, model_aliases.c.alias, model_versions.c.version)
        .join(model_versions, model_versions.c.id == model_aliases.c.version_id)
        .where(model_aliases.c.model_id.in_(ids))
        .order_by(model_aliases.c.alias)
    ):
        aliases.setdefault(alias.model_id, {})[alias.alias] = alias.version
    counts = _counts(tx, ids)
    return [
        _model(
            row,
            tags=tags.get(row["id"], ()),
            shared_with=shares.get(row["id"], ()),
            aliases=aliases.get(row["id"], {}),
            count=counts.get(row["id"], (0, None)),
        )
        for row in rows
    ]


def _deployable(version: VersionRecord) -> VersionRecord:
    if version.state is VersionState.APPROVED:
        return version
    name = f"{version.model}:{version.version}"
    hints = {
        VersionState.NEEDS_REVIEW: f"modelyard show {name} tells what was found, modelyard approve {name} lets it in",
        VersionState.ARCHIVED: "restore it first",
    }
    raise Conflict(
        f"{name} is {version.state}, and only approved versions are deployed",
        hint=hints.get(version.state, f"modelyard versions {version.model} lists the others"),
    )


def _counts(tx: Transaction, ids: Sequence[str]) -> dict[str, tuple[int, str | None]]:
    newest = (
        select(
            model_versions.c.model_id,
            func.count().label("number"),
            func.max(model_versions.c.ordinal).label("ordinal"),
        )
        .where(model_versions.c.model_id.in_(ids), model_versions.c.state != VersionState.DELETED)
        .group_by(model_versions.c.model_id)
        .subquery()
    )
    rows = tx.execute(
        select(newest.c.model_id, newest.c.number, model_versions.c.version).join(
            model_versions,
            (model_versions.c.model_id == newest.c.model_id) & (model_versions.c.ordinal == newest.c.ordinal),
        )
    )
    return {row.model_id: (row.number, row.version) for row in rows}


def _grouped(pairs: Iterable[Any]) -> dict[str, tuple[str, ...]]:
    grouped: dict[str, tuple[str, ...]] = {}
    for owner, value in pairs:
        grouped[owner] = (*grouped.get(owner, ()), value)
    return grouped


def _version(row: RowMapping, *, files: dict[str, StoredFile], aliases: tuple[str, ...]) -> VersionRecord:
    plain = {name: row[name] for name in row if name not in ("numeric", "contract", "golden", "audit", "source")}
    plain["format"] = ModelFormat(row["format"])
    plain["task"] = Task(row["task"])
    plain["isolation"] = Isolation(row["isolation"])
    plain["state"] = VersionState(row["state"])
    return VersionRecord(
        **plain,
        files=files,
        aliases=aliases,
        contract=None if row["contract"] is None else from_plain(row["contract"], ModelContract),
        golden=None if row["golden"] is None else from_plain(row["golden"], Golden),
        audit=from_plain(row["audit"], AuditReport),
        source=row["source"],
    )


def _model(
    row: RowMapping,
    *,
    tags: tuple[str, ...],
    shared_with: tuple[str, ...],
    aliases: dict[str, str],
    count: tuple[int, str | None],
) -> ModelRecord:
    plain = {name: row[name] for name in row if name not in ("search_text", "visibility")}
    return ModelRecord(
        **plain,
        visibility=Visibility(row["visibility"]),
        tags=tags,
        shared_with=shared_with,
        aliases=aliases,
        versions=count[0],
        latest_version=count[1],
    )
