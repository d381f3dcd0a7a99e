"""The manifest, field by field: what one may write, and how it maps to a service's spec and back.

This is the one place that knows both forms. To add a field: give it to `SpecFields` (with its bounds; the name is
public), carry it into the `Wish` in `wish_of`, and write it in `manifest_of` where it differs from its default. A test
takes every spec through `manifest_of` and back and fails when one of the two was forgotten.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from modelyard.control.deployments.answerers import split_model
from modelyard.control.deployments.graph_fields import GraphBody, graph_fields
from modelyard.control.deployments.schemas import (
    BatchingBody,
    CacheBody,
    LimitsBody,
    Name,
    ReplicasBody,
    ResilienceBody,
    RolloutBody,
)
from modelyard.control.deployments.upstream_fields import UpstreamBody, upstream_fields
from modelyard.control.deployments.wishes import ShadowWish, Wish
from modelyard.domain.contract import Isolation
from modelyard.domain.names import DEFAULT_PROJECT, NAME_PATTERN
from modelyard.domain.rollout import Rollout, Strategy
from modelyard.domain.routing import Batching, Limits, Resilience, ResponseCache
from modelyard.domain.scaling import Scaling
from modelyard.domain.service import Objectives, Replicas, Resources, ServiceSpec
from modelyard.foundation.documents import to_plain

API_VERSION: Final = "modelyard.io/v1"
KIND: Final = "ModelService"
_MODEL: Final = rf"^{NAME_PATTERN}(?:[:@]{NAME_PATTERN})?$"
_UNITS: Final = {"": 1, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "k": 10**3, "M": 10**6, "G": 10**9}
_SIZE: Final = r"^[1-9][0-9]{0,14}(?:Ki|Mi|Gi|Ti|k|M|G)?$"
_SPAN: Final = r"^[1-9][0-9]{0,5}[smhdw]$"
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
ModelReference = Annotated[str, Field(pattern=_MODEL, max_length=127, description="NAME, NAME:VERSION or NAME@ALIAS.")]


def _spread(value: object) -> object:
    """`replicas: 2` means two, no more and no fewer."""
    return {"min": value} if isinstance(value, int) and not isinstance(value, bool) else value


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ResourcesFields(_Strict):
    """What each isolated worker is given."""

    cpu: float | None = Field(default=None, gt=0, le=1024, description="Cores.")
    memory: str | None = Field(default=None, pattern=_SIZE, description="Bytes, as in 512Mi.")
    device: str = Field(default="auto", pattern=r"^[a-z][a-z0-9:_-]{0,31}$")


class ShadowFields(_Strict):
    """A version that is sent copies of requests."""

    model: ModelReference
    percent: int = Field(default=100, ge=1, le=100)


class SecretFields(_Strict):
    """Where the value of a variable is kept."""

    secret: Name


class ObjectiveFields(_Strict):
    """What the service is to keep to."""

    latency_p99_ms: float | None = Field(default=None, gt=0, le=86_400_000)
    availability: float | None = Field(default=None, gt=0, lt=100, description="Percent.")
    window: str = Field(default="30d", pattern=_SPAN, description="A number and s, m, h, d or w.")


class MetadataFields(_Strict):
    """Which service this is."""

    name: Name
    project: Name = DEFAULT_PROJECT
    owner: str = Field(default="", max_length=63)


class SpecFields(_Strict):
    """What the service is to be; what is left out has its default."""

    model: ModelReference | None = Field(default=None, description="Left out with `upstream` or `graph`.")
    follow: bool = Field(default=False, description="A new revision whenever the alias points elsewhere.")
    target: Name = Field(default="local", description="The place where it runs.")
    replicas: Annotated[ReplicasBody | None, BeforeValidator(_spread)] = None
    resources: ResourcesFields | None = None
    isolation: Isolation | None = None
    batching: BatchingBody | None = None
    limits: LimitsBody | None = None
    resilience: ResilienceBody | None = None
    cache: CacheBody | None = Field(default=None, description="A response cache; default: none.")
    rollout: RolloutBody | None = None
    shadow: ShadowFields | None = None
    upstream: UpstreamBody | None = Field(default=None, description="A server elsewhere, in place of a model.")
    graph: GraphBody | None = Field(default=None, description="Other services as one, in place of a model.")
    env: dict[Annotated[str, Field(pattern=r"^[A-Z_][A-Z0-9_]{0,127}$")], SecretFields] = Field(
        default={}, max_length=64
    )
    slo: ObjectiveFields | None = None

    @model_validator(mode="after")
    def _answered(self) -> Self:
        """Something has to answer; that both are named is refused where the wish is read."""
        if self.model is None and self.upstream is None and self.graph is None:
            raise PydanticCustomError("missing_answerer", "model: NAME, NAME:VERSION or NAME@ALIAS, or upstream, graph")
        return self


class Manifest(_Strict):
    """One service, as people keep it in a file."""

    apiVersion: Literal["modelyard.io/v1"] = Field(description="modelyard.io/v1")  # noqa: N815  (public name)
    kind: Literal["ModelService"] = Field(description="ModelService")
    metadata: MetadataFields
    spec: SpecFields


def wish_of(manifest: Manifest) -> Wish:
    """What a manifest asks for: all of it, so nothing of the present service is kept."""
    spec, metadata = manifest.spec, manifest.metadata
    model, version, alias = (None, None, None) if spec.model is None else split_model(spec.model)
    limits, batching, resilience = spec.limits, spec.batching, spec.resilience
    return Wish(
        name=metadata.name,
        project=metadata.project,
        owner=metadata.owner,
        model=model,
        version=version,
        alias=alias,
        follow=spec.follow,
        target=spec.target,
        replicas=None if spec.replicas is None else spec.replicas.value(),
        isolation=spec.isolation,
        limits=None if limits is None else Limits(**limits.model_dump()),
        batching=None if batching is None else Batching(**batching.model_dump()),
        resilience=None if resilience is None else Resilience(**resilience.model_dump()),
        cache=None if spec.cache is None else ResponseCache(**spec.cache.model_dump()),
        rollout=None if spec.rollout is None else spec.rollout.value(),
        shadow=_shadow_wish(spec.shadow),
        upstream=None if spec.upstream is None else spec.upstream.value(metadata.name),
        graph=None if spec.graph is None else spec.graph.value(),
        resources=_resources(spec.resources),
        env={name: value.secret for name, value in spec.env.items()},
        slo=_objectives(spec.slo),
    )


def manifest_of(spec: ServiceSpec) -> dict[str, Any]:
    """The manifest that means `spec`; what has its default is left out, and so is all that the platform decides."""
    elsewhere = spec.upstream is not None or spec.graph is not None
    fields = {
        "model": None if elsewhere else _reference(spec),
        "follow": spec.follow or None,
        "target": spec.target,
        "replicas": _replica_fields(spec.replicas),
        "resources": _resource_fields(spec.resources),
        "isolation": None if elsewhere else spec.isolation.value,
        "batching": _other(spec.batching, Batching()),
        "limits": _other(spec.limits, Limits()),
        "resilience": _other(spec.resilience, Resilience()),
        "cache": None if spec.cache is None else to_plain(spec.cache),
        "rollout": _rollout_fields(spec.rollout),
        "shadow": None
        if spec.shadow is None
        else {"model": f"{spec.shadow.model}:{spec.shadow.version}", "percent": spec.shadow.percent},
        "upstream": None if spec.upstream is None else upstream_fields(spec.upstream),
        "graph": None if spec.graph is None else graph_fields(spec.graph),
        "env": {name: {"secret": secret} for name, secret in spec.env.items()} or None,
        "slo": _objective_fields(spec.slo),
    }
    metadata = {"name": spec.name, "project": spec.project, "owner": spec.owner or None}
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {name: value for name, value in metadata.items() if value is not None},
        "spec": {name: value for name, value in fields.items() if value is not None},
    }


def _reference(spec: ServiceSpec) -> str:
    return f"{spec.model}@{spec.alias}" if spec.alias else f"{spec.model}:{spec.version}"


def _shadow_wish(fields: ShadowFields | None) -> ShadowWish | None:
    if fields is None:
        return None
    model, version, alias = split_model(fields.model)
    return ShadowWish(model=model, version=version, alias=alias, percent=fields.percent)


def _resources(fields: ResourcesFields | None) -> Resources | None:
    if fields is None:
        return None
    size = None if fields.memory is None else re.fullmatch(r"([0-9]+)([A-Za-z]*)", fields.memory)
    memory = None if size is None else int(size[1]) * _UNITS[size[2]]
    return Resources(cpu=fields.cpu, memory_bytes=memory, device=fields.device)


def _replica_fields(replicas: Replicas) -> dict[str, Any] | None:
    fields: dict[str, Any] = dict(_other(replicas.scaling, Scaling()) or {})
    if replicas.scaling.schedule:
        fields["schedule"] = [
            {**to_plain(window), "start": f"{window.start:%H:%M}", "end": f"{window.end:%H:%M}"}
            for window in replicas.scaling.schedule
        ]
    if fields or (replicas.min, replicas.max) != (1, 1):
        fields = {"min": replicas.min, "max": replicas.max, **fields}
    return fields or None


def _resource_fields(resources: Resources) -> dict[str, Any] | None:
    memory = None if resources.memory_bytes is None else _size_text(resources.memory_bytes)
    given = {"cpu": resources.cpu, "memory": memory, "device": None if resources.device == "auto" else resources.device}
    return {name: value for name, value in given.items() if value is not None} or None


def _size_text(size: int) -> str:
    for unit in ("Ti", "Gi", "Mi", "Ki"):
        if size % _UNITS[unit] == 0:
            return f"{size // _UNITS[unit]}{unit}"
    return str(size)


def _objectives(fields: ObjectiveFields | None) -> Objectives | None:
    if fields is None:
        return None
    window = float(int(fields.window[:-1]) * _SECONDS[fields.window[-1]])
    return Objectives(latency_p99_ms=fields.latency_p99_ms, availability=fields.availability, window_s=window)


def _objective_fields(slo: Objectives | None) -> dict[str, Any] | None:
    if slo is None:
        return None
    unit = next(each for each in ("d", "h", "m", "s") if slo.window_s % _SECONDS[each] == 0)
    given = {
        "latency_p99_ms": slo.latency_p99_ms,
        "availability": slo.availability,
        "window": f"{int(slo.window_s // _SECONDS[unit])}{unit}",
    }
    return {name: value for name, value in given.items() if value is not None}


def _rollout_fields(rollout: Rollout) -> dict[str, Any] | None:
    fields = _other(rollout, Rollout())
    if fields is None:
        return None
    if rollout.strategy is Strategy.CANARY:
        fields["strategy"] = rollout.strategy.value
    return fields


def _other(value: Any, default: Any) -> dict[str, Any] | None:  # noqa: ANN401  (any of the domain's groups)
    """The fields of a group that differ from its default, as plain JSON; None when none does."""
    plain, usual = to_plain(value), to_plain(default)
    found = {name: item for name, item in plain.items() if item != usual[name]}
    return _tidy(found) or None


def _tidy(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Matches without what they leave open."""
    tidied = dict(fields)
    if "matches" in tidied:
        tidied["matches"] = [{name: item for name, item in each.items() if item} for each in tidied["matches"]]
    return tidied
