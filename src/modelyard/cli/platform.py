"""Options and shapes that all commands share which talk to a platform."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import click

from modelyard.client import Client
from modelyard.domain.errors.base import quote
from modelyard.domain.errors.platform import InvalidRequest

F = TypeVar("F", bound=Callable[..., Any])


def platform_command(command: F) -> F:
    """Adds `--url`, `--key`, `--project`, `--ca` and hands the command a `Client` as its first argument."""

    @wraps(command)
    def run(*, url: str | None, key: str | None, project: str | None, ca: str | None, **options: object) -> Any:  # noqa: ANN401  (what the command returns)
        with Client(url, key=key, project=project, ca=ca) as client:
            return command(client, **options)

    for option in (
        click.option(
            "--ca", type=click.Path(exists=True), help="PEM file that vouches for the platform's certificate."
        ),
        click.option("--project", help="Project; without it the key's own."),
        click.option("--key", help="API key; better in MODELYARD_KEY than on the command line."),
        click.option("--url", help="Address of the platform's control listener.  [default: http://127.0.0.1:8700]"),
    ):
        run = option(run)
    return run  # type: ignore[return-value]  # wraps keeps the signature that click reads


def split_reference(text: str) -> tuple[str, str]:
    """NAME and VERSION of NAME:VERSION, or `InvalidRequest`."""
    name, _, version = text.partition(":")
    if not name or not version:
        raise InvalidRequest(
            f"{quote(text)} does not name a version", hint=f"write NAME:VERSION, such as {name or 'iris'}:1"
        )
    return name, version
