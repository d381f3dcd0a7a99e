"""The account of inputs: every inference request that a service received, and what became of it, across all servers.

Servers count into mapped files that outlive them; whoever may read the directory can add them up, also while servers
come and go. The control plane does so without loading anything of the data plane.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from modelyard.foundation.metrics.account import Account
from modelyard.foundation.metrics.exposition import Group
from modelyard.foundation.metrics.families import Family, Kind

_SERVICE: Final = ("project", "service")


def _counter(name: str, text: str, *labels: str) -> Family:
    return Family(name=name, kind=Kind.COUNTER, help=text, labels=labels)


RECEIVED: Final = _counter("modelyard_inputs_received_total", "Inference requests received for a service.", *_SERVICE)
ANSWERED: Final = _counter("modelyard_inputs_answered_total", "Requests that a model answered or failed on.", *_SERVICE)
REJECTED: Final = _counter(
    "modelyard_inputs_rejected_total", "Requests refused before a model saw them, by error code.", *_SERVICE, "reason"
)
LOST: Final = _counter(
    "modelyard_inputs_lost_total",
    "Requests accepted that got no prediction: timeout, cancelled, worker_died, process_died.",
    *_SERVICE,
    "reason",
)
IN_FLIGHT: Final = Family(
    name="modelyard_inputs_in_flight", kind=Kind.GAUGE, help="Requests received and not settled yet.", labels=_SERVICE
)
ACCOUNT: Final = Account(received=RECEIVED, settled=(ANSWERED, REJECTED), lost=LOST, in_flight=IN_FLIGHT)


@dataclass(frozen=True, slots=True, kw_only=True)
class InputAccount:
    """One service's account; `rejected` and `lost` by reason. It balances at every moment, to the request."""

    received: int
    answered: int
    rejected: Mapping[str, int]
    lost: Mapping[str, int]
    in_flight: int

    @property
    def is_balanced(self) -> bool:
        """Whether received = answered + rejected + lost + in flight."""
        settled = self.answered + sum(self.rejected.values()) + sum(self.lost.values())
        return self.received == settled + self.in_flight and self.in_flight >= 0


def account_of(directory: Path, project: str, service: str) -> InputAccount:
    """The account of a service, added up over all books in `directory`; all zero when nothing was asked yet."""
    group = Group.read(directory, accounts=[ACCOUNT])
    place = (project, service)
    in_flight = int(group.value(IN_FLIGHT, *place))
    return InputAccount(
        received=int(group.value(RECEIVED, *place)) - min(0, in_flight),  # what came and went while this was read
        answered=int(group.value(ANSWERED, *place)),
        rejected=_by_reason(group, REJECTED, place),
        lost=_by_reason(group, LOST, place),
        in_flight=max(0, in_flight),
    )


def _by_reason(group: Group, family: Family, place: tuple[str, str]) -> dict[str, int]:
    found = {
        labels[2]: int(cells[0])
        for (name, labels), cells in group.series.items()
        if name == family.name and labels[:2] == place and cells[0]
    }
    return dict(sorted(found.items()))
