"""The platform's account of a service against the client's own ledger."""

import time

from tests.faults.experiment import Run
from tests.faults.ledger import Ledger
from tests.faults.stand import Service


def account(service: Service) -> dict[str, object]:
    """What the control plane says that became of all requests."""
    answer = service.stand.control("GET", f"/services/{service.name}/account")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


class Audit:
    """Compares what was counted between two moments; nothing else may ask the service meanwhile."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._before = account(service)

    def check(self, run: Run, ledger: Ledger, *, uncertain: int = 0) -> None:
        """received = answered + rejected + lost, to the request, and what clients got was counted as given.

        `uncertain` requests may have died with a connection before a server had read them.
        """
        after = account(self._service)
        for _ in range(100):
            if not after["in_flight"]:
                break
            time.sleep(0.1)
            after = account(self._service)
        grown = {
            name: _total(after[name]) - _total(self._before[name])
            for name in ("received", "answered", "rejected", "lost")
        }
        run.figures["account"] = grown
        balance = grown["received"] - grown["answered"] - grown["rejected"] - grown["lost"]
        run.check("account: received − answered − rejected − lost", abs(balance), at_most=0, detail=str(grown))
        sent = len(ledger.entries)
        run.check("account: requests not received", sent - grown["received"], at_least=0, at_most=uncertain)
        missing = ledger.count("ok") - grown["answered"]
        run.check("account: right answers not counted as answered", missing, at_most=0)


def _total(value: object) -> int:
    return sum(value.values()) if isinstance(value, dict) else int(str(value))
