"""The synchronous client."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from urllib.parse import quote

import httpx

from modelyard.client import calls
from modelyard.client.backing_up import Backup, BackupFile
from modelyard.client.calls import Call, Document
from modelyard.client.connection import Connection
from modelyard.client.documents import Prediction, ServiceInfo, Upload, Version
from modelyard.client.errors import RemoteError, not_reachable, raise_for
from modelyard.client.files import upload_params, upload_parts
from modelyard.client.later import LaterPrediction, later_headers
from modelyard.client.predicting import infer_request, metadata_url, read_prediction
from modelyard.domain.errors.inference import NotReady

T = TypeVar("T")
OnCheck = Callable[[Mapping[str, Any]], None]
"""Is called with every check of an audit as it finishes."""
POLL_S: Final = 0.15
DEPLOY_TIMEOUT_S: Final = 120.0
AUDIT_TIMEOUT_S: Final = 300.0
BACKUP_TIMEOUT: Final = httpx.Timeout(60.0, read=600.0)
"""The records are copied before the first byte comes."""


class Client:
    """A platform, asked synchronously. Usable as a context manager; safe to share between threads.

    Without arguments it finds the platform by MODELYARD_URL and MODELYARD_KEY, else on this machine; `connection` says
    all of it instead, and nothing is then taken from the environment.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        key: str | None = None,
        project: str | None = None,
        ca: str | None = None,
        connection: Connection | None = None,
    ) -> None:
        self.connection = connection or Connection.find(url=url, key=key, project=project, ca=ca)
        self._http = httpx.Client(
            headers=self.connection.headers,
            verify=self.connection.verify,
            timeout=self.connection.timeout_s,
            trust_env=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self.connection.url!r})"

    def close(self) -> None:
        """Close the connections. Idempotent."""
        self._http.close()

    def send(self, call: Call[T]) -> T:
        """Carry out one call.

        Raises:
            RemoteError: the platform refused.
            NotReachable: it does not answer.
        """
        response = self.request(
            call.method,
            f"{self.connection.url}/api/v1{call.path}",
            params=call.params,
            json=call.json,
            headers=call.headers,
        )
        return call.read(response.json() if response.content else None)

    def request(self, method: str, url: str, **options: Any) -> httpx.Response:  # noqa: ANN401  (httpx's own options)
        """One HTTP request to the platform; raises as `send` does."""
        try:
            response = self._http.request(method, url, **options)
        except httpx.TransportError as error:
            raise not_reachable(self.connection, error) from error
        raise_for(response)
        return response

    # The library

    def upload(  # noqa: PLR0913  (each is something that people give)
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
        """Upload a path, several paths or a fitted estimator, and wait for the audit's verdict.

        `source` says where the model comes from, in plain JSON values; it is kept with the version.
        `on_check` is called with every check as it finishes. A refused upload raises `RemoteError`.
        """
        params = upload_params(alias=alias, project=self.connection.project, source=source)
        url = f"{self.connection.url}/api/v1/models/{name}/versions"
        with upload_parts(
            model, labels=Path(labels) if labels else None, config=Path(config) if config else None
        ) as parts:
            headers = {"prefer": "respond-async"}
            response = self.request("POST", url, params=params, files=parts, headers=headers)
        return self._decided(Upload.read(response.json()), on_check)

    def _decided(self, upload: Upload, on_check: OnCheck | None) -> Version:
        end, told = time.monotonic() + AUDIT_TIMEOUT_S, 0
        while True:
            told = tell_checks(upload, told, on_check)
            if (version := decided_version(upload)) is not None:
                return version
            if time.monotonic() > end:
                raise NotReady(f"the audit of upload {upload.id} is not finished after {AUDIT_TIMEOUT_S:g} s")
            time.sleep(POLL_S)
            upload = self.send(calls.upload_state(upload.id))

    def models(self, search: str | None = None, **filters: object) -> list[Document]:
        """Models of the library; filters are task, format, library, tag, sort, limit, cursor."""
        return self.send(calls.listing("models", q=search, project=self.connection.project, **filters))

    def versions(self, name: str) -> list[Document]:
        """All versions of a model, newest first."""
        return self.send(calls.listing(f"models/{name}/versions", project=self.connection.project))

    def version(self, name: str, version: str) -> Version:
        """One version."""
        return self.send(calls.version(name, version, project=self.connection.project))

    def file(self, version: Version, name: str, *, block_bytes: int = 1 << 20) -> Iterator[bytes]:
        """The bytes of one file of a version as it was uploaded, block by block."""
        url = f"{self.connection.url}/api/v1/models/{version.name}/versions/{version.version}/files/{quote(name)}"
        params = {} if self.connection.project is None else {"project": self.connection.project}
        try:
            with self._http.stream("GET", url, params=params) as answer:
                if not answer.is_success:
                    answer.read()
                raise_for(answer)
                yield from answer.iter_bytes(block_bytes)
        except httpx.TransportError as error:
            raise not_reachable(self.connection, error) from error

    def approve(self, name: str, version: str) -> Version:
        """Approve a version that needs review."""
        return self.send(calls.decide(name, version, "approve", project=self.connection.project))

    def reject(self, name: str, version: str, *, reason: str) -> Version:
        """Reject a version."""
        return self.send(calls.decide(name, version, "reject", reason=reason, project=self.connection.project))

    def set_alias(self, name: str, alias: str, version: str) -> Document:
        """Point an alias, such as `champion`, at a version."""
        return self.send(calls.set_alias(name, alias, version, project=self.connection.project))

    # Services

    def deploy(self, model: str, *, service: str | None = None, wait: bool = True, **options: object) -> "Service":
        """Create or change a service. `model` is NAME, NAME:VERSION or NAME@ALIAS.

        Options are replicas, isolation, limits, batching, rollout, target, why, retry as in the API. With `wait`
        it returns when the new revision answers, a canary with its first share, or raises with the reason why not.
        """
        info = self.send(calls.deploy(deployment(model, service, project=self.connection.project, **options)))
        return Service(self, self.wait(info) if wait else info)

    def wait(self, info: ServiceInfo, *, timeout_s: float = DEPLOY_TIMEOUT_S, goal: bool = True) -> ServiceInfo:
        """Wait until the service serves what was asked; with `goal` false, until it stands still as it is."""
        end = time.monotonic() + timeout_s
        while not info.is_settled:
            if time.monotonic() > end:
                raise NotReady(f"{info.name} is still {info.phase} after {timeout_s:g} s: {info.reason}")
            time.sleep(POLL_S)
            info = self.send(calls.service(info.name, project=info.project))
        return require_serving(info) if goal else info

    def service(self, name: str) -> "Service":
        """A deployed service."""
        return Service(self, self.send(calls.service(name, project=self.connection.project)))

    def services(self) -> list[ServiceInfo]:
        """All services that the key may see."""
        return self.send(calls.services(project=self.connection.project))

    def undeploy(self, name: str) -> None:
        """Take a service away."""
        self.send(calls.remove("services", name, project=self.connection.project))

    def plan_manifests(self, documents: Sequence[Mapping[str, Any]], *, retry: bool = False) -> Document:
        """What applying these manifests would do now: one plan value, with its fingerprint."""
        return self.send(calls.manifests("plan", documents, retry=retry))

    def apply_manifests(
        self, documents: Sequence[Mapping[str, Any]], *, retry: bool = False, fingerprint: str | None = None
    ) -> Document:
        """Apply manifests, all or none; with `fingerprint`, only the plan that has it."""
        return self.send(calls.manifests("apply", documents, retry=retry, fingerprint=fingerprint))

    def export_manifests(self) -> list[Document]:
        """Manifests of all services, as `apply_manifests` reads them."""
        return self.send(calls.listing("manifests", project=self.connection.project))

    def rollout(self, name: str) -> Document:
        """What is on its way to a service's traffic, how far it is, and what was rejected."""
        return self.send(calls.read("services", name, "rollout", project=self.connection.project))

    def promote(self, name: str, *, to: str = "end", why: str = "") -> ServiceInfo:
        """Give a canary all of the traffic, or with `to="next"` its next share."""
        return self.send(calls.move(name, "promote", {"to": to, "why": why}, project=self.connection.project))

    def abort(self, name: str, *, why: str = "") -> ServiceInfo:
        """Give up what is on its way; what was live answers everything again."""
        return self.send(calls.move(name, "abort", {"why": why}, project=self.connection.project))

    def rollback(self, name: str, *, revision: int | None = None, why: str = "") -> ServiceInfo:
        """Back to an earlier revision, or the last that was good."""
        return self.send(calls.roll_back(name, revision, why=why, project=self.connection.project))

    # Keeping

    def backup(self, path: str | Path) -> Backup:
        """Write the whole platform into the new file `path`, while it works; needs a key with `admin`.

        Raises:
            Conflict: the file is there already.
            BackupDamaged: the platform gave the backup up, or the line broke; nothing is left of it then.
        """
        url = f"{self.connection.url}/api/v1/backups"
        try:
            with BackupFile(Path(path)) as file, self._http.stream("POST", url, timeout=BACKUP_TIMEOUT) as answer:
                if not answer.is_success:
                    answer.read()
                raise_for(answer)
                for block in answer.iter_raw():
                    file.write(block)
                return file.finish(answer.headers["x-backup"])
        except httpx.TransportError as error:
            raise not_reachable(self.connection, error) from error


class Service:
    """A deployed service, asked synchronously."""

    def __init__(self, client: Client, info: ServiceInfo) -> None:
        self._client = client
        self.info = info

    def __repr__(self) -> str:
        return f"Service({self.info.name!r}, version={self.info.version!r}, phase={self.info.phase!r})"

    def metadata(self, *, version: str | None = None) -> dict[str, Any]:
        """The model's V2 metadata: inputs and outputs with datatypes and shapes."""
        document: dict[str, Any] = self._client.request("GET", metadata_url(self.info, version)).json()
        return document

    def ask(self, data: object, *, version: str | None = None) -> Prediction:
        """Answers for a DataFrame, an array, rows or records, as arrays with who answered."""
        request = infer_request(self.info, self.metadata(version=version), data, version=version)
        response = self._client.request("POST", request.url, content=request.body, headers=request.headers)
        return read_prediction(response, self.info)

    def ask_later(
        self,
        data: object,
        *,
        version: str | None = None,
        webhook: str | None = None,
        idempotency_key: str | None = None,
    ) -> LaterPrediction:
        """Ask without waiting: it is on the server's disk when this returns, and is answered whoever dies meanwhile.

        `webhook` is told the answer, where webhooks are switched on. The same `idempotency_key` is the same request.
        """
        request = infer_request(self.info, self.metadata(version=version), data, version=version)
        headers = later_headers(request, webhook=webhook, idempotency_key=idempotency_key)
        response = self._client.request("POST", request.url, content=request.body, headers=headers)
        return self.later(LaterPrediction.id_in(response))

    def later(self, request_id: str) -> LaterPrediction:
        """A request that was asked before, by its id."""
        return LaterPrediction(self._client, self.info, request_id)

    def predict(self, data: object, *, version: str | None = None) -> Any:  # noqa: ANN401  (a DataFrame, without its import)
        """Answers as a DataFrame: one row for each row asked, labels first."""
        frame = self.ask(data, version=version).frame()
        index = getattr(data, "index", None)
        return frame.set_index(index) if index is not None and hasattr(data, "columns") else frame


def tell_checks(upload: Upload, told: int, on_check: OnCheck | None) -> int:
    """Hand over the checks that were not told yet; how many have been told then."""
    for check in upload.checks[told:]:
        if on_check is not None:
            on_check(check)
    return len(upload.checks)


def decided_version(upload: Upload) -> Version | None:
    """The version that came of an upload; None while it is undecided, `RemoteError` when it was refused."""
    if upload.problem is not None and upload.version is None:
        raise RemoteError(int(upload.problem.get("status", 422)), upload.problem)
    return upload.version


def deployment(model: str, service: str | None, *, project: str | None, **options: object) -> dict[str, object]:
    """The body that creates a service for NAME, NAME:VERSION or NAME@ALIAS."""
    name, mark, rest = model.partition("@") if "@" in model else model.partition(":")
    which = {"alias" if mark == "@" else "version": rest} if rest else {}
    return {"name": service or name, "model": name, "project": project, **which, **options}


def require_serving(info: ServiceInfo) -> ServiceInfo:
    """`info` when it serves what was asked, else the reason why it does not."""
    problem = info.document.get("problem")
    if info.phase in {"serving", "canary"} and not problem:
        return info
    raise RemoteError(
        409, {"title": f"{info.name} is {info.phase}", "detail": problem or info.reason, "code": "not_serving"}
    )
