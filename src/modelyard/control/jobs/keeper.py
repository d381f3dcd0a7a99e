"""What happens to jobs by itself: they come due, are taken back from silent workers, and are forgotten when old."""

import logging
import shutil
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from sqlalchemy import delete, func, select

from modelyard.control.jobs import store
from modelyard.control.jobs.claims import LOST
from modelyard.control.jobs.files import JobFiles
from modelyard.control.jobs.tables import job_attempts, jobs
from modelyard.control.records import Database, Transaction
from modelyard.domain.errors import ModelyardError
from modelyard.domain.jobs import Failure, JobState, JobTrigger
from modelyard.foundation.settings import JobSettings

_LOG: Final = logging.getLogger(__name__)
_LONGEST_S: Final = 5.0
_SHORTEST_S: Final = 0.05
_TIDY_EVERY_S: Final = 600.0
_FINAL: Final = tuple(state.value for state in JobState if state.is_final)


class JobKeeper:
    """A thread of its own. `places` is where workers keep what jobs have on the disk; `is_held` holds removals back."""

    def __init__(
        self,
        database: Database,
        files: JobFiles,
        settings: JobSettings,
        *,
        places: Path,
        is_held: Callable[[], bool] = lambda: False,
    ) -> None:
        self._database = database
        self._files = files
        self._settings = settings
        self._places = places
        self._is_held = is_held
        self._opened_at = database.clock.monotonic()
        self._tidied_at = float("-inf")
        self._look = threading.Event()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="job-keeper", daemon=True)
        self._leave = database.subscribe(store.TOPIC, self._look.set)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, and wait for it. Idempotent."""
        self._leave()
        self._over.set()
        self._look.set()
        if self._thread.is_alive():
            self._thread.join()

    def sweep(self) -> float:
        """One look at everything; gives the seconds until the next is due."""
        self._take_back()
        self._bring_due()
        if self._database.clock.monotonic() - self._tidied_at > _TIDY_EVERY_S and not self._is_held():
            self._tidied_at = self._database.clock.monotonic()
            self._tidy()
        with self._database.read() as tx:
            due = tx.scalar(select(func.min(jobs.c.due_at)).where(jobs.c.state == JobState.SCHEDULED.value))
            return _LONGEST_S if due is None else _until(due, tx.now)

    def _run(self) -> None:
        wait_s = 0.0
        while not self._over.is_set():
            self._look.wait(wait_s)
            self._look.clear()
            if self._over.is_set():
                return
            try:
                with self._database.leading() as leads:
                    wait_s = self.sweep() if leads else _LONGEST_S
            except ModelyardError as error:
                _LOG.warning("jobs cannot be looked after now: %s", error)
                wait_s = _LONGEST_S

    def _take_back(self) -> None:
        """Jobs of workers that were silent for longer than a lease; none while they may not have reached us yet."""
        lease = timedelta(seconds=self._settings.lease_s)
        if self._database.clock.monotonic() - self._opened_at < self._settings.lease_s:
            return
        silent = select(jobs).where(jobs.c.state == JobState.RUNNING.value)
        with self._database.read() as tx:
            if tx.execute(silent.where(jobs.c.heard_at < tx.now - lease).limit(1)).first() is None:
                return
        with self._database.begin() as tx:
            for row in list(tx.execute(silent.where(jobs.c.heard_at < tx.now - lease).with_for_update()).mappings()):
                store.fail(tx, store.read(row), Failure.LOST, actor=store.KEEPER, error=LOST)

    def _bring_due(self) -> None:
        waiting = select(jobs).where(jobs.c.state == JobState.SCHEDULED.value)
        with self._database.read() as tx:
            if tx.execute(waiting.where(jobs.c.due_at <= tx.now).limit(1)).first() is None:
                return
        with self._database.begin() as tx:
            for row in list(tx.execute(waiting.where(jobs.c.due_at <= tx.now).with_for_update()).mappings()):
                store.change(tx, store.read(row), JobTrigger.COME_DUE, actor=store.KEEPER)

    def _tidy(self) -> None:
        """Forget jobs that are over for long, files that nobody needs, and directories of jobs that succeeded."""
        with self._database.begin() as tx:
            old = self._old(tx)
            if old:
                tx.execute(delete(job_attempts).where(job_attempts.c.job.in_(old)))
                tx.execute(delete(jobs).where(jobs.c.id.in_(old)))
            self._files.forget(tx, jobs=old)
            over = (JobState.SUCCEEDED.value, JobState.CANCELLED.value)
            kept = set(tx.scalars(select(jobs.c.id).where(jobs.c.state.not_in(over))))
        with suppress(FileNotFoundError):
            for place in self._places.iterdir():
                if place.name.startswith("job_") and place.name not in kept:
                    shutil.rmtree(place, ignore_errors=True)

    def _old(self, tx: Transaction) -> list[str]:
        before = tx.now - timedelta(days=self._settings.kept_days)
        query = select(jobs.c.id).where(jobs.c.state.in_(_FINAL), jobs.c.ended_at < before).limit(500)
        return list(tx.scalars(query))


def _until(due: datetime, now: datetime) -> float:
    return min(max((due - now).total_seconds(), _SHORTEST_S), _LONGEST_S)
