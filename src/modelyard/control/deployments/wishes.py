"""From a wish to a spec: what is named is resolved and checked, what is not named stays as it is or has its default.

A new field of a service's spec is added in four places: `ServiceSpec` (or a value of its own in `domain`), `Wish` and
`spec_of` here, the body in `schemas`, and the manifest in `manifest_fields`, which maps it both ways. What a place
cannot do with it is refused in `targets`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from modelyard.control.catalog import Resolved, VersionRecord, resolve
from modelyard.control.deployments.answerers import (
    Answerer,
    graph_answerer,
    is_relayed,
    require_same_dialect,
    upstream_answerer,
)
from modelyard.control.deployments.targets import Target, require_abilities, require_target
from modelyard.control.identity import require_secrets
from modelyard.control.records import Transaction
from modelyard.domain.contract import Isolation
from modelyard.domain.errors.base import quote
from modelyard.domain.errors.platform import Conflict, InvalidRequest, NotFound, NotSupported
from modelyard.domain.graph import Graph
from modelyard.domain.names import DEFAULT_PROJECT
from modelyard.domain.rollout import GREATEST_MARGINS, Guard, Rollout, Shadow, Strategy, Watched
from modelyard.domain.routing import Batching, Limits, Resilience, ResponseCache
from modelyard.domain.service import Objectives, Replicas, Resources, ServiceSpec
from modelyard.domain.upstreams import Upstream

MOST_REPLICAS: Final = 64
_ALL: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowWish:
    """Which version gets copies of the requests, and what share of them in percent; 0 ends it."""

    model: str | None = None
    version: str | None = None
    alias: str | None = None
    percent: int = _ALL


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a person asks for; None leaves a thing as it is, or to its default where there is no service yet.

    Without `version` and `alias` a named model means its champion, else its newest approved version; without `model`
    the version stays. A rollout is the way to one goal: another version without one goes there directly.
    """

    name: str
    project: str
    model: str | None = None
    version: str | None = None
    alias: str | None = None
    follow: bool = False
    target: str | None = None
    owner: str | None = None
    replicas: Replicas | None = None
    isolation: Isolation | None = None
    device: str | None = None
    limits: Limits | None = None
    batching: Batching | None = None
    resilience: Resilience | None = None
    cache: ResponseCache | Literal["off"] | None = None
    rollout: Rollout | None = None
    shadow: ShadowWish | None = None
    upstream: Upstream | None = None
    graph: Graph | None = None
    resources: Resources | None = None
    env: Mapping[str, str] | None = None
    slo: Objectives | None = None
    why: str = ""
    retry: bool = False


def spec_of(
    tx: Transaction, wish: Wish, *, present: ServiceSpec | None, targets: Mapping[str, Target]
) -> tuple[ServiceSpec, str]:
    """The spec that a wish means, beside `present` (None: nothing is kept), and how its version was chosen.

    Raises:
        NotFound, Conflict: model, version or alias are not there, or not approved.
        InvalidRequest, NotSupported: what cannot be, with what can.
    """
    version, how, alias = _answerer(tx, wish, present)
    other = version if isinstance(version, Answerer) else None
    upstream = None if other is None else other.upstream
    require_same_dialect(present, upstream)
    target = require_target(targets, wish.target or (present.target if present else "local"))
    isolation = Isolation.SHARED if other is not None else _isolation(wish, present, version.isolation)
    shadow = _shadow(tx, wish, present, version)
    rollout = _rollout(wish, present, version)
    replicas = _replicas(wish, present, isolation)
    check_rollout(rollout, replicas, isolation)
    if other is not None and rollout.strategy is Strategy.CANARY and rollout.guard is Guard.AUTO:
        raise _wrong(
            "guard", "the guard compares models that answer here, and this is answered elsewhere", "guard: watch"
        )
    spec = ServiceSpec(
        name=wish.name,
        model=version.model,
        version=version.version,
        digest=version.digest,
        project=wish.project,
        owner=(present.owner if present else "") if wish.owner is None else wish.owner,
        target=target.name,
        replicas=replicas,
        isolation=isolation,
        limits=wish.limits or (present.limits if present else Limits()),
        batching=wish.batching or (present.batching if present else Batching()),
        resilience=wish.resilience or (present.resilience if present else Resilience()),
        cache=_cache(wish, present),
        rollout=rollout,
        shadow=shadow,
        alias=alias,
        follow=wish.follow and alias is not None,
        upstream=upstream,
        graph=None if other is None else other.graph,
        parts=() if other is None else other.parts,
        resources=_resources(wish, present),
        env=dict((present.env if present else {}) if wish.env is None else wish.env),
        slo=wish.slo or (present.slo if present else None),
    )
    require_abilities(spec, target)
    _require_env(tx, spec)
    return spec, how


def _cache(wish: Wish, present: ServiceSpec | None) -> ResponseCache | None:
    if wish.cache is None:
        return present.cache if present else None
    return None if wish.cache == "off" else wish.cache


