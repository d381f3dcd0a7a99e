"""Every call of the control API as a value: what to send and how to read the answer.

Written once; `sync` and `aio` only carry them out.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from modelyard.client.documents import ServiceInfo, Upload, Version

T = TypeVar("T")
Document = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[T]):
    """One request. `path` is below `/api/v1`; `read` turns the JSON answer (None when empty) into the result."""

    method: str
    path: str
    read: Callable[[Any], T]
    params: Mapping[str, Any] = field(default_factory=dict)
    json: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


def _same(document: Any) -> Any:  # noqa: ANN401  (the document as it came)
    return document


def _items(document: Any) -> list[Document]:  # noqa: ANN401
    return list(document["items"])


def _path(*parts: str) -> str:
    return "/" + "/".join(quote(part, safe="") for part in parts)


def listing(resource: str, **filters: object) -> Call[list[Document]]:
    """One page of a collection; filters that are None are left out."""
    return Call(method="GET", path=f"/{resource}", read=_items, params=_given(filters))


def read(*parts: str, **params: object) -> Call[Document]:
    """One resource."""
    return Call(method="GET", path=_path(*parts), read=_same, params=_given(params))


def remove(*parts: str, **params: object) -> Call[None]:
    """Delete one resource."""
    return Call(method="DELETE", path=_path(*parts), read=lambda _: None, params=_given(params))


def act(*parts: str, body: Mapping[str, object] | None = None, **params: object) -> Call[Document]:
    """Do something to a resource, or create one."""
    return Call(method="POST", path=_path(*parts), read=_same, params=_given(params), json=dict(body or {}))


def change(*parts: str, body: Mapping[str, object], method: str = "PATCH", **params: object) -> Call[Document]:
    """Change a resource."""
    return Call(method=method, path=_path(*parts), read=_same, params=_given(params), json=dict(body))


def version(name: str, number: str, *, project: str | None) -> Call[Version]:
    """One version."""
    path = _path("models", name, "versions", number)
    return Call(method="GET", path=path, read=Version.read, params=_given({"project": project}))


def decide(name: str, number: str, action: str, *, reason: str = "", project: str | None = None) -> Call[Version]:
    """approve, reject, archive or restore a version."""
    path = _path("models", name, "versions", number, action)
    body = {"reason": reason} if reason else {}
    return Call(method="POST", path=path, read=Version.read, params=_given({"project": project}), json=body)


def set_alias(name: str, alias: str, number: str, *, project: str | None) -> Call[Document]:
    """Point an alias at a version."""
    path = _path("models", name, "aliases", alias)
    return Call(method="PUT", path=path, read=_same, params=_given({"project": project}), json={"version": number})


def upload_state(upload: str) -> Call[Upload]:
    """An upload's checks so far."""
    return Call(method="GET", path=_path("uploads", upload), read=Upload.read)


def deploy(body: Mapping[str, object]) -> Call[ServiceInfo]:
    """Create or change a service."""
    return Call(method="POST", path="/services", read=ServiceInfo.read, json=_given(body))


def manifests(
    action: str, documents: Sequence[Mapping[str, Any]], *, retry: bool, fingerprint: str | None = None
) -> Call[Document]:
    """Plan or apply manifests."""
    body = _given({"documents": list(documents), "retry": retry, "fingerprint": fingerprint})
    return Call(method="POST", path=_path("manifests", action), read=_same, json=body)


def move(name: str, action: str, body: Mapping[str, object], *, project: str | None) -> Call[ServiceInfo]:
    """Promote or abort what is on its way to a service's traffic."""
    path = _path("services", name, "rollout", action)
    return Call(method="POST", path=path, read=ServiceInfo.read, params=_given({"project": project}), json=dict(body))


def roll_back(name: str, revision: int | None, *, why: str, project: str | None) -> Call[ServiceInfo]:
    """Back to an earlier revision, or the last that was good."""
    body, path = _given({"revision": revision, "why": why}), _path("services", name, "rollback")
    return Call(method="POST", path=path, read=ServiceInfo.read, params=_given({"project": project}), json=body)


def service(name: str, *, project: str | None) -> Call[ServiceInfo]:
    """One service."""
    return Call(method="GET", path=_path("services", name), read=ServiceInfo.read, params=_given({"project": project}))


def services(*, project: str | None) -> Call[list[ServiceInfo]]:
    """All services that the key may see."""

    def read_all(document: Mapping[str, Sequence[Document]]) -> list[ServiceInfo]:
        return [ServiceInfo.read(item) for item in document["items"]]

    return Call(method="GET", path="/services", read=read_all, params=_given({"project": project}))


def _given(values: Mapping[str, object]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
