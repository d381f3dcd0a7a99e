"""Jobs on real records and real files, with a clock that the test moves."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelyard.control.identity import LOCAL, Principal
from modelyard.control.jobs import Claim, Claims, JobFiles, JobKeeper, Jobs, Word
from modelyard.control.jobs.service import Wish
from modelyard.control.records import ControlParts
from modelyard.domain.errors.platform import NotFound
from modelyard.domain.jobs import JobSpec
from modelyard.foundation.clock import SetClock


def need_service(tx: object, project: str, name: str) -> None:
    if name != "iris":
        raise NotFound(f"there is no service {name}")


def no_model(*asked: object) -> dict[str, Any]:
    raise NotFound("there is no model")


@dataclass
class Desk:
    """All parts of jobs, and short words for what tests do with them."""

    parts: ControlParts
    clock: SetClock
    jobs: Jobs
    claims: Claims
    keeper: JobKeeper
    files: JobFiles
    drafts: Path

    def give(self, content: bytes, project: str = "default") -> str:
        """A file for jobs, as the route stores it."""
        sha256 = self.stored(content)
        self.files.keep(self.drafts / sha256, sha256, len(content), project)
        return f"sha256:{sha256}"

    def stored(self, content: bytes) -> str:
        """Bytes in the store, as a worker puts them there."""
        sha256 = hashlib.sha256(content).hexdigest()
        draft = self.drafts / sha256
        draft.write_bytes(content)
        self.files.store.put(draft, sha256)
        return sha256

    def submit(self, who: Principal = LOCAL, *, key: str | None = None, project: str = "default", **more: Any) -> str:
        """A job that asks the service iris."""
        content = more.pop("content", b"a,b\n1,2\n")
        parameters = more.pop("parameters", {"service": "iris"})
        spec = JobSpec(kind="batch-inference", parameters=parameters, **more)
        given = {"data": {"file": self.give(content, project), "name": "rows.csv"}}
        wish = Wish(project=project, spec=spec, inputs=given)
        return str(self.jobs.submit(who, wish, idempotency_key=key)["id"])

    def claim(self, worker: str = "w1") -> Claim:
        """A claim that there has to be."""
        claim = self.claims.claim(worker)
        assert claim is not None
        return claim

    def word(self, claim: Claim, **more: Any) -> Word:
        """What the worker of this claim says."""
        return Word(job=claim.job, token=claim.token, **more)

    def show(self, number: str) -> dict[str, Any]:
        """Its document."""
        return dict(self.jobs.show(LOCAL, number))
