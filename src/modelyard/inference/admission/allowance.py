"""What one key, and one project, may take: a rate, a bound on what is in flight, and quotas of a day and a month.

All of it is shared by the processes of a machine, in one mapped file beside that of the services. A quota counts
predictions that were given: a request reserves one when it comes in and settles it with its answer; what was refused or
failed gives it back, and what a process that died had reserved is taken back from it. So the count is that of the
answers, whoever was killed on the way (safety.md, AZ-16 and AZ-17).
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from time import time
from typing import Final

from modelyard.domain.access import NO_LIMITS, KeyLimits, KeyRecord, ProjectQuota, Quota
from modelyard.domain.errors.platform import RateLimited, RatePolicy, RequestQuotaUsedUp, Unavailable
from modelyard.inference.admission.limits import Gate, SharedLimits, TokenBucket

FILE: Final = "key-limits"
RECORDS: Final = 16_384
_BUSY_RETRY_S: Final = 1.0
Clock = Callable[[], float]


class QuotaCount:
    """Predictions of the present day or month, of all processes together, and those that are reserved."""

    __slots__ = ("_at", "_clock", "_gate", "_limits", "_whose", "_window", "most")

    def __init__(self, limits: SharedLimits, name: str, quota: Quota, *, whose: str, clock: Clock) -> None:
        self._limits = limits
        self._gate = limits.gate(f"{name}/{quota.window}", 0)
        self._at = limits.record(f"{name}/{quota.window}")
        self._window = quota.window
        self._whose = whose
        self._clock = clock
        self.most = quota.most

    def reserve(self) -> None:
        """Set one aside.

        Raises:
            RequestQuotaUsedUp: nothing is left until the next day or month (UTC).
        """
        now = self._clock()
        limits = self._limits
        with limits.locked():
            self._turn(now)
            if self._taken() >= self.most:
                limits.reclaim()
                if self._taken() >= self.most:
                    raise self._used_up(now)
            limits.cells[self._gate.mine] += 1

    def settle(self) -> None:
        """The prediction was given: it counts."""
        cells = self._limits.cells
        with self._limits.locked():
            cells[self._at + 2] += 1  # first this: a process that dies in between has its reservation taken back
            cells[self._gate.mine] = max(0.0, cells[self._gate.mine] - 1)

    def give_back(self) -> None:
        """It was not."""
        with self._limits.locked():
            self._gate.leave()

    @property
    def used(self) -> int:
        """Predictions that count in the present window."""
        with self._limits.locked():
            self._turn(self._clock())
            return int(self._limits.cells[self._at + 2])

    def _taken(self) -> float:
        return self._limits.cells[self._at + 2] + self._gate.in_flight()

    def _turn(self, now: float) -> None:
        """A later day or month begins at nothing; a clock that goes back changes nothing."""
        cells, present = self._limits.cells, float(_number(self._window, now))
        if present > cells[self._at + 1]:
            cells[self._at + 1] = present
            cells[self._at + 2] = 0.0

    def _used_up(self, now: float) -> RequestQuotaUsedUp:
        wait = _end(self._window, now) - now
        return RequestQuotaUsedUp(
            f"the quota of this {self._whose} is used up: {self.most} predictions a {self._window}",
            retry_after_s=wait,
            hint="wait as long as Retry-After says, or ask an administrator for more",
            policy=RatePolicy(f"{self._whose}-{self._window}", self.most, _LENGTHS_S[self._window]),
        )


class Allowance:
    """What one caller may take. `enter` counts a request in, and gives what counts it out."""

    __slots__ = ("_bucket", "_gate", "_quotas")

    def __init__(self, bucket: TokenBucket | None, gate: Gate | None, quotas: Sequence[QuotaCount]) -> None:
        self._bucket = bucket
        self._gate = gate
        self._quotas = tuple(quotas)

    def unhurried(self) -> "Allowance":
        """The same without its rate, which a request was counted against when it was accepted."""
        return Allowance(None, self._gate, self._quotas)

    def enter(self) -> "Hold":
        """Count one request in.

        Raises:
            RateLimited: the key asks too often or too much at once.
            RequestQuotaUsedUp: a quota has nothing left.
        """
        bucket, gate = self._bucket, self._gate
        if bucket is not None and (wait := bucket.take()):
            raise RateLimited(
                f"this key may send {bucket.rate:g} requests a second",
                retry_after_s=wait,
                hint="wait as long as Retry-After says",
                policy=RatePolicy("key", max(1, int(bucket.rate)), 1),
            )
        if gate is not None and not gate.enter():
            raise RateLimited(
                f"this key may have {gate.bound} requests in flight",
                retry_after_s=_BUSY_RETRY_S,
                hint="wait for an answer before the next request",
            )
        hold = Hold(gate)
        try:
            for quota in self._quotas:
                quota.reserve()
                hold.quotas.append(quota)
        except RequestQuotaUsedUp:
            hold.leave()
            raise
        return hold


class Hold:
    """One request that was counted in: `settle` when it was answered with a prediction, else `leave`."""

    __slots__ = ("_gate", "quotas", "service_gate")

    def __init__(self, gate: Gate | None) -> None:
        self._gate = gate
        self.quotas: list[QuotaCount] = []
        self.service_gate: Gate | None = None

    def settle(self) -> None:
        """Count it out; it counts for the quotas."""
        for quota in self.quotas:
            quota.settle()
        self._leave_gates()

    def leave(self) -> None:
        """Count it out; quotas get it back."""
        for quota in self.quotas:
            quota.give_back()
        self._leave_gates()

    def _leave_gates(self) -> None:
        for gate in (self._gate, self.service_gate):
            if gate is not None:
                gate.leave()


class Allowances:
    """The limits of one table's keys and projects. `limits` opens the mapped file for the first one that has any."""

    def __init__(
        self, limits: Callable[[], SharedLimits], quotas: Iterable[ProjectQuota], *, clock: Clock = time
    ) -> None:
        self._open = limits
        self._clock = clock
        self._of_project = {quota.project: quota.quotas for quota in quotas}

    def of_key(self, record: KeyRecord) -> Allowance | None:
        """What the key may take; None where nothing limits it."""
        return self._allowance(record.project, record.limits, record.id)

    def of_project(self, project: str) -> Allowance | None:
        """What a caller without a key of ours may take of its project's quotas."""
        return self._allowance(project, NO_LIMITS, "")

    def _allowance(self, project: str, wish: KeyLimits, key: str) -> Allowance | None:
        of_project = self._of_project.get(project, ())
        if wish == NO_LIMITS and not of_project:
            return None
        try:
            return self._counted(self._open(), project, wish, f"key/{key}")
        except OSError as error:
            raise Unavailable(
                f"this key's limits cannot be counted: {error}", hint="an operator has to look"
            ) from error

    def _counted(self, limits: SharedLimits, project: str, wish: KeyLimits, name: str) -> Allowance:
        of_project = self._of_project.get(project, ())
        counts = [QuotaCount(limits, name, quota, whose="key", clock=self._clock) for quota in wish.quotas]
        counts += [
            QuotaCount(limits, f"project/{project}", quota, whose="project", clock=self._clock) for quota in of_project
        ]
        return Allowance(
            None if wish.requests_per_s is None else limits.bucket(name, wish.requests_per_s),
            None if wish.max_in_flight is None else limits.gate(name, wish.max_in_flight),
            counts,
        )


_LENGTHS_S: Final = {"day": 86_400, "month": 30 * 86_400}


def _number(window: str, now: float) -> int:
    """Days or months since year 0, in UTC; at least 1, so that a new record begins one."""
    moment = datetime.fromtimestamp(now, UTC)
    return moment.toordinal() if window == "day" else moment.year * 12 + moment.month


def _end(window: str, now: float) -> float:
    midnight = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if window == "day":
        return (midnight + timedelta(days=1)).timestamp()
    return (midnight.replace(day=1) + timedelta(days=32)).replace(day=1).timestamp()
