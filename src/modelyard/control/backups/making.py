"""Make a backup while the platform works: everything that was acknowledged before it began is in it.

The records are copied as they were at one moment, into the same kind of file from either database; what the copy names
is read afterwards. Meanwhile no file of a deleted version is taken away (`Removals.held`), so that every name in the
copy has its bytes.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, Final

from sqlalchemy import func, insert, select, update

from modelyard.control.backups.archive import (
    ABOUT,
    ANCHORS,
    ARTIFACTS,
    JOB_FILES,
    PACKAGES,
    RECORDS,
    SECRETS,
    Summary,
)
from modelyard.control.backups.tables import backups
from modelyard.control.catalog import Removals, StoredNames, index_copy, stored_names
from modelyard.control.history import ANCHOR_FILE, append
from modelyard.control.identity import Principal, require_everywhere
from modelyard.control.jobs import stored_job_files
from modelyard.control.records import METADATA, Database, back_up, copy_out, make_id, read_copy, schema_heads
from modelyard.domain.access import Verb
from modelyard.domain.errors.platform import BackupDamaged
from modelyard.foundation.documents import to_json
from modelyard.foundation.places import Places
from modelyard.foundation.sealed_tar import Member, SealedTarWriter
from modelyard.ports.artifact_store import ArtifactStore
from modelyard.version import __version__

_COUNTED: Final = {"models": "models", "versions": "model_versions", "services": "services", "history": "history"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Backups:
    """Makes backups of one platform."""

    database: Database
    artifacts: ArtifactStore
    places: Places
    removals: Removals
    job_files: ArtifactStore | None = None

    def make(self, who: Principal) -> tuple[Summary, Iterator[bytes]]:
        """A summary, and the archive's bytes, to be read to the end or closed. Needs `admin` on the whole platform.

        Raises:
            StorageFull: no room for the copy of the records.
        """
        require_everywhere(who, Verb.ADMIN)
        with ExitStack() as stack:
            stack.enter_context(self.removals.held())
            number = self._begin(who)
            copy = self.places.backups / f".{number}.db"
            stack.callback(copy.unlink, missing_ok=True)
            self._copy(copy)
            summary = self._summary(copy, number=number, who=who)
            blocks = self._bytes(summary, copy, stack.pop_all())
        return summary, chain([next(blocks)], blocks)  # begun, so that it also ends when nobody reads on

    def _copy(self, target: Path) -> None:
        """The records as one file, whichever database they are in."""
        source = self.database.path
        if source is not None:
            back_up(source, target)
            return
        copy_out(self.database, target)
        index_copy(target)

    def _begin(self, who: Principal) -> str:
        with self.database.begin() as tx:
            number = make_id("bak", now=tx.now)
            tx.execute(insert(backups).values(id=number, at=tx.now, made_by=who.name, state="running"))
            append(tx, actor=who.actor, action="backup.begun", subject=f"backup/{number}", project=None)
            return number

    def _summary(self, copy: Path, *, number: str, who: Principal) -> Summary:
        with read_copy(copy) as connection:
            counts = {
                name: int(connection.scalar(select(func.count()).select_from(METADATA.tables[table])) or 0)
                for name, table in _COUNTED.items()
            }
            return Summary(
                id=number,
                made_at=self.database.clock.now().isoformat(),
                made_by=who.name,
                modelyard=__version__,
                schema=schema_heads(connection),
                **counts,
            )

    def _bytes(self, summary: Summary, copy: Path, held: ExitStack) -> Iterator[bytes]:
        writer = SealedTarWriter()
        state = "cut off"
        try:
            with held:
                yield from writer.blocks(self._members(summary, copy))
            state = "given up" if writer.given_up else "made"
        finally:
            self._end(summary, writer, state)

    def _end(self, summary: Summary, writer: SealedTarWriter, state: str) -> None:
        with self.database.begin() as tx:
            ended = update(backups).where(backups.c.id == summary.id)
            tx.execute(ended.values(state=state, size_bytes=writer.size, sha256=writer.digest))

    def _members(self, summary: Summary, copy: Path) -> Iterator[Member]:
        yield Member(ABOUT, len(about := to_json(summary)), about)
        yield _file(RECORDS, copy)
        anchors = self.places.kept / ANCHOR_FILE
        if anchors.exists():
            yield Member(ANCHORS, len(lines := anchors.read_bytes()), lines)
        for secret in sorted(self.places.secrets.iterdir()):
            if secret.is_file() and not secret.name.startswith("."):
                yield _file(f"{SECRETS}/{secret.name}", secret)
        with read_copy(copy) as connection:
            names = stored_names(connection)
            of_jobs = stored_job_files(connection)
        yield from self._stored(names)
        if self.job_files is not None:
            for sha256 in sorted(of_jobs):
                stream = self.job_files.open(sha256)
                yield Member(f"{JOB_FILES}/{sha256}", _size(stream), stream, mode=0o400)

    def _stored(self, names: StoredNames) -> Iterator[Member]:
        for sha256 in sorted(names.files):
            stream = self.artifacts.open(sha256)
            yield Member(f"{ARTIFACTS}/{sha256}", _size(stream), stream, mode=0o400)
        for digest in sorted(names.packages):
            place = self.places.packages / digest
            if not place.is_dir():
                raise BackupDamaged(
                    f"the package {digest[:12]}… is not where it belongs", hint="upload that version again"
                )
            for path in sorted(path for path in place.rglob("*") if path.is_file()):
                yield _file(f"{PACKAGES}/{digest}/{path.relative_to(place)}", path)


def _file(name: str, path: Path) -> Member:
    stream = path.open("rb")
    return Member(name, _size(stream), stream, mode=path.stat().st_mode & 0o700)


def _size(stream: IO[bytes]) -> int:
    return os.fstat(stream.fileno()).st_size
