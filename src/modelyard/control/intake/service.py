"""The upload centre: from bytes that arrive to a version in the library, or a refusal that leaves only its report.

Receiving runs in the request, checking in a bounded pool of threads (it waits for child processes), keeping in one
short transaction at the end. Nothing of an upload is visible before that transaction, and nothing stays of one that is
refused, given up or interrupted, but its report in history.
"""

import logging
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol

from sqlalchemy import select

from modelyard.control.catalog import NewVersion, VersionRecord, register_version
from modelyard.control.history import append
from modelyard.control.identity import Principal, find_project, require
from modelyard.control.intake.commit import Step, no_step, package_path, place_package, store_files
from modelyard.control.intake.ledger import Ledger
from modelyard.control.intake.limits import UploadLimits
from modelyard.control.intake.received import ReceivedUpload, remove_tree
from modelyard.control.intake.refusals import error_of
from modelyard.control.intake.values import Decision, Progress, Target, UploadState
from modelyard.control.records import METADATA, Database, Transaction, make_id
from modelyard.domain.access import Verb
from modelyard.domain.contract import ModelFormat
from modelyard.domain.errors import ModelyardError
from modelyard.domain.errors.edge import BodyTooLarge
from modelyard.domain.errors.platform import QuotaExceeded, StorageFull, Unavailable
from modelyard.domain.lifecycle import VersionState
from modelyard.domain.names import require_name
from modelyard.domain.report import Check, Verdict
from modelyard.foundation.documents import read_package, to_plain
from modelyard.foundation.places import Places
from modelyard.inspection import Inspection, InspectionPolicy, ReceivedFile, inspect_bundle
from modelyard.ports.artifact_store import ArtifactStore

_LOG: Final = logging.getLogger(__name__)
_CARD_BYTES: Final = 256 << 10
_TRIES: Final = 2
UNEXPECTED: Final = "the platform failed while it checked this upload"
SetAlias = Callable[[Transaction, Target, VersionRecord], None]


