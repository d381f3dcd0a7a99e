"""Put a backup back: checked whole first, unpacked beside the place, and only then given its name.

The place has to be empty. What comes out is the platform as it was: models with their bytes, services with their
revisions, keys, secrets and history, to which one entry is added that says so.
"""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
from sqlalchemy import URL

from modelyard.control.backups.archive import (
    ABOUT,
    ANCHORS,
    FORMAT,
    MEMBERS,
    RECORDS,
    Summary,
)
from modelyard.control.catalog import stored_names
from modelyard.control.history import ANCHOR_FILE, append
from modelyard.control.identity import system_actor
from modelyard.control.jobs import stored_job_files
from modelyard.control.records import copy_in, open_records, open_served_records, read_copy
from modelyard.domain.errors.base import quote
from modelyard.domain.errors.platform import BackupDamaged, InvalidRequest, NotFound, StorageFull
from modelyard.foundation.documents import from_json
from modelyard.foundation.durable import sync
from modelyard.foundation.places import Places
from modelyard.foundation.sealed_tar import BLOCK, check_seal, unpack
from modelyard.ports.artifact_store import ArtifactStore

OpenStore = Callable[[Path], ArtifactStore]
_ROOM: Final = 1.05
"""Free space asked for, in parts of the file's size: the records may have to be copied once more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What was put back, and where."""

    summary: Summary
    data: Path
    sha256: str


def read_summary(file: Path) -> tuple[Summary, str]:
    """What a backup says of itself, after its seal was checked, and its digest."""
    try:
        with file.open("rb") as stream:
            digest = check_seal(stream, first=ABOUT)
            stream.seek(BLOCK)  # the header of the first member
            document = stream.read(4096).split(b"\0", 1)[0]
    except FileNotFoundError as error:
        raise NotFound(f"there is no file {quote(file)}") from error
    try:
        summary = from_json(document, Summary)
    except msgspec.MsgspecError as error:
        raise BackupDamaged("the backup does not say what it holds", hint="use another backup") from error
    if summary.format > FORMAT:
        raise BackupDamaged(
            f"this backup was made by a newer Modelyard ({summary.modelyard})", hint="install that version or newer"
        )
    return summary, digest


def restore_platform(file: Path, data: Path, *, store: OpenStore, url: URL | None = None) -> Restored:
    """Restore `file` into the directory `data`, which has to be empty or not there yet; `store` opens its artifacts.

    With `url`, the records go into that PostgreSQL database, which has to be empty too.

    Raises:
        NotFound: no such file.
        BackupDamaged: the file is no backup, is cut off or altered, or lacks bytes that its records name.
        InvalidRequest: the place is not empty, or the database.
        Unavailable: the database does not answer.
        StartRefused: the backup's records are newer than this version knows.
        StorageFull: there is not enough room.
    """
    data = data.resolve()
    summary, digest = read_summary(file)
    if data.exists() and (not data.is_dir() or any(data.iterdir())):
        raise InvalidRequest(
            f"{quote(data)} is not empty, and a restore never overwrites", hint="name a new directory with --data"
        )
    data.parent.mkdir(parents=True, exist_ok=True)
    needed = int(file.stat().st_size * _ROOM)
    if shutil.disk_usage(data.parent).free < needed:
        raise StorageFull("there is not enough room to restore", hint=f"free {needed // 2**20 + 1} MiB there")
    staging = data.with_name(f".{data.name}.restoring-{os.getpid()}")
    shutil.rmtree(staging, ignore_errors=True)
    try:
        staging.mkdir(mode=0o700)
        _fill(file, Places(staging), store)
        _note(Places(staging), summary, digest)
        if url is not None:
            _move(Places(staging), url)
        if data.exists():
            data.rmdir()
        staging.rename(data)
        sync(data.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return Restored(summary=summary, data=data, sha256=digest)


def _fill(file: Path, places: Places, store: OpenStore) -> None:
    staging = places.data
    with file.open("rb") as stream:
        unpack(stream, staging, members=MEMBERS)
    (staging / ABOUT).unlink()
    (staging / RECORDS).rename(places.database)
    if (staging / ANCHORS).exists():
        (staging / ANCHORS).rename(staging / ANCHOR_FILE)
    artifacts = _stored_again(places.artifacts, store)
    job_files = _stored_again(places.job_files, store)
    places.create()
    _require_complete(places, artifacts, job_files)


def _stored_again(place: Path, store: OpenStore) -> ArtifactStore:
    """A store at `place` of what was unpacked there as plain files."""
    unpacked = place.with_name(f"{place.name}.unpacked")
    if place.exists():
        place.rename(unpacked)
    place.mkdir(mode=0o700)
    opened = store(place)
    for blob in sorted(unpacked.iterdir()) if unpacked.exists() else ():
        opened.put(blob, blob.name)
    shutil.rmtree(unpacked, ignore_errors=True)
    return opened


def _require_complete(places: Places, artifacts: ArtifactStore, job_files: ArtifactStore) -> None:
    with read_copy(places.database) as connection:
        names = stored_names(connection)
        of_jobs = stored_job_files(connection)
    missing = [sha256 for sha256 in of_jobs if not job_files.exists(sha256)]
    missing += [sha256 for sha256 in names.files if not artifacts.exists(sha256)]
    missing += [digest for digest in names.packages if not (places.packages / digest).is_dir()]
    if missing:
        raise BackupDamaged(
            f"the backup lacks {len(missing)} files that its records name, the first is {missing[0][:12]}…",
            hint="use another backup",
        )


def _move(places: Places, url: URL) -> None:
    """Put the records into a database server instead of the file."""
    records = open_served_records(url, backups=places.backups)
    try:
        copy_in(places.database, records.database)
    finally:
        records.close()
    for left in places.data.glob(f"{places.database.name}*"):
        left.unlink()


def _note(places: Places, summary: Summary, digest: str) -> None:
    """Bring the records up to date and add to the history that they were restored."""
    records = open_records(places.database, backups=places.backups)
    try:
        with records.database.begin() as tx:
            append(
                tx,
                actor=system_actor("restore"),
                action="platform.restored",
                subject=f"backup/{summary.id}",
                project=None,
                payload={"backup": summary.id, "made_at": summary.made_at, "sha256": digest},
            )
    finally:
        records.close()
    for folder, _, _ in os.walk(places.data):
        sync(Path(folder))