def _resources(wish: Wish, present: ServiceSpec | None) -> Resources:
    """The wished resources, else those that are; with the wished device."""
    kept = wish.resources or (present.resources if present else Resources())
    return kept if wish.device is None else replace(kept, device=wish.device)


def check_rollout(rollout: Rollout, replicas: Replicas, isolation: Isolation) -> None:
    """Refuse a way that does not lead to the goal; `details` name the field."""
    if rollout.strategy is Strategy.ROLLING:
        if rollout.steps or rollout.matches or rollout.step_s is not None:
            raise _wrong("strategy", "steps, matches and step_s are those of a canary", "strategy: canary")
    else:
        _check_shares(rollout)
    if rollout.step_s is not None and rollout.guard is not Guard.OFF:
        raise _wrong("step_s", f"the guard moves this canary ({rollout.guard})", "guard: off with step_s, or no step_s")
    for index, match in enumerate(rollout.matches):
        if not (match.headers or match.keys):
            raise _wrong(f"matches[{index}]", "it names no header and no key", "headers: {x-canary: always}")
    for watched, margin in rollout.margins.items():
        _check_margin(rollout, watched, margin)
    if isolation is Isolation.PROCESS:
        _check_bounds(rollout, replicas)


def _check_shares(rollout: Rollout) -> None:
    steps = rollout.steps
    for index, share in enumerate(steps):
        least = 0 if index == 0 and rollout.matches else 1
        if not least <= share < _ALL or (index and share <= steps[index - 1]):
            raise _wrong(
                f"steps[{index}]",
                f"{share} is no share here",
                f"rising whole numbers from {least} to 99; all of the traffic comes after the last",
            )


def _check_margin(rollout: Rollout, watched: Watched, margin: float) -> None:
    most = GREATEST_MARGINS[watched]
    if watched not in rollout.watch:
        raise _wrong(f"margins.{watched}", "the guard does not watch that", f"watch: [{watched}, …]")
    if not 0 < margin <= most:
        raise _wrong(f"margins.{watched}", f"{margin:g} is no margin", f"above 0, at most {most:g}")


def _check_bounds(rollout: Rollout, replicas: Replicas) -> None:
    surge, unavailable = rollout.max_surge, rollout.max_unavailable
    if surge + unavailable < 1:
        raise _wrong("max_surge", "no worker could ever be exchanged", "max_surge or max_unavailable of at least 1")
    if unavailable and unavailable >= replicas.min:
        raise _wrong("max_unavailable", f"of {replicas.min} workers none would be left", f"0 to {replicas.min - 1}")


def _wrong(field: str, what: str, expected: str) -> InvalidRequest:
    path = f"rollout.{field}"
    return InvalidRequest(f"{path}: {what}", hint=expected, details=[{"field": path, "expected": expected}])


def _answerer(
    tx: Transaction, wish: Wish, present: ServiceSpec | None
) -> tuple[VersionRecord | Answerer, str, str | None]:
    """What is to answer: a version of the library, or something that stands for one."""
    upstream, graph = wish.upstream, wish.graph
    if upstream is None and graph is None and wish.model is None and present is not None:
        upstream, graph = present.upstream, present.graph
    if graph is not None:
        _require_alone(wish, "graph", {"upstream": wish.upstream})
        return graph_answerer(tx, wish.project, wish.name, graph), "other services together", None
    if upstream is not None:
        relayed = is_relayed(upstream) and wish.cache != "off"
        _require_alone(wish, "upstream", {"batching": wish.batching, "cache": wish.cache if relayed else None})
        return upstream_answerer(tx, wish.project, upstream), "a server elsewhere", None
    return _version(tx, wish, present)


def _require_alone(wish: Wish, what: str, more: Mapping[str, object]) -> None:
    """Refuse what only a version of the library can have, and `more`."""
    given: dict[str, object] = {
        "model": wish.model,
        "version": wish.version,
        "alias": wish.alias,
        "follow": wish.follow,
        "replicas": wish.replicas,
        "isolation": wish.isolation,
        "resilience": wish.resilience,
        "shadow": wish.shadow,
        **more,
    }
    for field, value in given.items():
        if value:
            raise InvalidRequest(
                f"{field}: a service with {what} has none",
                hint="leave it out",
                details=[{"field": field, "expected": f"nothing beside {what}"}],
            )


def _require_env(tx: Transaction, spec: ServiceSpec) -> None:
    """Refuse variables whose secret is not set, by the name of the field."""
    try:
        require_secrets(tx, spec.project, spec.env.values())
    except NotFound as error:
        error.details = ({"field": "env", "expected": f"names of secrets that are set; {error.hint}"},)
        raise


