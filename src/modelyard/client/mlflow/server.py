"""A running MLflow server, read over its REST API 2.0 (registered models, versions, the artifact proxy)."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote as url_quote
from urllib.parse import urlsplit

import httpx

from modelyard.client.mlflow.registry import RegisteredVersion, in_order, require_file_name
from modelyard.domain.errors.base import quote
from modelyard.domain.errors.platform import InvalidRequest, NotFound, Unavailable

_API: Final = "/api/2.0/mlflow"
_ARTIFACTS: Final = "/api/2.0/mlflow-artifacts/artifacts"
_PAGE: Final = 200
_PAGES: Final = 500
_TIMEOUT_S: Final = 30.0


class MlflowServer:
    """A source at `http(s)://host:port[/prefix]`. Nothing but that address is ever asked; redirects are not followed.

    Artifacts come through the server's own proxy (`mlflow server` keeps them so by default); what lies elsewhere
    (S3, a path on the server's disk) is refused with that reason.
    """

    def __init__(self, uri: str, *, token: str | None = None) -> None:
        if urlsplit(uri).scheme not in {"http", "https"}:
            raise InvalidRequest(f"{quote(uri)} is no address of a server", hint="such as http://127.0.0.1:5000")
        self.uri = uri.rstrip("/")
        headers = {"authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.Client(timeout=_TIMEOUT_S, headers=headers, trust_env=False)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def versions(self) -> list[RegisteredVersion]:
        """All versions of all registered models."""
        aliases: dict[tuple[str, str], list[str]] = {}
        for model in self._pages("/registered-models/search", "registered_models"):
            for alias in model.get("aliases", []):
                key = (str(model["name"]), str(alias["version"]))
                aliases.setdefault(key, []).append(str(alias["alias"]))
        return in_order(
            [self._version(raw, aliases) for raw in self._pages("/model-versions/search", "model_versions")]
        )

    def _version(self, raw: Mapping[str, Any], aliases: Mapping[tuple[str, str], list[str]]) -> RegisteredVersion:
        name, number = str(raw["name"]), str(raw["version"])
        found = self._get(f"{_API}/model-versions/get-download-uri", name=name, version=number)
        return RegisteredVersion(
            name=name,
            version=int(number),
            location=str(found.get("artifact_uri", "")),
            status=str(raw.get("status", "READY")),
            run_id=str(raw.get("run_id", "")),
            aliases=tuple(aliases.get((name, number), ())),
            tags={str(tag["key"]): str(tag.get("value", "")) for tag in raw.get("tags", [])},
            description=str(raw.get("description", "")),
        )

    def files(self, version: RegisteredVersion) -> dict[str, int]:
        """Files right in the model's directory."""
        listed = self._get(_ARTIFACTS, path=_proxied(version)).get("files", [])
        return {
            str(one["path"]).rpartition("/")[2]: int(one.get("file_size") or 0)
            for one in listed
            if not one.get("is_dir")
        }

    def fetch(self, version: RegisteredVersion, name: str, into: Path, *, limit: int) -> Path:
        """Stream one file to disk."""
        target = into / require_file_name(name)
        path = url_quote(f"{_proxied(version)}/{name}")
        try:
            with self._http.stream("GET", f"{self.uri}{_ARTIFACTS}/{path}") as response, target.open("xb") as file:
                if not response.is_success:
                    raise NotFound(f"the server gives {response.status_code} for {quote(name)}")
                for chunk in response.iter_bytes():
                    file.write(chunk)
                    if file.tell() > limit:
                        raise NotFound(f"{quote(name)} is longer than {limit} bytes")
        except httpx.TransportError as error:
            raise self._away() from error
        return target

    def _pages(self, path: str, key: str) -> Iterator[Mapping[str, Any]]:
        token = ""
        for _ in range(_PAGES):
            document = self._get(_API + path, max_results=str(_PAGE), page_token=token)
            yield from document.get(key, [])
            token = str(document.get("next_page_token", ""))
            if not token:
                return
        raise Unavailable("the registry has more pages than are read")

    def _get(self, route: str, /, **params: str) -> Mapping[str, Any]:
        wanted = {key: value for key, value in params.items() if value}
        try:
            response = self._http.get(self.uri + route, params=wanted)
            document = response.json() if response.is_success else None
        except (httpx.TransportError, ValueError) as error:
            raise self._away() from error
        if not isinstance(document, dict):
            raise NotFound(f"{self.uri}{route} answers {response.status_code}", hint="is this an MLflow server?")
        return document

    def _away(self) -> Unavailable:
        return Unavailable(f"{self.uri} does not answer as an MLflow server", hint="check the address; is it running?")


def _proxied(version: RegisteredVersion) -> str:
    """The path below the artifact proxy."""
    parts = urlsplit(version.location)
    path = parts.path.strip("/")
    if parts.scheme != "mlflow-artifacts" or not path or ".." in path.split("/"):
        raise NotFound(
            f"its files lie at {quote(version.location)}, not behind the server",
            hint="copy the model directories here and import the folder",
        )
    return path