class Inspect(Protocol):
    """`modelyard.inspection.inspect_bundle`, as far as it is used here."""

    def __call__(
        self,
        files: Sequence[ReceivedFile],
        *,
        model_name: str,
        workdir: Path,
        policy: InspectionPolicy,
        on_check: Callable[[Check], None],
    ) -> Inspection:
        """Check the files; a refusal is a report, never an exception."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeParts:
    """What the upload centre stands on. `set_alias` points an alias at a new version."""

    database: Database
    artifacts: ArtifactStore
    places: Places
    limits: UploadLimits
    policy: InspectionPolicy
    inspect: Inspect = inspect_bundle
    set_alias: SetAlias
    step: Step = no_step


class UploadCentre:
    """Takes uploads. Threads may call at the same time."""

    def __init__(self, parts: IntakeParts) -> None:
        self._parts = parts
        self.limits = parts.limits
        self.ledger = Ledger()
        self._pool = ThreadPoolExecutor(parts.limits.inspections, thread_name_prefix="inspection")
        self.disk = ThreadPoolExecutor(8, thread_name_prefix="upload")
        self._running: dict[str, Progress] = {}

    @property
    def database(self) -> Database:
        """The records."""
        return self._parts.database

    @property
    def places(self) -> Places:
        """Where uploads are received."""
        return self._parts.places

    def admit(self, who: Principal, target: Target, *, content_length: int | None) -> None:
        """Whether this caller may send so much to there; before a byte of the body is read.

        Raises:
            NotFound, Forbidden: project or scope.
            InvalidRequest: the model name.
            BodyTooLarge, QuotaExceeded, StorageFull: there is no room for it.
        """
        require_name(target.model, what="model name")
        require(who, Verb.UPLOAD, project=target.project, name=target.model)
        if target.alias is not None:
            require(who, Verb.DEPLOY, project=target.project, name=target.model)
        with self.database.read() as tx:
            find_project(tx, target.project)
        if content_length is not None:
            self.require_room(target.project, content_length)

    def require_room(self, project: str, size: int) -> None:
        """Whether `size` bytes more fit the upload limit, the project's quota and the disk."""
        if size > self.limits.total_bytes + self.limits.files * self.limits.part_header_bytes:
            raise BodyTooLarge(
                f"an upload may have {self.limits.total_bytes} bytes",
                hint="make the model smaller, or ask the operator to raise the limit",
            )
        quota = self.limits.project_bytes
        if quota is not None and self.stored_bytes(project) + self.ledger.reserved(project) + size > quota:
            raise QuotaExceeded(
                f"the project may store {quota} bytes, and this would be more",
                hint="delete versions that nobody needs, or ask the operator for more",
            )
        if shutil.disk_usage(self.places.incoming).free < size + self.limits.spare_disk_bytes:
            raise StorageFull("the disk has no room for this upload", hint="free space in the data directory")

    def stored_bytes(self, project: str) -> int:
        """Bytes of all versions of a project that are not deleted."""
        models, versions = METADATA.tables["models"], METADATA.tables["model_versions"]
        query = (
            select(versions.c.size_bytes)
            .join(models, models.c.id == versions.c.model_id)
            .where(models.c.project == project, versions.c.state != "deleted")
        )
        with self.database.read() as tx:
            return sum(tx.scalars(query))

    @contextmanager
    def receiving(self, target: Target, *, size: int | None) -> Iterator[ReceivedUpload]:
        """A private directory for one body; removed, and its reservation given back, when the block raises.

        A refusal that is raised in the block is recorded in history.
        """
        upload_id = secrets.token_hex(16)
        reservation = self.ledger.open(target.project, size or 0)

        def reserve(total: int) -> None:
            if total > reservation.size:
                self.require_room(target.project, total - reservation.size)
                reservation.size = total + self.limits.part_header_bytes * 128

        upload = ReceivedUpload.create(self.places.incoming / upload_id, limits=self.limits, reserve=reserve)
        try:
            self.require_room(target.project, 0)  # now that the reservation stands, also against those beside it
            yield upload
        except BaseException as error:
            upload.remove()
            if isinstance(error, ModelyardError):
                self.record_refusal(target, error, checks=())
            raise
        finally:
            self.ledger.close(reservation)

    def submit(self, target: Target, upload: ReceivedUpload, *, upload_id: str | None = None) -> Progress:
        """Have a received upload checked; it belongs to the centre from here on.

        Raises:
            Unavailable: too many wait already; the upload is removed.
        """
        if len(self._running) >= self.limits.inspections + self.limits.waiting:
            upload.remove()
            raise Unavailable(
                "too many uploads are being checked", hint="send it again in a minute", retry_after_s=30.0
            )
        progress = Progress(id=upload_id or make_id("upl", now=self.database.clock.now()), target=target)
        self._running[progress.id] = progress
        reservation = self.ledger.open(target.project, upload.total)

        def work() -> None:
            try:
                self._decide(progress, upload)
            finally:
                self.ledger.close(reservation)
                self._running.pop(progress.id, None)

        self._pool.submit(work)
        return progress

    def running(self, upload_id: str) -> Progress | None:
        """An upload that is being checked now."""
        return self._running.get(upload_id)

    def record_refusal(self, target: Target, error: ModelyardError, *, checks: Sequence[Check]) -> None:
        """What stays of an upload that is not taken: one entry with the code and the checks."""
        payload = {
            "model": target.model,
            "code": error.code,
            "detail": error.detail,
            "hint": error.hint,
            "checks": to_plain(list(checks)),
        }
        with self.database.begin() as tx:
            append(
                tx,
                actor=target.author,
                action="model.upload_refused",
                subject=f"model/{target.model}",
                project=target.project,
                payload=payload,
            )

    def close(self) -> None:
        """Wait for the uploads that are being checked, then take no more. Idempotent."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self.disk.shutdown(wait=True, cancel_futures=True)

    def _decide(self, progress: Progress, upload: ReceivedUpload) -> None:
        try:
            decision = self._check_and_keep(progress, upload)
        except ModelyardError as error:
            decision = Decision(error=error)
        except Exception as error:  # noqa: BLE001  (the plugin edge: whatever the checks raise ends this upload only)
            decision = Decision(error=_unexpected(error))
        finally:
            with suppress(OSError):
                upload.remove()
        self._end(progress, decision)

    def _end(self, progress: Progress, decision: Decision) -> None:
        error = decision.error
        if error is None:
            progress.finish(decision, UploadState.ACCEPTED)
            return
        refused = decision.audit is not None
        if refused:
            with suppress(ModelyardError):
                self.record_refusal(progress.target, error, checks=progress.checks)
        progress.finish(decision, UploadState.REFUSED if refused else UploadState.FAILED)

    def _check_and_keep(self, progress: Progress, upload: ReceivedUpload) -> Decision:
        workdir = upload.directory / "work"
        workdir.mkdir(mode=0o700)
        inspection = self._parts.inspect(
            tuple(upload.files),
            model_name=progress.target.model,
            workdir=workdir,
            policy=self._parts.policy,
            on_check=progress.on_check,
        )
        report = inspection.report
        if report.verdict is Verdict.REFUSED:
            return Decision(audit=report, error=error_of(report))
        version = self._keep(progress.target, upload, inspection, workdir)
        return Decision(audit=report, version=version)

    def _keep(self, target: Target, upload: ReceivedUpload, inspection: Inspection, workdir: Path) -> VersionRecord:
        for _ in range(_TRIES):
            version = self._keep_once(target, upload, inspection, workdir)
            if version is not None:
                return version
        raise Unavailable("the same files were deleted while they were stored", hint="send the upload again")

    def _keep_once(
        self, target: Target, upload: ReceivedUpload, inspection: Inspection, workdir: Path
    ) -> VersionRecord | None:
        """The new version; None when a deletion took away meanwhile what it shares with another version."""
        step, places = self._parts.step, self.places
        step("store")
        files = store_files(self._parts.artifacts, inspection.files, received=upload.files, workdir=workdir)
        new = NewVersion(
            project=target.project,
            model=target.model,
            digest=inspection.digest,
            audit=inspection.report,
            files=files,
            author=target.author,
            version=target.version,
            source=target.source,
            has_package=inspection.package_dir is not None,
            card=_card(upload.files),
            **_facts(inspection, places),
        )
        step("package")
        if inspection.package_dir is not None and inspection.package_dir.exists():
            place_package(inspection.package_dir, inspection.digest, places=places)
        step("register")
        with self.database.begin() as tx:
            if not self._all_there(new):  # deletions give room back under this same lock
                return None
            version = register_version(tx, new)
            if target.alias is not None and version.state is VersionState.APPROVED:
                self._parts.set_alias(tx, target, version)
            step("commit")
        step("done")
        return version

    def _all_there(self, new: NewVersion) -> bool:
        package = not new.has_package or package_path(self.places, new.digest).is_dir()
        return package and all(self._parts.artifacts.exists(file.sha256) for file in new.files.values())


def _card(files: Sequence[ReceivedFile]) -> str:
    """The README as text, empty when there is none."""
    for file in files:
        if file.name.lower() == "readme.md" and file.size <= _CARD_BYTES:
            return file.path.read_text(encoding="utf-8", errors="replace")
    return ""


def _facts(inspection: Inspection, places: Places) -> dict[str, Any]:
    """What the package says of itself, for the library."""
    if inspection.package_dir is None:
        return {"format": ModelFormat.PYTHON}
    here = inspection.package_dir
    package = read_package(here if here.exists() else package_path(places, inspection.digest))
    return {
        "format": package.format,
        "task": package.contract.task,
        "library": package.platform,
        "isolation": package.isolation,
        "contract": package.contract,
        "golden": package.golden,
    }


def _unexpected(error: Exception) -> ModelyardError:
    _LOG.exception("an upload could not be checked", exc_info=error)
    return ModelyardError(UNEXPECTED, hint="it was not your file; the log has the reason, send it again")


def received_again(directory: Path, files: Sequence[ReceivedFile], *, limits: UploadLimits) -> ReceivedUpload:
    """A finished resumable upload in the form of a received one."""
    upload = ReceivedUpload(directory=directory, limits=limits, reserve=lambda _: None, files=list(files))
    return replace(upload, total=sum(file.size for file in files), parts=len(files))


def clear_incoming(places: Places, *, keep: frozenset[str] = frozenset()) -> list[str]:
    """Remove what earlier runs were receiving or checking, except the directories named in `keep`."""
    left = [place for place in places.incoming.iterdir() if place.name not in keep]
    for place in left:
        remove_tree(place)
    return [f"upload {place.name}" for place in left]
