"""Open what the control plane stands on, in the order in which it may go wrong, and close it in the other."""

import logging
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final

from modelyard.control.identity import offer_bootstrap
from modelyard.control.records import (
    ControlParts,
    Database,
    Leadership,
    OpenedRecords,
    open_records,
    open_served_records,
    records_url,
)
from modelyard.foundation.clock import Clock, SystemClock
from modelyard.foundation.key_files import load_key
from modelyard.foundation.places import Places
from modelyard.foundation.settings import RecordSettings, Settings
from modelyard.ports.artifact_store import ArtifactStore

_LOG: Final = logging.getLogger(__name__)


@contextmanager
def open_parts(
    places: Places,
    *,
    artifacts: ArtifactStore,
    settings: Settings | None = None,
    auth_required: bool = False,
    clock: Clock | None = None,
) -> Iterator[ControlParts]:
    """The parts of one data directory: places made, pepper read, records open and up to date, bootstrap offered.

    Raises:
        StartRefused: another control plane is here, the data is newer, or a secret is readable by others.
        InvalidRequest: the settings name records that cannot be.
        Unavailable: the records' database does not answer.
    """
    chosen, time = settings or Settings(), clock or SystemClock()
    places.create()
    pepper = load_key(places.pepper)
    records = _open(places, chosen.records, pepper, time)
    try:
        if records.migrated.backup is not None:
            _LOG.info("the records were migrated", extra={"copy": records.migrated.backup.name})
        if auth_required:
            lifetime = timedelta(minutes=chosen.keys.bootstrap_minutes)
            token = offer_bootstrap(records.database, data=places.data, pepper=pepper, lifetime=lifetime)
            if token is not None:
                _LOG.warning("no key administers this platform yet: `modelyard keys bootstrap` makes the first one")
        with _one_of_several(records.database):
            yield ControlParts(
                database=records.database,
                settings=chosen,
                clock=time,
                places=places,
                artifacts=artifacts,
                pepper=pepper,
                auth_required=auth_required,
            )
    finally:
        records.close()


def _open(places: Places, settings: RecordSettings, pepper: bytes, clock: Clock) -> OpenedRecords:
    url = records_url(settings)
    if url is None:
        return open_records(places.database, backups=places.backups, kept=settings.backups_kept, clock=clock)
    return open_served_records(url, backups=places.backups, pepper=pepper, clock=clock)


@contextmanager
def _one_of_several(database: Database) -> Iterator[None]:
    """Where other control planes may share the records: take part in choosing the leader, and hear of their changes."""
    if database.is_sqlite:
        yield
        return
    leadership = Leadership(database, holder=f"{platform.node()}:{os.getpid()}")
    leadership.start()
    database.lead = leadership
    database.listen()
    try:
        yield
    finally:
        leadership.stop()
