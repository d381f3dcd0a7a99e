"""Keep the evidence in the records, so that a control plane that starts again goes on where the last one was."""

import math
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec
from sqlalchemy import ColumnElement, delete, insert, select

from modelyard.control.records import Transaction
from modelyard.control.traffic.guard.decision import Verdict
from modelyard.control.traffic.guard.evidence import Evidence
from modelyard.control.traffic.tables import canaries
from modelyard.foundation.documents import from_json, to_json


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary:
    """Which revision of which service is compared with which."""

    project: str
    service: str
    revision: int
    stable: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """The evidence about a canary, and what was last said of it."""

    canary: Canary
    evidence: Evidence
    verdict: Verdict = Verdict.WAIT


def find(tx: Transaction, canary: Canary) -> Kept:
    """What is kept of `canary`; nothing yet, when it is compared with another revision than before."""
    row = tx.execute(select(canaries).where(*_key(canary))).mappings().first()
    if row is not None and row["stable"] == canary.stable:
        evidence = from_json(row["evidence"], Evidence)
        return Kept(canary=canary, evidence=evidence, verdict=Verdict(row["verdict"]))
    now = tx.now.timestamp()
    return Kept(canary=canary, evidence=Evidence(began_at=now, looked_at=now))


def newest(tx: Transaction, project: str, service: str) -> Kept | None:
    """What is kept of the last canary of a service, also when it is over; None when there was none."""
    query = select(canaries).where(canaries.c.project == project, canaries.c.service == service)
    row = tx.execute(query.order_by(canaries.c.began_at.desc(), canaries.c.revision.desc()).limit(1)).mappings().first()
    if row is None:
        return None
    canary = Canary(project=project, service=service, revision=row["revision"], stable=row["stable"])
    return Kept(canary=canary, evidence=from_json(row["evidence"], Evidence), verdict=Verdict(row["verdict"]))


def save(tx: Transaction, kept: Kept) -> None:
    """Write it down in place of what was there."""
    canary, evidence = kept.canary, kept.evidence
    tx.execute(delete(canaries).where(*_key(canary)))
    tx.execute(
        insert(canaries).values(
            project=canary.project,
            service=canary.service,
            revision=canary.revision,
            stable=canary.stable,
            evidence=to_json(evidence),
            verdict=kept.verdict.value,
            began_at=datetime.fromtimestamp(evidence.began_at, UTC),
            looked_at=datetime.fromtimestamp(evidence.looked_at, UTC),
        )
    )


def plain(value: object) -> object:
    """`value` as JSON has it; what is infinite is null."""

    def clean(each: object) -> object:
        match each:
            case float() if not math.isfinite(each):
                return None
            case dict():
                return {key: clean(inner) for key, inner in each.items()}
            case list() | tuple():
                return [clean(inner) for inner in each]
            case _:
                return each

    return clean(msgspec.to_builtins(value))


def _key(canary: Canary) -> tuple[ColumnElement[bool], ...]:
    return (
        canaries.c.project == canary.project,
        canaries.c.service == canary.service,
        canaries.c.revision == canary.revision,
    )
