"""Uploads that outlive their request: those whose outcome is asked for later, and those that arrive in pieces.

A resumable upload announces its files and their sizes; the bytes of all of them, one after the other, are then sent in
any number of pieces, each naming the offset at which it begins. What has arrived is what lies on the disk, so the
offset is true after any crash. An upload that is not finished in time is removed.
"""

import hashlib
import os
import platform
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from sqlalchemy import func, insert, or_, select, update

from modelyard.control.identity import Actor, Principal, missing
from modelyard.control.intake.documents import decided_document, problem_of, running_document
from modelyard.control.intake.received import FULL, remove_tree
from modelyard.control.intake.service import UploadCentre, received_again
from modelyard.control.intake.tables import uploads
from modelyard.control.intake.values import Decision, Describe, Progress, Target, UploadState
from modelyard.control.records import Transaction, make_id
from modelyard.domain.errors.base import quote
from modelyard.domain.errors.platform import Conflict, InvalidRequest, StorageFull, Unavailable
from modelyard.domain.errors.uploads import DigestMismatch, FileTooLarge, TooManyFiles
from modelyard.foundation.documents import from_plain, to_plain
from modelyard.foundation.places import Places
from modelyard.inspection import ReceivedFile

_KEPT: Final = timedelta(days=1)


def keeper_of(places: Places) -> str:
    """Who keeps the bytes of uploads that are not decided: this data directory on this machine."""
    return hashlib.sha256(f"{platform.node()}:{places.data.resolve()}".encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Announced:
    """A file that will come: its name, its size in bytes and, if the sender knows it, its hex SHA-256."""

    name: str
    size: int
    sha256: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a resumable upload announced, and for whom."""

    files: tuple[Announced, ...]
    version: str | None
    alias: str | None
    actor: tuple[str, str, str]

    @property
    def length(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumable:
    """A resumable upload as stored, with the bytes that are on the disk."""

    id: str
    target: Target
    plan: Plan
    offset: int


class UploadDesk:
    """Keeps the books of such uploads. `describe` turns an error into the problem document that the API answers."""

    def __init__(self, centre: UploadCentre, *, describe: Describe) -> None:
        self._centre = centre
        self._describe = describe
        self._keeper = keeper_of(centre.places)
        self._own = or_(uploads.c.keeper.is_(None), uploads.c.keeper == self._keeper)

    def follow(self, progress: Progress, *, owner: str) -> None:
        """Remember this upload and its outcome for a day."""
        with self._centre.database.begin() as tx:
            _insert(
                tx,
                progress.id,
                progress.target,
                owner,
                UploadState.WAITING,
                plan=None,
                expires=_KEPT,
                keeper=self._keeper,
            )
        progress.finished.add_done_callback(lambda done: self._keep(progress, done.result()))

    def document(self, who: Principal, upload_id: str) -> dict[str, Any]:
        """How an upload stands; `NotFound` for uploads of others."""
        row = self._row(who, upload_id)
        progress = self._centre.running(upload_id)
        if progress is not None:
            if progress.decision is None:
                return running_document(progress)
            return decided_document(progress, progress.decision, describe=self._describe)
        if row["document"] is None:
            row = self._row(who, upload_id)
        if row["document"] is not None:
            return dict(row["document"])
        shown = {"id": upload_id, "state": row["state"], "model": row["model"], "project": row["project"], "checks": []}
        if row["plan"] is not None:
            plan = from_plain(row["plan"], Plan)
            shown |= {"offset": self._offset(upload_id, plan), "length": plan.length}
        return shown

    def progress(self, who: Principal, upload_id: str) -> Progress | None:
        """The upload while it is being checked; None before and after; `NotFound` for uploads of others."""
        self._row(who, upload_id)
        return self._centre.running(upload_id)

    def create(self, who: Principal, target: Target, files: Sequence[Announced]) -> str:
        """Begin a resumable upload; returns its id."""
        plan = Plan(
            files=tuple(files),
            version=target.version,
            alias=target.alias,
            actor=(target.author.kind, target.author.id, target.author.name),
        )
        self._require_possible(plan)
        self._centre.admit(who, target, content_length=plan.length)
        with self._centre.database.begin() as tx:
            count = select(func.count()).where(uploads.c.state == UploadState.RECEIVING, uploads.c.owner == who.owner)
            if (tx.scalar(count) or 0) >= self._centre.limits.resumable_uploads:
                raise Unavailable("too many unfinished uploads", hint="finish or delete one first", retry_after_s=60.0)
            upload_id = make_id("upl", now=tx.now)
            expires = timedelta(seconds=self._centre.limits.resumable_s)
            (self._centre.places.incoming / upload_id).mkdir(mode=0o700)
            _insert(
                tx, upload_id, target, who.owner, UploadState.RECEIVING, plan=plan, expires=expires, keeper=self._keeper
            )
        return upload_id

    def resumable(self, who: Principal, upload_id: str) -> Resumable:
        """An unfinished upload and its offset; `Conflict` when it is finished already."""
        row = self._row(who, upload_id)
        if row["plan"] is None or row["state"] != UploadState.RECEIVING:
            raise Conflict("this upload takes no more bytes", hint="its checks are at /api/v1/uploads/{id}")
        if row["keeper"] not in (None, self._keeper):
            raise Conflict(
                "another control plane receives this upload", hint="send all parts of an upload to the same one"
            )
        plan = from_plain(row["plan"], Plan)
        kind, actor_id, name = plan.actor
        target = Target(
            project=row["project"],
            model=row["model"],
            author=Actor(kind=kind, id=actor_id, name=name),
            version=plan.version,
            alias=plan.alias,
            sender=who,
        )
        return Resumable(id=upload_id, target=target, plan=plan, offset=self._offset(upload_id, plan))

    def append(self, upload: Resumable, data: bytes, *, offset: int) -> int:
        """Write `data` where the upload stands; returns the new offset. `offset` is where the sender thinks that is."""
        directory = self._centre.places.incoming / upload.id
        if offset + len(data) > upload.plan.length:
            raise Conflict(f"the upload has only {upload.plan.length} bytes", hint="send what was announced")
        position, start = offset, 0
        for number, file in enumerate(upload.plan.files):
            if position >= file.size:
                position -= file.size
                continue
            part = data[start : start + file.size - position]
            self._write(directory / f"{number:04d}", part, position)
            start, position = start + len(part), 0
            if start >= len(data):
                break
        return offset + len(data)

    def finish(self, who: Principal, upload: Resumable) -> Progress:
        """Have a complete upload checked.

        Raises:
            Conflict: bytes are missing.
            DigestMismatch: a file is not the one that was announced; the upload is removed.
        """
        if upload.offset != upload.plan.length:
            raise Conflict(
                f"{upload.offset} of {upload.plan.length} bytes have arrived", hint="send the rest with PATCH first"
            )
        directory = self._centre.places.incoming / upload.id
        try:
            files = [self._received(directory, number, file) for number, file in enumerate(upload.plan.files)]
        except DigestMismatch as error:
            self._centre.record_refusal(upload.target, error, checks=())
            self.abandon(who, upload.id)
            raise
        with self._centre.database.begin() as tx:
            changed = tx.execute(
                update(uploads)
                .where(uploads.c.id == upload.id, uploads.c.state == UploadState.RECEIVING)
                .values(state=UploadState.WAITING, expires_at=tx.now + _KEPT)
            )
            if changed.rowcount != 1:  # type: ignore[attr-defined]  # a CursorResult, as every UPDATE gives
                raise Conflict("this upload was finished already", hint=f"see /api/v1/uploads/{upload.id}")
        progress = self._centre.submit(
            upload.target, received_again(directory, files, limits=self._centre.limits), upload_id=upload.id
        )
        progress.finished.add_done_callback(lambda done: self._keep(progress, done.result()))
        return progress

    def abandon(self, who: Principal, upload_id: str) -> None:
        """Forget an unfinished upload and remove its bytes."""
        row = self._row(who, upload_id)
        if row["state"] != UploadState.RECEIVING:
            raise Conflict("this upload is finished", hint="a version is removed with `modelyard delete`")
        with self._centre.database.begin() as tx:
            tx.execute(uploads.delete().where(uploads.c.id == upload_id))
        remove_tree(self._centre.places.incoming / upload_id)

    def sweep(self) -> int:
        """Remove what expired of what came here; returns how many uploads that were."""
        with self._centre.database.begin() as tx:
            old = list(tx.scalars(select(uploads.c.id).where(uploads.c.expires_at < tx.now, self._own)))
            tx.execute(uploads.delete().where(uploads.c.id.in_(old)))
        for upload_id in old:
            remove_tree(self._centre.places.incoming / upload_id)
        return len(old)

    def recover(self) -> frozenset[str]:
        """After a start: uploads that were being checked end as failed; returns those that may still go on."""
        lost = Unavailable("the platform was restarted while it checked this upload", hint="send it again")
        with self._centre.database.begin() as tx:
            rows = tx.execute(
                select(uploads).where(uploads.c.state.in_((UploadState.WAITING, UploadState.CHECKING)), self._own)
            ).mappings()
            for row in list(rows):
                document = {
                    "id": row["id"],
                    "state": UploadState.FAILED.value,
                    "model": row["model"],
                    "project": row["project"],
                    "checks": [],
                    "problem": problem_of(lost, describe=self._describe),
                }
                tx.execute(
                    update(uploads)
                    .where(uploads.c.id == row["id"])
                    .values(state=UploadState.FAILED.value, document=document)
                )
            open_ids = select(uploads.c.id).where(
                uploads.c.state == UploadState.RECEIVING, uploads.c.expires_at >= tx.now, self._own
            )
            return frozenset(tx.scalars(open_ids))

    def _keep(self, progress: Progress, decision: Decision) -> None:
        document = decided_document(progress, decision, describe=self._describe)
        with suppress(Unavailable, StorageFull), self._centre.database.begin() as tx:
            tx.execute(
                update(uploads)
                .where(uploads.c.id == progress.id)
                .values(state=progress.state.value, document=document, expires_at=tx.now + _KEPT)
            )

    def _row(self, who: Principal, upload_id: str) -> Mapping[str, Any]:
        with self._centre.database.read() as tx:
            row = tx.execute(select(uploads).where(uploads.c.id == upload_id)).mappings().first()
            if row is None or row["owner"] != who.owner or row["expires_at"] < tx.now:
                raise missing(f"upload {quote(upload_id)}")
            return dict(row)

    def _require_possible(self, plan: Plan) -> None:
        limits = self._centre.limits
        if not plan.files:
            raise InvalidRequest("an upload has at least one file", hint='"files": [{"name": "model.onnx", "size": 1}]')
        if len(plan.files) > limits.files:
            raise TooManyFiles(f"an upload may have {limits.files} files", hint="leave out what is not needed")
        for file in plan.files:
            if file.size > limits.bytes_for(file.name):
                raise FileTooLarge(
                    f"{quote(file.name)} may have {limits.bytes_for(file.name)} bytes", hint="make it smaller"
                )

    def _offset(self, upload_id: str, plan: Plan) -> int:
        directory, total = self._centre.places.incoming / upload_id, 0
        for number, file in enumerate(plan.files):
            try:
                size = (directory / f"{number:04d}").stat().st_size
            except FileNotFoundError:
                size = 0
            total += size
            if size < file.size:
                break
        return total

    @staticmethod
    def _write(path: Path, data: bytes, position: int) -> None:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(fd).st_size != position:
                raise Conflict("another request is sending to this upload", hint="ask for its offset with HEAD")
            view = memoryview(data)
            while view:
                written = os.pwrite(fd, view, position)
                view, position = view[written:], position + written
        except OSError as error:
            if error.errno in FULL:
                raise StorageFull("the upload does not fit on the disk", hint="free space, then go on") from error
            raise
        finally:
            os.close(fd)

    @staticmethod
    def _received(directory: Path, number: int, file: Announced) -> ReceivedFile:
        path = directory / f"{number:04d}"
        fd = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "rb") as stream:
            os.fchmod(fd, 0o400)
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if file.sha256 is not None and file.sha256.lower() != digest:
            raise DigestMismatch(f"{quote(file.name)} is not the file that was announced", hint="send it again")
        return ReceivedFile(name=file.name, path=path, size=file.size, sha256=digest)


def _insert(  # noqa: PLR0913  (one argument a column)
    tx: Transaction,
    upload_id: str,
    target: Target,
    owner: str,
    state: UploadState,
    *,
    plan: Plan | None,
    expires: timedelta,
    keeper: str,
) -> None:
    tx.execute(
        insert(uploads).values(
            id=upload_id,
            project=target.project,
            model=target.model,
            owner=owner,
            state=state.value,
            created_at=tx.now,
            expires_at=tx.now + expires,
            plan=None if plan is None else to_plain(plan),
            keeper=keeper,
        )
    )
