"""Promote, go a step further, roll back, or wait; with the reasons in words and figures."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from modelyard.control.traffic.guard.evidence import Evidence, log_evidence
from modelyard.control.traffic.guard.findings import Finding, findings
from modelyard.control.traffic.guard.policy import GuardPolicy
from modelyard.domain.rollout import Watched


class Verdict(StrEnum):
    """What the evidence asks for. `ADVANCE` is the next share, and after the last one all of the traffic."""

    WAIT = "wait"
    ADVANCE = "advance"
    ROLL_BACK = "roll_back"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A verdict. `evidence` is the e-value now, `needed` what a rollback takes."""

    verdict: Verdict
    reasons: tuple[str, ...]
    rows: tuple[Finding, ...]
    evidence: float
    needed: float

    @property
    def text(self) -> str:
        """The reasons as one sentence."""
        return "; ".join(self.reasons)


def decide(evidence: Evidence, policy: GuardPolicy, *, step_requests: int) -> Decision:
    """What the evidence asks for. `step_requests` are the canary's at the present share.

    Harm counts from the moment it was shown: evidence that fell again afterwards does not take it back.
    """
    rows = findings(evidence, policy)
    needed = 1 / policy.level
    present = math.exp(min(log_evidence(evidence, policy), 700.0))
    shown = max(present, math.exp(min(evidence.peak, 700.0)))
    verdict, reasons = _judge(evidence, policy, rows, is_shown=shown >= needed, step_requests=step_requests)
    return Decision(verdict=verdict, reasons=reasons, rows=rows, evidence=present, needed=needed)


def _judge(
    evidence: Evidence, policy: GuardPolicy, rows: Sequence[Finding], *, is_shown: bool, step_requests: int
) -> tuple[Verdict, tuple[str, ...]]:
    if is_shown:
        return Verdict.ROLL_BACK, _harm(rows)
    canary = evidence.counted.canary.requests
    if step_requests < policy.least_requests:
        return Verdict.WAIT, (
            f"{step_requests} requests of the canary at this share, {policy.least_requests} are the least",
        )
    if canary >= policy.most_requests:
        return Verdict.ADVANCE, (f"no sign of harm in {canary} requests of the canary", *_visible(rows))
    open_rows = [row for row in rows if row.counts_for_promotion and not row.is_clear]
    missing = [thing for thing in policy.watch if not any(row.thing is thing for row in rows)]
    if open_rows or missing:
        unseen = tuple(f"{thing.value}: nothing counted yet" for thing in missing)
        return Verdict.WAIT, (*(_not_yet(row) for row in open_rows), *unseen)
    return Verdict.ADVANCE, tuple(_clear(row) for row in rows if row.counts_for_promotion)


def _harm(rows: Sequence[Finding]) -> tuple[str, ...]:
    """The things that speak against the canary, the loudest first."""
    guilty = sorted((row for row in rows if row.evidence > 1), key=lambda row: -row.evidence)
    named: dict[Watched, str] = {}
    for row in guilty:
        named.setdefault(row.thing, f"{describe(row)}, evidence {number(row.evidence)} to 1")
    return tuple(named.values()) or ("the evidence taken together says that it is worse",)


def _not_yet(row: Finding) -> str:
    days = "" if row.days is None else f", about {duration(row.days)} more at this rate"
    return f"not yet: {describe(row)}; {_amount(row, row.matters)} has to be excluded{days}"


def _clear(row: Finding) -> str:
    return f"{describe(row)}: {_amount(row, row.matters)} is excluded"


def _visible(rows: Sequence[Finding]) -> tuple[str, ...]:
    return tuple(
        f"{row.thing.value} {row.what}: {_amount(row, row.visible)} would have been seen"
        for row in rows
        if row.visible is not None and not row.is_clear
    )


def describe(row: Finding) -> str:
    """One finding in a clause, with n and its interval."""
    n = f"n {row.canary_n} against {row.stable_n}"
    if row.thing is Watched.LATENCY:
        times = f"{_ms(row.stable)} → {_ms(row.canary)}"
        return f"latency {row.what} {times}, × {row.effect:.2f} ({row.low:.2f} … {_factor(row.high)}, {n})"
    shares = f"{100 * row.stable:.2f} % → {100 * row.canary:.2f} %"
    return f"{row.what} {shares}, {_points(row.effect)} ({_points(row.low)} … {_points(row.high)} points, {n})"


def number(value: float) -> str:
    """An e-value for people."""
    if value >= 1e6:  # noqa: PLR2004  (digits beyond say nothing)
        return f"{value:.0e}"
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"  # noqa: PLR2004


def duration(days: float) -> str:
    """A time in the unit that suits it."""
    if days >= 36_500:  # noqa: PLR2004
        return "100 years or more"
    for unit, size in (("days", 1.0), ("hours", 1 / 24), ("minutes", 1 / 1440)):
        if days >= size:
            return f"{days / size:.3g} {unit}"
    return f"{days * 86_400:.0f} seconds"


def _amount(row: Finding, value: float | None) -> str:
    if value is None:
        return "nothing"
    return f"× {value:.2f}" if row.thing is Watched.LATENCY else f"{100 * value:.2g} points"


def _points(share: float) -> str:
    return f"{100 * share:+.2f}"


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms"


def _factor(value: float) -> str:
    return "∞" if math.isinf(value) else f"{value:.2f}"
