"""How a service answers predictions: chosen when a table takes effect, so that what it does not use costs nothing.

`InferenceHandler` finds out who asks, which service is meant, and whether the caller may; then it calls the service's
`Predict`. A feature that changes how a service answers (a cache, a relay, copies to a shadow) is a `Predict` of its
own, or one around another, and `choose` is the one place that decides, from the service's route, which of them it gets.
"""

from dataclasses import dataclass
from typing import Protocol

from modelyard.foundation.http.exchange import Reply, Request
from modelyard.foundation.http.turns import Arrival, Turn
from modelyard.inference.admission import Caller
from modelyard.inference.routing import Service
from modelyard.inference.server.dialects import Dialect


@dataclass(slots=True)
class Asked:
    """One prediction that a caller who may ask for it wants. Nothing is counted or admitted yet."""

    request: Request
    reply: Reply
    service: Service
    caller: Caller
    dialect: Dialect
    version: str | None = None
    """Of the model, where the address names one."""


@dataclass(slots=True)
class AskedTogether:
    """V2 requests to one service by one caller that came in one turn of the loop, alike in the headers that count.

    `json_size` is their Inference-Header-Content-Length; None for JSON.
    """

    arrivals: list[Arrival]
    turn: Turn
    caller: Caller
    json_size: int | None


class Predict(Protocol):
    """Answers the predictions of one service, and keeps its account (`ServiceMeasures`)."""

    takes_turns: bool
    """Whether `take` may be called. False where more than path, caller and body decides how a request is answered."""

    def ask(self, asked: Asked) -> None:
        """Answer one request, now or later. Runs on the loop and does not block.

        Raises:
            ModelyardError: it is refused; the handler answers with that.
        """

    def take(self, asked: AskedTogether) -> None:
        """Answer all; what has to be looked at by itself goes back by `asked.turn.each`, and comes through `ask`."""

    def close(self) -> None:
        """The service is gone, or is answered in another way from now on."""
