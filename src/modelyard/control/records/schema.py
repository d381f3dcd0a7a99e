"""Bring the records to this version's schema, or say why not.

Data of a newer version is refused, by the name of that version. Data of an older one is copied first, then migrated in
one transaction: it is wholly old or wholly new. Capabilities have a branch of revisions each.
"""

import shutil
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Column, Connection, String, Table, inspect, select

from modelyard.control.records.backup import back_up
from modelyard.control.records.database import Database
from modelyard.control.records.engines import writing
from modelyard.control.records.metadata import METADATA
from modelyard.domain.errors.platform import StartRefused, StorageFull
from modelyard.version import __version__

SCRIPTS: Final = Path(__file__).parent / "migrations"
_WRITTEN_BY: Final = "written_by"

about = Table(
    "about",
    METADATA,
    Column("name", String(63), primary_key=True),
    Column("value", String(255), nullable=False),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Migrated:
    """What `migrate` did: `before` is empty for new records; `backup` is the copy that was made, if any."""

    before: tuple[str, ...]
    after: tuple[str, ...]
    backup: Path | None = None


def migrate(database: Database, *, backups: Path, kept: int = 5) -> Migrated:
    """Bring the schema up to date. Safe to run at every start.

    Raises:
        StartRefused: the records were written by a newer version.
        StorageFull: no room for the copy that is made first.
    """
    scripts = ScriptDirectory(str(SCRIPTS))
    with database.engine.connect() as connection:
        before = set(MigrationContext.configure(connection).get_current_heads())
        written_by = _written_by(connection)
    heads = set(scripts.get_heads())
    unknown = before - {script.revision for script in scripts.walk_revisions()}
    if unknown:
        raise StartRefused(
            f"the data was written by a newer Modelyard ({written_by}; unknown: {', '.join(sorted(unknown))}),"
            f" this is {__version__}",
            hint=f"install modelyard {written_by} or newer, or restore a copy from {backups.name}/ in the data folder",
        )
    if before == heads:
        return Migrated(before=tuple(sorted(before)), after=tuple(sorted(heads)))
    copy = _copy_first(database, backups=backups, kept=kept) if before else None
    with writing(database.engine).begin() as connection:
        if before != set(MigrationContext.configure(connection).get_current_heads()):  # another one was quicker
            connection.rollback()
            return migrate(database, backups=backups, kept=kept)
        config = Config()
        config.set_main_option("script_location", str(SCRIPTS))
        config.attributes["connection"] = connection
        command.upgrade(config, "heads")
        connection.execute(about.delete().where(about.c.name == _WRITTEN_BY))
        connection.execute(about.insert().values(name=_WRITTEN_BY, value=__version__))
    return Migrated(before=tuple(sorted(before)), after=tuple(sorted(heads)), backup=copy)


def schema_heads(connection: Connection) -> tuple[str, ...]:
    """The migrations that these records have behind them, the last of each capability."""
    return tuple(sorted(MigrationContext.configure(connection).get_current_heads()))


def _written_by(connection: Connection) -> str:
    if not inspect(connection).has_table(about.name):
        return "unknown version"
    return connection.scalar(select(about.c.value).where(about.c.name == _WRITTEN_BY)) or "unknown version"


def _copy_first(database: Database, *, backups: Path, kept: int) -> Path | None:
    source = database.path
    if source is None:
        return None
    backups.mkdir(parents=True, exist_ok=True, mode=0o700)
    needed = source.stat().st_size * 2
    if shutil.disk_usage(backups).free < needed:
        raise StorageFull(
            "there is no room for a copy of the records before they are migrated",
            hint=f"free {needed // 2**20 + 1} MiB in the data folder",
        )
    moment = database.clock.now().strftime("%Y%m%dT%H%M%S%fZ")
    target = backups / f"before-{__version__}-{moment}.db"
    try:
        back_up(source, target)
    except sqlite3.Error as error:
        raise StartRefused(
            "the records cannot be copied, so they are not migrated", hint=f"{error}; check the disk"
        ) from error
    for old in sorted(backups.glob("before-*.db"), key=lambda file: file.stat().st_mtime)[:-kept]:
        old.unlink()
    return target
