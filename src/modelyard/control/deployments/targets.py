"""Where services are deployed to: places that people name (`staging`, `prod`), each of a kind that is orchestrated.

What a place cannot do is refused when it is asked for, with the reason and the field; nothing is bent to fit.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from modelyard.domain.contract import Isolation
from modelyard.domain.errors.base import quote
from modelyard.domain.errors.platform import InvalidRequest, NotSupported, StartRefused
from modelyard.domain.rollout import Guard, Strategy
from modelyard.domain.service import Resources, ServiceSpec
from modelyard.ports.orchestrator import Abilities, Orchestrator

AUTO = "auto"
_NOT_COMPARED = (
    "rollout.guard: nothing is compared, for this is answered elsewhere; a person moves the canary, or step_s"
)
LEAST_MEMORY_BYTES = 192 << 20
"""What a worker takes before it has a model: the interpreter, numpy, a runtime."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A place, and what its orchestrator can do."""

    name: str
    kind: str
    abilities: Abilities


class Targets(Mapping[str, Target]):
    """All places of a platform: those that settings name, and every orchestrator under its own name."""

    def __init__(self, orchestrators: Mapping[str, Orchestrator], *, named: Mapping[str, str] | None = None) -> None:
        self.orchestrators = orchestrators
        self._targets: dict[str, Target] = {}
        for name, kind in {**{kind: kind for kind in orchestrators}, **(named or {})}.items():
            if kind not in orchestrators:
                raise StartRefused(
                    f"targets.{name}: there is no orchestrator {quote(kind)} here",
                    hint=f"kinds: {', '.join(orchestrators)}",
                )
            self._targets[name] = Target(name=name, kind=kind, abilities=orchestrators[kind].abilities())

    def __getitem__(self, name: str) -> Target:
        return self._targets[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._targets)

    def __len__(self) -> int:
        return len(self._targets)

    def kind_of(self, name: str) -> str | None:
        """The orchestrator of a place; None when settings no longer name it."""
        target = self._targets.get(name)
        return None if target is None else target.kind


def require_target(targets: Mapping[str, Target], name: str) -> Target:
    """The place of this name, or `NotSupported` that lists those there are."""
    target = targets.get(name)
    if target is None:
        raise NotSupported(
            f"there is no target {quote(name)} here",
            hint=f"targets: {', '.join(targets)}",
            details=[{"field": "target", "expected": f"one of {', '.join(targets)}", "received": quote(name)}],
        )
    return target


def require_abilities(spec: ServiceSpec, target: Target) -> None:
    """Refuse what the place cannot do, or what makes no sense for a service in the shared servers."""
    abilities, resources = target.abilities, spec.resources
    isolated = spec.isolation is Isolation.PROCESS
    if not isolated and not abilities.shares_servers:
        raise _lacks(target, "isolation", "runs no service in shared servers", "isolation: process")
    _require_room(resources, target)
    if resources.device != AUTO and resources.device not in abilities.devices:
        known = ", ".join((AUTO, *abilities.devices))
        raise _lacks(target, "resources.device", f"has no {quote(resources.device)}", f"one of {known}")
    if spec.env and not isolated:
        raise InvalidRequest(
            "env: only isolated workers have variables of their own",
            hint="isolation: process, or no env",
            details=[{"field": "env", "expected": "isolation: process, or no env"}],
        )
    if spec.env and not abilities.gives_secrets:
        raise _lacks(target, "env", "gives its workers no secrets", "no env")


def notes_on(spec: ServiceSpec) -> tuple[str, ...]:
    """What fields of a spec mean where it runs, as far as they may be misunderstood."""
    if spec.upstream is not None or spec.graph is not None:
        is_watched = spec.rollout.strategy is Strategy.CANARY and spec.rollout.guard is not Guard.OFF
        return (_NOT_COMPARED,) if is_watched else ()
    if spec.isolation is not Isolation.SHARED:
        return ()
    found = []
    replicas, resources = spec.replicas, spec.resources
    if replicas.max > 1 or replicas.scaling.is_on:
        found.append("replicas: shared, so every model server of the pool holds it; the number is for isolated workers")
    if resources.memory_bytes is not None:
        found.append("resources.memory: shared, so a model that takes more when it is loaded is refused")
    if resources.cpu is not None:
        found.append("resources.cpu: shared, so it bounds the threads of one run in each model server")
    return tuple(found)


def _require_room(resources: Resources, target: Target) -> None:
    abilities = target.abilities
    memory, cpu = resources.memory_bytes, resources.cpu
    if memory is not None:
        most = abilities.most_memory_bytes
        if not abilities.limits_memory:
            raise _lacks(target, "resources.memory", "cannot limit memory", "no memory")
        if most is not None and memory > most:
            raise _lacks(target, "resources.memory", f"has no node with {memory >> 20} MiB", f"at most {most >> 20}Mi")
        if memory < LEAST_MEMORY_BYTES:
            least = f"at least {LEAST_MEMORY_BYTES >> 20}Mi"
            raise _lacks(target, "resources.memory", f"starts no worker in {memory >> 20} MiB", least)
    if cpu is not None:
        if not abilities.limits_cpu:
            raise _lacks(target, "resources.cpu", "cannot limit processors", "no cpu")
        if abilities.most_cpus is not None and cpu > abilities.most_cpus:
            raise _lacks(target, "resources.cpu", f"has no node with {cpu:g}", f"at most {abilities.most_cpus:g}")
        if cpu != int(cpu) and not abilities.divides_cpus:
            raise _lacks(target, "resources.cpu", "gives whole processors only", f"{math.ceil(cpu)}")


def _lacks(target: Target, field: str, what: str, expected: str) -> NotSupported:
    return NotSupported(
        f"{field}: the target {quote(target.name)} ({target.kind}) {what}",
        hint=expected,
        details=[{"field": field, "expected": expected}],
    )
