"""Jobs: durable work. Accepted means written; a job's effect happens once, whoever dies meanwhile.

People submit, follow, cancel and retry (`Jobs`); workers claim, report and finish over the internal socket
(`JobDesk`); `JobKeeper` moves what has come due, takes jobs back from workers that fell silent, and forgets what is
old. The truth is the records: a lost wake-up costs a worker one wait.
"""

from collections.abc import Iterable

from sqlalchemy import Connection, inspect, select

from modelyard.control.jobs.candidates import candidates_waiting, settle_candidate
from modelyard.control.jobs.claims import Claims, ServiceKeys
from modelyard.control.jobs.desk import JobDesk
from modelyard.control.jobs.files import JobFiles
from modelyard.control.jobs.keeper import JobKeeper
from modelyard.control.jobs.service import Jobs
from modelyard.control.jobs.tables import job_blobs
from modelyard.control.jobs.values import Claim, Job, ServiceAddress, Wanted, Word


def stored_job_files(connection: Connection) -> Iterable[str]:
    """The digests of all files that belong to jobs: what a backup has to hold. Older records know of none."""
    if not inspect(connection).has_table(job_blobs.name):
        return frozenset()
    return frozenset(connection.scalars(select(job_blobs.c.sha256)))


__all__ = [
    "Claim",
    "Claims",
    "Job",
    "JobDesk",
    "JobFiles",
    "JobKeeper",
    "Jobs",
    "ServiceAddress",
    "ServiceKeys",
    "Wanted",
    "Word",
    "candidates_waiting",
    "settle_candidate",
    "stored_job_files",
]
