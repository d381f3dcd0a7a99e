"""What commands share that make a version of a model by a durable job: what they name, wait for and end with."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from modelyard.cli.jobs import print_accepted, tell
from modelyard.cli.output import print_json, say
from modelyard.client import Client
from modelyard.client.working import follow, give_file, require_success, settled, submit
from modelyard.domain.errors.platform import InvalidRequest

Job = dict[str, Any]


def split_model(text: str, *, command: str) -> tuple[str, str]:
    """NAME and, where it is given, VERSION of NAME[:VERSION].

    Raises:
        InvalidRequest: it names no model, or an alias.
    """
    name, _, version = text.partition(":")
    if not name or "@" in text:
        raise InvalidRequest("name a model, or one of its versions", hint=f"modelyard {command} digits:1 …")
    return name, version


def submit_for(
    client: Client, kind: str, name: str, version: str, given: Mapping[str, Any], parameters: Mapping[str, Any]
) -> Job:
    """Submit a job of this kind for a version, which becomes the parent, with the files `given` by input.

    Parameters that are None are left out.
    """
    source = {"model": name, **({"version": version} if version else {})}
    parent = f"{name}:{version}" if version else name
    kept = {key: value for key, value in {**parameters, "parent": parent}.items() if value is not None}
    return submit(client, kind, kept, {"model": source, **given})


def finished(client: Client, job: Job) -> Job:
    """The job, once it succeeded and the intake has decided about what it offers."""
    return settled(client, require_success(follow(client, job["id"], on_progress=tell)))


def make_version(  # noqa: PLR0913  (what such a command is made of)
    client: Client,
    kind: str,
    model: str,
    sample: Path,
    parameters: Mapping[str, Any],
    *,
    wait: bool,
    as_json: bool,
    show: Callable[[Job], None],
    more: Mapping[str, Path | None] | None = None,
) -> int:
    """Submit, wait if asked to, and print the outcome with `show` and what became of each candidate; the exit code."""
    name, version = split_model(model, command=kind)
    files = {"sample": sample, **(more or {})}
    given = {place: give_file(client, path) for place, path in files.items() if path is not None}
    job = submit_for(client, kind, name, version, given, parameters)
    return conclude(client, job, wait=wait, as_json=as_json, show=show)


def conclude(client: Client, job: Job, *, wait: bool, as_json: bool, show: Callable[[Job], None]) -> int:
    """Wait for the job if asked to, print its outcome with `show` and what became of each candidate; the exit code."""
    if not wait:
        print_accepted(job, as_json=as_json)
        return 0
    done = finished(client, job)
    if as_json:
        print_json(done)
    else:
        show(done["result"])
        for each in done["candidates"]:
            what = f"{each['name']}:{each.get('version', '')}  {each.get('verdict', '')}"
            say(what if each["state"] == "version" else f"the intake refused it: {each.get('reason')}")
    return 0 if all(each["state"] == "version" for each in done["candidates"]) else 1
