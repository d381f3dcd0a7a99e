"""Search and list the library: full text, filters, sorting, cursors. On SQLite by FTS5, elsewhere by a pattern."""

import re
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from sqlalchemy import ColumnElement, Select, and_, column, delete, exists, insert, or_, select, table, text, update

from modelyard.control.catalog.lookup import read_models
from modelyard.control.catalog.tables import model_shares, model_tags, model_versions, models
from modelyard.control.catalog.values import ModelRecord
from modelyard.control.identity import Principal, Reach, Visibility, reach_of, visible
from modelyard.control.records import (
    DEFAULT_LIMIT,
    Page,
    Position,
    Transaction,
    cut,
    from_microseconds,
    read_cursor,
    to_microseconds,
)
from modelyard.domain.errors.base import quote
from modelyard.domain.errors.platform import InvalidRequest
from modelyard.domain.lifecycle import VersionState

EVERY_PROJECT: Final = "*"
_WORD: Final = re.compile(r"\w+")
_MAX_WORDS: Final = 16
_SORTS: Final = {
    "name": (models.c.name, str),
    "created": (models.c.created_at, int),
    "updated": (models.c.updated_at, int),
}
_FTS: Final = table("models_search", column("model_id"), column("content"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is looked for; None and empty ask for everything. `sort` is name, created or updated, `-` turns it round.

    `project` "*" looks in every project that the caller can see.
    """

    project: str
    text: str = ""
    task: str | None = None
    library: str | None = None
    format: str | None = None
    tag: str | None = None
    author: str | None = None
    state: VersionState | None = None
    visibility: Visibility | None = None
    sort: str = "name"
    limit: int = DEFAULT_LIMIT
    cursor: str | None = None


def search_models(tx: Transaction, principal: Principal, wanted: Wanted) -> Page[ModelRecord]:
    """A page of the models that exist for the caller and fit."""
    key, down = wanted.sort.lstrip("-"), wanted.sort.startswith("-")
    if key not in _SORTS or wanted.sort.count("-") > 1:
        raise InvalidRequest(
            f"cannot sort by {quote(wanted.sort)}", hint=f"one of {', '.join(_SORTS)}, or -name to turn it round"
        )
    by, kind = _SORTS[key]
    query = select(models).where(_seen(reach_of(principal)), *_conditions(tx, wanted))
    if wanted.cursor is not None:
        value, last = read_cursor(wanted.cursor, kinds=(kind, str))
        place: Any = value if kind is str else from_microseconds(cast("int", value))
        beyond = by < place if down else by > place
        query = query.where(or_(beyond, and_(by == place, models.c.id > last)))
    rows = tx.execute(query.order_by(by.desc() if down else by, models.c.id).limit(wanted.limit + 1)).mappings()

    def position(model: ModelRecord) -> Position:
        moment = {"created": model.created_at, "updated": model.updated_at}.get(key)
        return (model.name if moment is None else to_microseconds(moment), model.id)

    return cut(read_models(tx, rows.all()), limit=wanted.limit, position=position)


def index_model(tx: Transaction, model_id: str) -> None:
    """Bring the text under which a model is found up to date."""
    row = tx.execute(select(models).where(models.c.id == model_id)).one()
    tags = tx.scalars(select(model_tags.c.tag).where(model_tags.c.model_id == model_id))
    newest = tx.execute(
        select(model_versions.c.card, model_versions.c.contract)
        .where(model_versions.c.model_id == model_id)
        .order_by(model_versions.c.ordinal.desc())
        .limit(1)
    ).first()
    labels = (newest.contract or {}).get("labels", ()) if newest else ()
    card = newest.card[:10_000] if newest else ""
    parts = (row.name, row.description, row.task, row.library, row.format, *tags, *labels, card)
    content = " ".join(part for part in parts if part)
    tx.execute(update(models).where(models.c.id == model_id).values(search_text=content.lower()))
    if _has_fts(tx):
        tx.execute(delete(_FTS).where(_FTS.c.model_id == model_id))
        tx.execute(insert(_FTS).values(model_id=model_id, content=content))


def _seen(reach: Reach) -> ColumnElement[bool]:
    condition = or_(
        visible(reach, project=models.c.project, name=models.c.name), models.c.visibility == Visibility.PUBLIC
    )
    if reach.everything or not reach.all_projects:
        return condition
    shared = exists().where(
        model_shares.c.model_id == models.c.id, model_shares.c.project.in_(sorted(reach.all_projects))
    )
    return or_(condition, and_(models.c.visibility == Visibility.SHARED, shared))


def index_copy(records: Path) -> None:
    """Fill the full-text index of a copy in SQLite that was made from another database, which has none."""
    with closing(sqlite3.connect(records)) as connection, connection:
        connection.execute("DELETE FROM models_search")
        connection.execute("INSERT INTO models_search (model_id, content) SELECT id, search_text FROM models")


def _conditions(tx: Transaction, wanted: Wanted) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if wanted.project != EVERY_PROJECT:
        conditions.append(models.c.project == wanted.project)
    for name in ("task", "library", "format", "visibility"):
        value = getattr(wanted, name)
        if value is not None:
            conditions.append(models.c[name] == value)
    if wanted.tag is not None:
        conditions.append(exists().where(model_tags.c.model_id == models.c.id, model_tags.c.tag == wanted.tag))
    version: list[ColumnElement[bool]] = []
    if wanted.state is not None:
        version.append(model_versions.c.state == wanted.state)
    if wanted.author is not None:
        version.append(model_versions.c.author_name == wanted.author)
    if version:
        version.append(model_versions.c.state != VersionState.DELETED)
        conditions.append(exists().where(model_versions.c.model_id == models.c.id, *version))
    words = _WORD.findall(wanted.text.lower())[:_MAX_WORDS]
    if words:
        conditions.append(models.c.id.in_(_matching(words)) if _has_fts(tx) else _beginning(words))
    elif wanted.text.strip():
        conditions.append(models.c.name == wanted.text)
    return conditions


def _matching(words: list[str]) -> Select[Any]:
    """Every word must begin a word of the model's text; quoting keeps the index's own query language out."""
    asked = " ".join(f'"{word}"*' for word in words)
    return select(_FTS.c.model_id).where(text("models_search MATCH :asked").bindparams(asked=asked))


def _beginning(words: list[str]) -> ColumnElement[bool]:
    """The same without an index: words hold letters, digits and `_` only, so they are no pattern of their own."""
    between = "[^[:alnum:]]"
    patterns = (f"(^|{between}){word.replace('_', between)}" for word in words)
    return and_(*(models.c.search_text.regexp_match(pattern) for pattern in patterns))


def _has_fts(tx: Transaction) -> bool:
    return tx.get_bind().dialect.name == "sqlite"
