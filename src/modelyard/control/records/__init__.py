"""Records: the database, its units of work, the outbox, migrations and backups. The only owner of a connection.

`with database.begin() as tx:` writes, `with database.read() as tx:` reads; `tx` is a SQLAlchemy session with a moment
(`tx.now`). Tables are declared on `METADATA` in a capability's `tables.py`; each capability ships its own migrations
as a branch in `records/migrations/versions/<capability>_<number>.py`.
"""

from modelyard.control.records.backup import back_up, read_copy, restore
from modelyard.control.records.copying import copy_in, copy_out
from modelyard.control.records.database import Database, LeadershipLost, Transaction
from modelyard.control.records.idempotency import Answer, keep, recall
from modelyard.control.records.ids import make_id
from modelyard.control.records.leadership import Leadership
from modelyard.control.records.metadata import METADATA, Moment, from_microseconds, to_microseconds
from modelyard.control.records.opening import (
    OpenedRecords,
    open_records,
    open_served_records,
    records_url,
    shared_files,
)
from modelyard.control.records.outbox import Event, emit, events_after, forget_events, last_event
from modelyard.control.records.paging import DEFAULT_LIMIT, MAX_LIMIT, Page, Position, cut, read_cursor, write_cursor
from modelyard.control.records.parts import ControlParts, parts_of
from modelyard.control.records.schema import Migrated, migrate, schema_heads

__all__ = [
    "DEFAULT_LIMIT",
    "MAX_LIMIT",
    "METADATA",
    "Answer",
    "ControlParts",
    "Database",
    "Event",
    "Leadership",
    "LeadershipLost",
    "Migrated",
    "Moment",
    "OpenedRecords",
    "Page",
    "Position",
    "Transaction",
    "back_up",
    "copy_in",
    "copy_out",
    "cut",
    "emit",
    "events_after",
    "forget_events",
    "from_microseconds",
    "keep",
    "last_event",
    "make_id",
    "migrate",
    "open_records",
    "open_served_records",
    "parts_of",
    "read_copy",
    "read_cursor",
    "recall",
    "records_url",
    "restore",
    "schema_heads",
    "shared_files",
    "to_microseconds",
    "write_cursor",
]
