"""Predictions that nobody waits for: asked with `Prefer: respond-async`, fetched later, from anywhere, by their id."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Final, Protocol

import httpx

from modelyard.client.documents import Prediction, ServiceInfo
from modelyard.client.errors import RemoteError, raise_for
from modelyard.client.predicting import InferRequest, read_prediction
from modelyard.domain.errors.inference import NotReady

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 2.0
_DONE: Final = frozenset({"succeeded", "failed", "cancelled"})


def later_headers(request: InferRequest, *, webhook: str | None, idempotency_key: str | None) -> dict[str, str]:
    """The headers of a request that is to be answered later."""
    more = {"x-webhook-url": webhook, "idempotency-key": idempotency_key}
    return {**request.headers, "prefer": "respond-async", **{name: text for name, text in more.items() if text}}


class Asks(Protocol):
    """A client, as far as it concerns us."""

    def request(self, method: str, url: str) -> httpx.Response:
        """One HTTP request; raises what the platform refuses."""


class AsksAsync(Protocol):
    """The asynchronous one."""

    async def request(self, method: str, url: str) -> httpx.Response:
        """One HTTP request; raises what the platform refuses."""


class _Later:
    """What both twins know of a request."""

    def __init__(self, info: ServiceInfo, request_id: str) -> None:
        self.info = info
        self.id = request_id

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.info.name!r}, id={self.id!r})"

    @classmethod
    def id_in(cls, response: httpx.Response) -> str:
        """The id of what was accepted; RemoteError where the server answered at once because it keeps nothing."""
        if response.status_code != httpx.codes.ACCEPTED:
            raise RemoteError(
                501, {"title": "Not answered later", "detail": "this server answers at once and keeps nothing"}
            )
        return str(response.json()["id"])

    @property
    def _url(self) -> str:
        return str(httpx.URL(self.info.url).join(f"/v2/requests/{self.id}"))

    def _read(self, document: Mapping[str, Any], response: httpx.Response) -> Prediction:
        if document["status"] == "cancelled":
            raise RemoteError(410, {"title": "Cancelled", "detail": "the request was cancelled", "code": "cancelled"})
        raise_for(response)
        return read_prediction(response, self.info)

    def _late(self, document: Mapping[str, Any], timeout_s: float) -> NotReady:
        return NotReady(
            f"request {self.id} is still {document['status']} after {timeout_s:g} s", hint="ask again later, by its id"
        )


class LaterPrediction(_Later):
    """A request that is answered later."""

    def __init__(self, client: Asks, info: ServiceInfo, request_id: str) -> None:
        super().__init__(info, request_id)
        self._client = client

    def status(self) -> dict[str, Any]:
        """What became of it: `status` is queued, running, succeeded, failed or cancelled."""
        document: dict[str, Any] = self._client.request("GET", self._url).json()
        return document

    def result(self, timeout_s: float = 60.0) -> Prediction:
        """The answer, waited for.

        Raises:
            NotReady: there is none within the time; it goes on, and can be asked for again.
            RemoteError: the model refused the request, or it was cancelled.
        """
        end, pause = time.monotonic() + timeout_s, _FIRST_PAUSE_S
        while (document := self.status())["status"] not in _DONE:
            if time.monotonic() > end:
                raise self._late(document, timeout_s)
            time.sleep(pause)
            pause = min(_LONGEST_PAUSE_S, pause * 1.5)
        return self._read(document, self._client.request("GET", f"{self._url}/response"))

    def cancel(self) -> None:
        """End it if it is not answered; let its answer go if it is."""
        self._client.request("DELETE", self._url)


class AsyncLaterPrediction(_Later):
    """The asynchronous twin."""

    def __init__(self, client: AsksAsync, info: ServiceInfo, request_id: str) -> None:
        super().__init__(info, request_id)
        self._client = client

    async def status(self) -> dict[str, Any]:
        """What became of it: `status` is queued, running, succeeded, failed or cancelled."""
        document: dict[str, Any] = (await self._client.request("GET", self._url)).json()
        return document

    async def result(self, timeout_s: float = 60.0) -> Prediction:
        """The answer, waited for; raises as `LaterPrediction.result` does."""
        end, pause = time.monotonic() + timeout_s, _FIRST_PAUSE_S
        while (document := await self.status())["status"] not in _DONE:
            if time.monotonic() > end:
                raise self._late(document, timeout_s)
            await asyncio.sleep(pause)
            pause = min(_LONGEST_PAUSE_S, pause * 1.5)
        return self._read(document, await self._client.request("GET", f"{self._url}/response"))

    async def cancel(self) -> None:
        """End it if it is not answered; let its answer go if it is."""
        await self._client.request("DELETE", self._url)
