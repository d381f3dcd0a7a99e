"""Find out whether anybody changed history: edited, deleted, reordered, inserted, or cut off its end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sqlalchemy import func, select

from modelyard.control.history.anchors import read_anchors
from modelyard.control.history.chain import GENESIS, seal_of
from modelyard.control.history.entries import PAYLOAD_ERASED, digest_of
from modelyard.control.history.tables import history
from modelyard.control.records import Transaction

_BATCH: Final = 1000
_SHOWN: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Flaw:
    """One thing that does not add up. `kind` is edited, missing, reordered, forged, payload, cut_off or anchor."""

    kind: str
    sequence: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What was found. `anchored` is the place up to which a cut end would be seen; `unsealed` entries are too new."""

    entries: int
    head: str
    anchored: int
    unsealed: int
    flaws: tuple[Flaw, ...]

    @property
    def is_intact(self) -> bool:
        """Whether everything adds up."""
        return not self.flaws


@dataclass(slots=True)
class _Walk:
    """Where the walk along the chain stands."""

    key: bytes
    anchors: Mapping[int, str]
    erased: frozenset[str]
    sequence: int = 0
    previous: str = GENESIS
    flaws: list[Flaw] = field(default_factory=list)

    def flaw(self, kind: str, sequence: int, text: str) -> None:
        if len(self.flaws) < _SHOWN:
            self.flaws.append(Flaw(kind=kind, sequence=sequence, text=text))

    def step(self, row: Mapping[str, Any]) -> None:
        sequence = row["sequence"]
        if sequence != self.sequence + 1:
            self.flaw("missing", self.sequence + 1, f"entries {self.sequence + 1} to {sequence - 1} are not there")
        elif row["previous"] != self.previous:
            self.flaw("reordered", sequence, f"entry {sequence} does not follow the entry before it")
        if row["seal"] != seal_of(row, sequence=sequence, previous=row["previous"] or "", key=self.key):
            self.flaw("edited", sequence, f"entry {sequence} is not as it was sealed")
        if self.anchors.get(sequence, row["seal"]) != row["seal"]:
            self.flaw("forged", sequence, f"entry {sequence} is not the one that was anchored")
        self._check_payload(row)
        self.sequence, self.previous = sequence, row["seal"]

    def _check_payload(self, row: Mapping[str, Any]) -> None:
        if row["payload"] is None:
            if row["id"] not in self.erased:
                self.flaw("payload", row["sequence"], f"the content of entry {row['sequence']} is gone without a trace")
        elif digest_of(row["payload"]) != row["payload_digest"]:
            self.flaw("payload", row["sequence"], f"the content of entry {row['sequence']} was changed")


def verify(tx: Transaction, *, key: bytes, anchors: Path) -> Verification:
    """Walk the whole chain in order, in memory that does not grow with it."""
    written = read_anchors(anchors, key=key)
    ours = [anchor for anchor in written if anchor.is_ours]
    walk = _Walk(key=key, anchors={anchor.sequence: anchor.seal for anchor in ours}, erased=_erased(tx))
    if len(ours) < len(written):
        walk.flaw("anchor", 0, f"{len(written) - len(ours)} lines of the anchor file are not ours")
    while rows := _after(tx, walk.sequence):
        for row in rows:
            walk.step(row)
    last = max((anchor.sequence for anchor in ours), default=0)
    if last > walk.sequence:
        walk.flaw("cut_off", walk.sequence + 1, f"entries {walk.sequence + 1} to {last} were there and are gone")
    unsealed = tx.scalar(select(func.count()).select_from(history).where(history.c.sequence.is_(None))) or 0
    return Verification(
        entries=walk.sequence, head=walk.previous, anchored=last, unsealed=unsealed, flaws=tuple(walk.flaws)
    )


def _after(tx: Transaction, sequence: int) -> Sequence[Mapping[str, Any]]:
    query = select(history).where(history.c.sequence > sequence).order_by(history.c.sequence).limit(_BATCH)
    return [dict(row) for row in tx.execute(query).mappings()]


def _erased(tx: Transaction) -> frozenset[str]:
    rows = tx.scalars(select(history.c.payload).where(history.c.action == PAYLOAD_ERASED))
    return frozenset(str(payload["entry"]) for payload in rows if payload)
