"""The asynchronous twin of the client: the same calls, awaited."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from modelyard.client import calls
from modelyard.client.calls import Call, Document
from modelyard.client.connection import Connection
from modelyard.client.documents import Prediction, ServiceInfo, Upload, Version
from modelyard.client.errors import not_reachable, raise_for
from modelyard.client.files import upload_params, upload_parts
from modelyard.client.later import AsyncLaterPrediction, later_headers
from modelyard.client.predicting import infer_request, metadata_url, read_prediction
from modelyard.client.sync import (
    AUDIT_TIMEOUT_S,
    DEPLOY_TIMEOUT_S,
    POLL_S,
    OnCheck,
    decided_version,
    deployment,
    require_serving,
    tell_checks,
)
from modelyard.domain.errors.inference import NotReady

T = TypeVar("T")


class AsyncClient:
    """A platform, asked asynchronously. Usable as an async context manager."""

    def __init__(
        self, url: str | None = None, *, key: str | None = None, project: str | None = None, ca: str | None = None
    ) -> None:
        self.connection = Connection.find(url=url, key=key, project=project, ca=ca)
        self._http = httpx.AsyncClient(
            headers=self.connection.headers,
            verify=self.connection.verify,
            timeout=self.connection.timeout_s,
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"AsyncClient({self.connection.url!r})"

    async def close(self) -> None:
        """Close the connections. Idempotent."""
        await self._http.aclose()

    async def send(self, call: Call[T]) -> T:
        """Carry out one call; raises as `Client.send` does."""
        response = await self.request(
            call.method,
            f"{self.connection.url}/api/v1{call.path}",
            params=call.params,
            json=call.json,
            headers=call.headers,
        )
        return call.read(response.json() if response.content else None)

    async def request(self, method: str, url: str, **options: Any) -> httpx.Response:  # noqa: ANN401  (httpx's options)
        """One HTTP request to the platform."""
        try:
            response = await self._http.request(method, url, **options)
        except httpx.TransportError as error:
            raise not_reachable(self.connection, error) from error
        raise_for(response)
        return response

    async def upload(  # noqa: PLR0913  (each is something that people give)
        self,
        model: object,
        *,
        name: str,
        labels: str | Path | None = None,
        config: str | Path | None = None,
        alias: str | None = None,
        source: Mapping[str, object] | None = None,
        on_check: OnCheck | None = None,
    ) -> Version:
        """Upload a path or a fitted estimator and wait for the audit's verdict."""
        params = upload_params(alias=alias, project=self.connection.project, source=source)
        url = f"{self.connection.url}/api/v1/models/{name}/versions"
        with upload_parts(
            model, labels=Path(labels) if labels else None, config=Path(config) if config else None
        ) as parts:
            headers = {"prefer": "respond-async"}
            response = await self.request("POST", url, params=params, files=parts, headers=headers)
        return await self._decided(Upload.read(response.json()), on_check)

    async def _decided(self, upload: Upload, on_check: OnCheck | None) -> Version:
        told = 0
        async with asyncio.timeout(AUDIT_TIMEOUT_S):
            while True:
                told = tell_checks(upload, told, on_check)
                if (version := decided_version(upload)) is not None:
                    return version
                await asyncio.sleep(POLL_S)
                upload = await self.send(calls.upload_state(upload.id))

    async def models(self, search: str | None = None, **filters: object) -> list[Document]:
        """Models of the library."""
        return await self.send(calls.listing("models", q=search, project=self.connection.project, **filters))

    async def deploy(
        self, model: str, *, service: str | None = None, wait: bool = True, **options: object
    ) -> "AsyncService":
        """Create or change a service; `model` is NAME, NAME:VERSION or NAME@ALIAS."""
        info = await self.send(calls.deploy(deployment(model, service, project=self.connection.project, **options)))
        return AsyncService(self, await self.wait(info) if wait else info)

    async def wait(self, info: ServiceInfo, *, timeout_s: float = DEPLOY_TIMEOUT_S, goal: bool = True) -> ServiceInfo:
        """Wait until the service serves what was asked; with `goal` false, until it stands still as it is."""
        end = asyncio.get_running_loop().time() + timeout_s
        while not info.is_settled:
            if asyncio.get_running_loop().time() > end:
                raise NotReady(f"{info.name} is still {info.phase} after {timeout_s:g} s: {info.reason}")
            await asyncio.sleep(POLL_S)
            info = await self.send(calls.service(info.name, project=info.project))
        return require_serving(info) if goal else info

    async def service(self, name: str) -> "AsyncService":
        """A deployed service."""
        return AsyncService(self, await self.send(calls.service(name, project=self.connection.project)))

    async def services(self) -> list[ServiceInfo]:
        """All services that the key may see."""
        return await self.send(calls.services(project=self.connection.project))

    async def undeploy(self, name: str) -> None:
        """Take a service away."""
        await self.send(calls.remove("services", name, project=self.connection.project))

    async def plan_manifests(self, documents: Sequence[Mapping[str, Any]], *, retry: bool = False) -> Document:
        """What applying these manifests would do now: one plan value, with its fingerprint."""
        return await self.send(calls.manifests("plan", documents, retry=retry))

    async def apply_manifests(
        self, documents: Sequence[Mapping[str, Any]], *, retry: bool = False, fingerprint: str | None = None
    ) -> Document:
        """Apply manifests, all or none; with `fingerprint`, only the plan that has it."""
        return await self.send(calls.manifests("apply", documents, retry=retry, fingerprint=fingerprint))

    async def export_manifests(self) -> list[Document]:
        """Manifests of all services, as `apply_manifests` reads them."""
        return await self.send(calls.listing("manifests", project=self.connection.project))

    async def rollout(self, name: str) -> Document:
        """What is on its way to a service's traffic, how far it is, and what was rejected."""
        return await self.send(calls.read("services", name, "rollout", project=self.connection.project))

    async def promote(self, name: str, *, to: str = "end", why: str = "") -> ServiceInfo:
        """Give a canary all of the traffic, or with `to="next"` its next share."""
        return await self.send(calls.move(name, "promote", {"to": to, "why": why}, project=self.connection.project))

    async def abort(self, name: str, *, why: str = "") -> ServiceInfo:
        """Give up what is on its way; what was live answers everything again."""
        return await self.send(calls.move(name, "abort", {"why": why}, project=self.connection.project))

    async def rollback(self, name: str, *, revision: int | None = None, why: str = "") -> ServiceInfo:
        """Back to an earlier revision, or the last that was good."""
        return await self.send(calls.roll_back(name, revision, why=why, project=self.connection.project))