def require_still_servable(tx: Transaction, spec: ServiceSpec) -> None:
    """Refuse a spec of old whose version is no longer approved, or whose secret is gone."""
    _require_env(tx, spec)
    if spec.upstream is not None:
        upstream_answerer(tx, spec.project, spec.upstream)
    elif spec.graph is not None:
        for part in spec.parts:
            resolve(tx, spec.project, part.model, version=part.version)
    else:
        resolve(tx, spec.project, spec.model, version=spec.version)


def _version(tx: Transaction, wish: Wish, present: ServiceSpec | None) -> tuple[VersionRecord, str, str | None]:
    if wish.model is None:
        if present is None:
            raise InvalidRequest("a new service needs a model", hint="name one, as in NAME:VERSION")
        resolved = _resolved(tx, wish.project, present.model, present.version, None)
        return _servable(resolved.version), "as it is", present.alias
    resolved = _resolved(tx, wish.project, wish.model, wish.version, wish.alias)
    return _servable(resolved.version), resolved.how, wish.alias


def _resolved(
    tx: Transaction, project: str, model: str, version: str | None, alias: str | None, *, field: str = "model"
) -> Resolved:
    """The version that is meant; a refusal names the field."""
    try:
        return resolve(tx, project, model, version=version, alias=alias)
    except (NotFound, Conflict, InvalidRequest) as error:
        details = [{"field": field, "expected": error.hint or error.detail}]
        raise type(error)(error.detail, hint=error.hint, details=details) from error


def _servable(version: VersionRecord, *, field: str = "model") -> VersionRecord:
    if not version.has_package:
        raise NotSupported(
            f"{version.model}:{version.version} has no form that can be served here",
            hint=f"modelyard show {version.model}:{version.version} tells why",
            details=[{"field": field, "expected": "a version that can be served here"}],
        )
    return version


def _shadow(
    tx: Transaction, wish: Wish, present: ServiceSpec | None, version: VersionRecord | Answerer
) -> Shadow | None:
    asked = wish.shadow
    if isinstance(version, Answerer):
        return None  # a request there is not repeated for the sake of comparing
    if asked is None:
        kept = present.shadow if present else None
        return None if kept is not None and kept.digest == version.digest else kept
    if asked.percent == 0:
        return None
    model = asked.model or version.model
    found = _servable(
        _resolved(tx, wish.project, model, asked.version, asked.alias, field="shadow.model").version,
        field="shadow.model",
    )
    if found.digest == version.digest:
        raise InvalidRequest(
            f"{model}:{found.version} would be its own shadow",
            hint="name another version as the shadow, or deploy this one",
            details=[{"field": "shadow.model", "expected": "another version than the one that answers"}],
        )
    isolation = Isolation.SHARED if wish.project == DEFAULT_PROJECT else Isolation.PROCESS
    least = Isolation.PROCESS if Isolation.PROCESS in (found.isolation, isolation) else Isolation.SHARED
    return Shadow(model=found.model, version=found.version, digest=found.digest, percent=asked.percent, isolation=least)


def _rollout(wish: Wish, present: ServiceSpec | None, version: VersionRecord | Answerer) -> Rollout:
    if wish.rollout is not None or present is None:
        return wish.rollout or Rollout()
    if present.digest == version.digest and present.version == version.version:
        return present.rollout
    return replace(present.rollout, strategy=Strategy.ROLLING, steps=(), matches=(), step_s=None)


def _isolation(wish: Wish, present: ServiceSpec | None, least: Isolation) -> Isolation:
    """Where it may run: what the model needs, and no process is shared by two projects."""
    needs = ""
    if least is Isolation.PROCESS:
        needs = "this model runs only in a process of its own"
    elif wish.project != DEFAULT_PROJECT:
        needs = f"models of the project {quote(wish.project)} share no process with those of others"
    if not needs:
        return wish.isolation or (present.isolation if present else Isolation.SHARED)
    if wish.isolation is Isolation.SHARED:
        raise InvalidRequest(
            needs,
            hint="leave isolation out, or ask for process",
            details=[{"field": "isolation", "expected": "process", "received": "shared"}],
        )
    return Isolation.PROCESS


def _replicas(wish: Wish, present: ServiceSpec | None, isolation: Isolation) -> Replicas:
    kept = present.replicas if present is not None and isolation is Isolation.PROCESS else None
    replicas = wish.replicas or kept or Replicas()
    for field, low, high in _bounds(replicas):
        if not 0 <= low <= high <= MOST_REPLICAS or high < 1:
            raise InvalidRequest(
                f"{low} to {high} replicas are not possible",
                hint=f"0 to {MOST_REPLICAS}, min first, and a max of at least 1",
                details=[{"field": field, "expected": f"0 to {MOST_REPLICAS}, min first"}],
            )
    return replicas


def _bounds(replicas: Replicas) -> list[tuple[str, int, int]]:
    """Every least and most number, with the field that says so."""
    windows = enumerate(replicas.scaling.schedule)
    return [
        ("replicas", replicas.min, replicas.max),
        *((f"replicas.schedule[{index}]", window.min, window.max) for index, window in windows),
    ]
