"""Models that jobs have made, on their way through the intake that every upload takes.

Each candidate of a job that succeeded is uploaded in the name of whoever submitted the job, with the job as its source.
What became of it is written to the job: the version, or why it was refused. One whose version is there already,
because this process died in between, is not uploaded again.
"""

import logging
import threading
from collections.abc import Mapping
from typing import Any, Final

from modelyard.control.catalog import find_by_source
from modelyard.control.intake import Target, UploadCentre
from modelyard.control.jobs import Job, JobFiles, candidates_waiting, settle_candidate
from modelyard.domain.errors import ModelyardError
from modelyard.domain.errors.platform import Unavailable

_LOG: Final = logging.getLogger(__name__)
_LOOK_S: Final = 1.0
_BLOCK: Final = 1 << 20


class CandidateIntake:
    """A thread that looks for candidates and has them taken in, one after the other."""

    def __init__(self, centre: UploadCentre, files: JobFiles) -> None:
        self._centre = centre
        self._files = files
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="job-candidates", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, and wait for it. Idempotent."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def look(self) -> None:
        """Take what is there now."""
        with self._centre.database.read() as tx:
            waiting = candidates_waiting(tx)
        for job, place in waiting:
            if self._over.is_set():
                return
            outcome = self._take(job, place)
            with self._centre.database.begin() as tx:
                settle_candidate(tx, job.id, place, outcome)

    def _run(self) -> None:
        while not self._over.wait(_LOOK_S):
            try:
                with self._centre.database.leading() as leads:
                    if leads:
                        self.look()
            except ModelyardError as error:
                _LOG.warning("candidates cannot be taken now: %s", error)
            except Exception:  # noqa: BLE001  (the loop: it outlives whatever one candidate meets)
                _LOG.exception("a candidate could not be taken; it is tried again")

    def _take(self, job: Job, place: int) -> Mapping[str, Any]:
        candidate = job.candidates[place]
        model = str(candidate["name"])
        source = {"kind": "job", "job": job.id, "candidate": place, "parent": candidate.get("parent") or ""}
        with self._centre.database.read() as tx:
            known = find_by_source(tx, job.project, model, source)
        if known is not None:
            return {"state": "version", "version": known.version, "verdict": known.state.value}
        try:
            return self._upload(Target(project=job.project, model=model, author=job.actor, source=source), candidate)
        except Unavailable:
            raise
        except ModelyardError as error:
            return {"state": "refused", "reason": error.detail, "code": error.code}

    def _upload(self, target: Target, candidate: Mapping[str, Any]) -> Mapping[str, Any]:
        files = candidate["files"]
        with self._centre.receiving(target, size=sum(int(file["size_bytes"]) for file in files)) as upload:
            for file in files:
                upload.count_part()
                writer = upload.begin(str(file["name"]))
                try:
                    with self._files.store.open(str(file["sha256"])) as stream:
                        while block := stream.read(_BLOCK):
                            upload.count_bytes(len(block))
                            writer.write(memoryview(block))
                    upload.files.append(writer.finish())
                finally:
                    writer.close()
            progress = self._centre.submit(target, upload)
        decision = progress.finished.result()
        if decision.version is not None:
            return {"state": "version", "version": decision.version.version, "verdict": decision.version.state.value}
        error = decision.error
        return {
            "state": "refused",
            "reason": "" if error is None else error.detail,
            "code": "" if error is None else error.code,
        }
