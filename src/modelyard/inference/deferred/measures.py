"""Figures of requests that are answered later: accepted = succeeded + failed + cancelled + waiting."""

from typing import Final

from modelyard.foundation.metrics import Book, Family, Kind

_SERVICE: Final = ("project", "service")
DEFERRED: Final = Family(
    name="modelyard_deferred_requests_total",
    kind=Kind.COUNTER,
    help="Requests to be answered later: accepted, and how they ended: succeeded, failed, cancelled.",
    labels=(*_SERVICE, "event"),
)
WAITING: Final = Family(
    name="modelyard_deferred_waiting",
    kind=Kind.GAUGE,
    help="Accepted requests that have no answer yet, of the processes that are there.",
    labels=("process",),
)
WEBHOOKS: Final = Family(
    name="modelyard_webhooks_total",
    kind=Kind.COUNTER,
    help="Messages to webhooks by how they ended: delivered, refused (410), given_up (after a day of trying).",
    labels=("outcome",),
)
FAMILIES: Final = (DEFERRED, WAITING, WEBHOOKS)


class DeferredMeasures:
    """The cells of one process."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._waiting = book.gauge(WAITING, book.name)

    def happened(self, event: str, *, project: str, service: str) -> None:
        """One request was accepted, or has ended."""
        self._book.counter(DEFERRED, project, service, event).add()

    def waiting(self, count: int) -> None:
        """So many of this process have no answer."""
        self._waiting.set(count)