class AsyncService:
    """A deployed service, asked asynchronously."""

    def __init__(self, client: AsyncClient, info: ServiceInfo) -> None:
        self._client = client
        self.info = info

    def __repr__(self) -> str:
        return f"AsyncService({self.info.name!r}, version={self.info.version!r}, phase={self.info.phase!r})"

    async def ask(self, data: object, *, version: str | None = None) -> Prediction:
        """Answers as arrays, with who answered."""
        metadata = (await self._client.request("GET", metadata_url(self.info, version))).json()
        request = infer_request(self.info, metadata, data, version=version)
        response = await self._client.request("POST", request.url, content=request.body, headers=request.headers)
        return read_prediction(response, self.info)

    async def ask_later(
        self,
        data: object,
        *,
        version: str | None = None,
        webhook: str | None = None,
        idempotency_key: str | None = None,
    ) -> AsyncLaterPrediction:
        """Ask without waiting (`Service.ask_later`)."""
        metadata = (await self._client.request("GET", metadata_url(self.info, version))).json()
        request = infer_request(self.info, metadata, data, version=version)
        headers = later_headers(request, webhook=webhook, idempotency_key=idempotency_key)
        response = await self._client.request("POST", request.url, content=request.body, headers=headers)
        return self.later(AsyncLaterPrediction.id_in(response))

    def later(self, request_id: str) -> AsyncLaterPrediction:
        """A request that was asked before, by its id."""
        return AsyncLaterPrediction(self._client, self.info, request_id)

    async def predict(self, data: object, *, version: str | None = None) -> Any:  # noqa: ANN401  (a DataFrame)
        """Answers as a DataFrame: one row for each row asked, labels first."""
        frame = (await self.ask(data, version=version)).frame()
        index = getattr(data, "index", None)
        return frame.set_index(index) if index is not None and hasattr(data, "columns") else frame
