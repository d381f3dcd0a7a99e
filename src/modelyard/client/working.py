"""Durable work from a script: give a file, submit a job, wait for it, fetch what came out."""

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from modelyard.client import calls
from modelyard.client.calls import Document
from modelyard.client.errors import RemoteError
from modelyard.client.sync import Client
from modelyard.domain.errors.base import quote as quoted
from modelyard.domain.errors.inference import NotReady
from modelyard.domain.errors.platform import InvalidRequest

FINAL: Final = frozenset({"succeeded", "failed", "cancelled", "dead"})
OnProgress = Callable[[Document], None]
"""Is called with the job whenever it has moved."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 1.0
_BLOCK: Final = 1 << 20


def give_file(client: Client, path: Path) -> dict[str, str]:
    """Send a file to be an input of a job; what `inputs` takes."""
    if not path.is_file():
        raise InvalidRequest(f"there is no file {quoted(path)}", hint="name a file that is there")
    params = {} if client.connection.project is None else {"project": client.connection.project}
    url = f"{client.connection.url}/api/v1/job-files"
    answer = client.request("POST", url, params=params, content=_blocks(path), timeout=600.0)
    return {"file": str(answer.json()["file"]), "name": path.name}


def submit(
    client: Client,
    kind: str,
    parameters: Mapping[str, Any],
    inputs: Mapping[str, Mapping[str, str]],
    *,
    idempotency_key: str | None = None,
    **more: Any,  # noqa: ANN401  (what the API takes beside: priority, not_before, attempts, seed, limit_s)
) -> Document:
    """Submit a job; it is durable when this returns."""
    given = {name: value for name, value in more.items() if value is not None}
    body = {"kind": kind, "parameters": dict(parameters), "inputs": dict(inputs), **given}
    headers = {} if idempotency_key is None else {"idempotency-key": idempotency_key}
    params = {} if client.connection.project is None else {"project": client.connection.project}
    answer = client.request("POST", f"{client.connection.url}/api/v1/jobs", json=body, params=params, headers=headers)
    document: Document = answer.json()
    return document


def follow(
    client: Client, job: str, *, timeout_s: float | None = None, on_progress: OnProgress | None = None
) -> Document:
    """The job, once it is over.

    Raises:
        NotReady: it is not over within the time; it goes on.
    """
    end = None if timeout_s is None else time.monotonic() + timeout_s
    pause, told = _FIRST_PAUSE_S, None
    while True:
        document = client.send(calls.read("jobs", job))
        shown = (document["state"], document["progress"])
        if shown != told and on_progress is not None:
            on_progress(document)
        pause = _FIRST_PAUSE_S if shown != told else min(_LONGEST_PAUSE_S, pause * 1.3)
        told = shown
        if document["state"] in FINAL:
            return document
        if end is not None and time.monotonic() > end:
            raise NotReady(f"job {job} is still {document['state']}", hint=f"modelyard job {job} --follow")
        time.sleep(pause)


def require_success(document: Document) -> Document:
    """The job if it succeeded, else its error.

    Raises:
        RemoteError: it failed or was cancelled.
    """
    if document["state"] == "succeeded":
        return document
    error = document.get("error") or {"title": f"The job is {document['state']}", "detail": document["id"]}
    raise RemoteError(409, {**error, "hint": error.get("hint") or f"modelyard job {document['id']} --log"})


def settled(client: Client, document: Document, *, timeout_s: float = 300.0) -> Document:
    """The job, once the intake has decided about every model that it offered.

    Raises:
        NotReady: it has not within the time.
    """
    end = time.monotonic() + timeout_s
    while any(each["state"] == "waiting" for each in document["candidates"]):
        if time.monotonic() > end:
            raise NotReady(f"what job {document['id']} made is still being checked", hint="look again in a minute")
        time.sleep(_LONGEST_PAUSE_S / 2)
        document = client.send(calls.read("jobs", str(document["id"])))
    return document


def download(client: Client, document: Document, directory: Path) -> list[Path]:
    """The files that came out, below `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    fetched = []
    for file in document["files"]:
        name = str(file["name"])
        url = f"{client.connection.url}/api/v1/jobs/{document['id']}/files/{quote(name)}"
        path = directory / name
        partial = path.with_name(f".{name}.partial")
        partial.write_bytes(client.request("GET", url, timeout=600.0).content)
        partial.replace(path)
        fetched.append(path)
    return fetched


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            yield block
