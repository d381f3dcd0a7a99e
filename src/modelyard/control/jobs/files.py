"""Files of jobs: given before a job that uses them is submitted, kept by digest, gone when no job needs them."""

import errno
import hashlib
import os
import secrets
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO, Final

from sqlalchemy import delete, insert, select
from starlette.concurrency import run_in_threadpool

from modelyard.control.identity import Principal, find_project, lacks, missing, reach_of
from modelyard.control.jobs.tables import job_blobs
from modelyard.control.records import Database, Transaction
from modelyard.domain.access import Verb
from modelyard.domain.digests import PREFIX
from modelyard.domain.errors.base import quote
from modelyard.domain.errors.edge import BodyTooLarge
from modelyard.domain.errors.platform import StorageFull
from modelyard.ports.artifact_store import ArtifactStore

_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
UNUSED_FOR: Final = timedelta(hours=24)
"""How long a file waits for a job that uses it."""
_MAY_GIVE: Final = (Verb.INFER, Verb.UPLOAD, Verb.DEPLOY)


class JobFiles:
    """Takes files, hands them out, and lets them go. `most_bytes` bounds one file."""

    def __init__(self, database: Database, store: ArtifactStore, *, drafts: Path, most_bytes: int) -> None:
        self.database = database
        self.store = store
        self._drafts = drafts
        self._most_bytes = most_bytes

    def admit(self, who: Principal, project: str) -> None:
        """Let the caller give files to jobs of `project`.

        Raises:
            NotFound, Forbidden: it may not submit any job there.
        """
        with self.database.read() as tx:
            if not reach_of(who).covers(project, None):
                raise missing(f"project {quote(project)}")
            find_project(tx, project)
        if not any(reach_of(who, verb).covers(project, None) for verb in _MAY_GIVE):
            raise lacks(Verb.INFER, project=project, name=None)

    async def take(self, project: str, blocks: AsyncIterator[bytes]) -> tuple[str, int]:
        """Store what comes, durably; its hex digest and size.

        Raises:
            BodyTooLarge: it is larger than a file may be.
            StorageFull: there is no room.
        """
        draft = self._drafts / f"job-file-{secrets.token_hex(8)}"
        digest, size = hashlib.sha256(), 0
        try:
            with await run_in_threadpool(draft.open, "xb") as stream:
                async for block in blocks:
                    size += len(block)
                    if size > self._most_bytes:
                        raise BodyTooLarge(
                            f"a file of a job may have {self._most_bytes} bytes",
                            hint="give it in parts, or raise jobs.input_mib",
                        )
                    digest.update(block)
                    await run_in_threadpool(_write, stream, block)
            sha256 = digest.hexdigest()
            await run_in_threadpool(self.keep, draft, sha256, size, project)
        finally:
            await run_in_threadpool(draft.unlink, missing_ok=True)
        return sha256, size

    def keep(self, draft: Path, sha256: str, size: int, project: str) -> None:
        """Store a file whose digest and size are known, for a job of `project` to come."""
        self.store.put(draft, sha256)
        with self.database.begin() as tx:
            this = (job_blobs.c.sha256 == sha256) & (job_blobs.c.job == "") & (job_blobs.c.project == project)
            tx.execute(delete(job_blobs).where(this))
            tx.execute(insert(job_blobs).values(sha256=sha256, job="", project=project, size_bytes=size, at=tx.now))
            if not self.store.exists(sha256):  # it was let go between the two lines above
                self.store.put(draft, sha256)

    def size_of(self, tx: Transaction, project: str, text: str) -> tuple[str, int]:
        """Digest and size of a file of this project, given as `sha256:HEX`; `NotFound` when it has none such."""
        sha256 = text.removeprefix(PREFIX)
        this = (job_blobs.c.sha256 == sha256) & (job_blobs.c.project == project)
        size = tx.scalar(select(job_blobs.c.size_bytes).where(this).limit(1))
        if size is None:
            raise missing(f"file {quote(text)} in project {quote(project)}")
        return sha256, size

    def forget(self, tx: Transaction, *, jobs: list[str]) -> int:
        """Let go what belongs to these jobs alone, and what waited too long for one; how many files went."""
        waited = (job_blobs.c.job == "") & (job_blobs.c.at < tx.now - UNUSED_FOR)
        gone = waited | job_blobs.c.job.in_(jobs)
        candidates = set(tx.scalars(select(job_blobs.c.sha256).where(gone)))
        tx.execute(delete(job_blobs).where(gone))
        number = 0
        for sha256 in candidates:
            if tx.scalar(select(job_blobs.c.sha256).where(job_blobs.c.sha256 == sha256).limit(1)) is None:
                self.store.delete(sha256)
                number += 1
        return number


def _write(stream: BinaryIO, block: bytes) -> None:
    try:
        stream.write(block)
        stream.flush()
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFull("the file does not fit on the disk", hint="free space in the data directory") from error
        raise


def drop_drafts(drafts: Path) -> None:
    """Remove what was being received when an earlier process ended."""
    for draft in drafts.glob("job-file-*"):
        os.unlink(draft)  # noqa: PTH108  (a name of ours)
