"""Who may call what: one row a route and verb of HTTP. What has no row is not there.

The gate reads this table before anything else sees the request. A row says which verb of ours the caller's key must
have on something; on what exactly is decided by the capability, with `identity.require`. A test compares the table with
the routes that are mounted and fails when either has one that the other lacks.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from modelyard.domain.access import Verb


class Open(StrEnum):
    """Rows without a verb: for everybody, or for everybody with a key that works."""

    PUBLIC = "public"
    ANY_KEY = "any key"


class Body(StrEnum):
    """What kind of body a route takes: none at all or JSON, or whatever the capability reads itself."""

    JSON = "json"
    STREAM = "stream"


@dataclass(frozen=True, slots=True)
class Rule:
    """What a request needs, and what kind of body it may have."""

    needs: Verb | Open
    body: Body = Body.JSON


_V1: Final = "/api/v1"
_MODEL: Final = f"{_V1}/models/{{model}}"
_VERSION: Final = f"{_MODEL}/versions/{{version}}"
_SERVICE: Final = f"{_V1}/services/{{service}}"
_READ: Final = Rule(Verb.READ)
_DEPLOY: Final = Rule(Verb.DEPLOY)
_APPROVE: Final = Rule(Verb.APPROVE)
_ADMIN: Final = Rule(Verb.ADMIN)
_UPLOAD: Final = Rule(Verb.UPLOAD)
_UPLOAD_STREAM: Final = Rule(Verb.UPLOAD, Body.STREAM)

POLICY: Final[Mapping[tuple[str, str], Rule]] = {
    ("GET", "/healthz"): Rule(Open.PUBLIC),
    ("GET", "/readyz"): Rule(Open.PUBLIC),
    ("GET", "/metrics"): Rule(Verb.METRICS),
    ("GET", "/openapi.json"): Rule(Open.ANY_KEY),
    ("GET", "/docs"): Rule(Open.ANY_KEY),
    ("GET", "/docs/style.css"): Rule(Open.ANY_KEY),
    ("GET", f"{_V1}/events"): _READ,
    ("GET", f"{_V1}/settings"): _ADMIN,
    ("GET", f"{_V1}/plugins"): _READ,
    ("GET", f"{_V1}/backups"): _ADMIN,
    ("POST", f"{_V1}/backups"): _ADMIN,
    # jobs: what a kind needs, and on what, is the capability's to say
    ("GET", f"{_V1}/jobs"): Rule(Open.ANY_KEY),
    ("POST", f"{_V1}/jobs"): Rule(Open.ANY_KEY),
    ("GET", f"{_V1}/jobs/{{job}}"): Rule(Open.ANY_KEY),
    ("POST", f"{_V1}/jobs/{{job}}/cancel"): Rule(Open.ANY_KEY),
    ("POST", f"{_V1}/jobs/{{job}}/retry"): Rule(Open.ANY_KEY),
    ("GET", f"{_V1}/jobs/{{job}}/log"): Rule(Open.ANY_KEY),
    ("GET", f"{_V1}/jobs/{{job}}/files/{{file}}"): Rule(Open.ANY_KEY),
    ("GET", f"{_V1}/job-kinds"): Rule(Open.ANY_KEY),
    ("POST", f"{_V1}/job-files"): Rule(Open.ANY_KEY, Body.STREAM),
    # identity
    ("GET", f"{_V1}/me"): Rule(Open.ANY_KEY),
    ("GET", f"{_V1}/keys"): _ADMIN,
    ("POST", f"{_V1}/keys"): _ADMIN,
    ("POST", f"{_V1}/keys/bootstrap"): Rule(Open.PUBLIC),
    ("DELETE", f"{_V1}/keys/{{key}}"): _ADMIN,
    ("GET", f"{_V1}/projects"): Rule(Open.ANY_KEY),
    ("POST", f"{_V1}/projects"): _ADMIN,
    ("GET", f"{_V1}/projects/{{project}}"): Rule(Open.ANY_KEY),
    ("PATCH", f"{_V1}/projects/{{project}}"): _ADMIN,
    ("GET", f"{_V1}/secrets"): _DEPLOY,
    ("PUT", f"{_V1}/secrets/{{secret}}"): _DEPLOY,
    ("DELETE", f"{_V1}/secrets/{{secret}}"): _DEPLOY,
    # history
    ("GET", f"{_V1}/history"): _READ,
    ("GET", f"{_V1}/history/verify"): _ADMIN,
    ("DELETE", f"{_V1}/history/{{entry}}/payload"): _ADMIN,
    # the library
    ("GET", f"{_V1}/models"): _READ,
    ("GET", _MODEL): _READ,
    ("PATCH", _MODEL): _DEPLOY,
    ("GET", f"{_MODEL}/versions"): _READ,
    ("GET", _VERSION): _READ,
    ("DELETE", _VERSION): _DEPLOY,
    ("POST", f"{_VERSION}/approve"): _APPROVE,
    ("POST", f"{_VERSION}/reject"): _APPROVE,
    ("POST", f"{_VERSION}/archive"): _DEPLOY,
    ("POST", f"{_VERSION}/restore"): _DEPLOY,
    ("GET", f"{_VERSION}/files/{{file}}"): _READ,
    ("PUT", f"{_MODEL}/aliases/{{alias}}"): _DEPLOY,
    ("DELETE", f"{_MODEL}/aliases/{{alias}}"): _DEPLOY,
    ("GET", f"{_V1}/reviews"): _READ,
    # intake
    ("POST", f"{_MODEL}/versions"): _UPLOAD_STREAM,
    ("POST", f"{_V1}/uploads"): _UPLOAD,
    ("GET", f"{_V1}/uploads/{{upload}}"): _UPLOAD,
    ("HEAD", f"{_V1}/uploads/{{upload}}"): _UPLOAD,
    ("PATCH", f"{_V1}/uploads/{{upload}}"): _UPLOAD_STREAM,
    ("POST", f"{_V1}/uploads/{{upload}}/finish"): _UPLOAD,
    ("DELETE", f"{_V1}/uploads/{{upload}}"): _UPLOAD,
    # deployments, traffic, nodes
    ("GET", f"{_V1}/services"): _READ,
    ("POST", f"{_V1}/services"): _DEPLOY,
    ("GET", _SERVICE): _READ,
    ("PUT", _SERVICE): _DEPLOY,
    ("DELETE", _SERVICE): _DEPLOY,
    ("GET", f"{_SERVICE}/account"): _READ,
    ("GET", f"{_SERVICE}/revisions"): _READ,
    ("GET", f"{_SERVICE}/scaling"): _READ,
    ("POST", f"{_SERVICE}/rollback"): _DEPLOY,
    ("GET", f"{_SERVICE}/rollout"): _READ,
    ("GET", f"{_SERVICE}/rollout/evidence"): _READ,
    ("GET", f"{_SERVICE}/shadow"): _READ,
    ("POST", f"{_SERVICE}/rollout/promote"): _DEPLOY,
    ("POST", f"{_SERVICE}/rollout/abort"): _DEPLOY,
    ("GET", f"{_V1}/manifests"): _READ,
    ("POST", f"{_V1}/manifests/plan"): _DEPLOY,
    ("POST", f"{_V1}/manifests/apply"): _DEPLOY,
    ("GET", f"{_V1}/nodes"): _READ,
    ("GET", f"{_V1}/nodes/{{node}}"): _READ,
    ("POST", f"{_V1}/nodes/{{node}}/cordon"): _ADMIN,
    ("POST", f"{_V1}/nodes/{{node}}/drain"): _ADMIN,
    ("POST", f"{_V1}/nodes/{{node}}/uncordon"): _ADMIN,
}


@dataclass(frozen=True, slots=True)
class Match:
    """The row that a request falls under, or the methods that the path has instead."""

    rule: Rule | None
    methods: tuple[str, ...]


class PolicyTable:
    """Rows in a form that can be asked quickly."""

    def __init__(self, rows: Mapping[tuple[str, str], Rule]) -> None:
        paths: dict[str, dict[str, Rule]] = {}
        for (method, template), rule in rows.items():
            paths.setdefault(template, {})[method] = rule
        ordered = sorted(paths, key=lambda template: (template.count("{"), template))
        self._fixed = {template: paths[template] for template in ordered if "{" not in template}
        self._patterns = [(_pattern(template), paths[template]) for template in ordered if "{" in template]

    def match(self, method: str, path: str) -> Match:
        """The row for this request; a fixed path goes before one with a variable part, few variables before many."""
        rules = self._fixed.get(path)
        if rules is None:
            rules = next((found for pattern, found in self._patterns if pattern.fullmatch(path)), {})
        return Match(rules.get(method), tuple(sorted(rules)))


def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(template)))
