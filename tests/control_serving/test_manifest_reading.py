"""Manifests are read strictly, mapped both ways without loss, and merged from files as they are documented."""

import json
from dataclasses import fields, replace
from datetime import time
from pathlib import Path
from typing import Any

import pytest

from modelyard.client.manifests import merged, read_manifests
from modelyard.control.deployments import manifest_reading
from modelyard.control.deployments.manifest_fields import manifest_of, wish_of
from modelyard.domain.contract import Isolation
from modelyard.domain.errors.platform import InvalidRequest
from modelyard.domain.graph import Combine, Comparison, Condition, Graph, Node, NodeKind, Step
from modelyard.domain.rollout import CanaryMatch, Guard, Rollout, Shadow, Strategy, Watched
from modelyard.domain.routing import Batching, Limits, Resilience, ResponseCache
from modelyard.domain.scaling import Scaling, Window
from modelyard.domain.service import Objectives, Replicas, Resources, ServiceSpec
from modelyard.domain.upstreams import Upstream, UpstreamProtocol

CONTRACT = """
apiVersion: modelyard.io/v1
kind: ModelService
metadata: {name: iris, project: default, owner: team-a}
spec:
  model: iris@champion            # an alias is resolved and recorded at apply
  target: local
  replicas: {min: 1, max: 4, target_in_flight: 8}
  resources: {cpu: 1, memory: 512Mi, device: auto}
  isolation: shared
  batching: {max_size: 64, max_wait_ms: 2}
  limits: {requests_per_s: 500, deadline_ms: 1000, max_in_flight: 256}
  rollout: {strategy: canary, steps: [10, 50], guard: auto, watch: [errors, latency, predictions]}
  shadow: {model: iris:5, percent: 100}
  env: {TOKEN: {secret: iris-token}}
  slo: {latency_p99_ms: 50, availability: 99.9, window: 30d}
"""

FULL = ServiceSpec(
    name="iris",
    model="iris",
    version="3",
    digest="sha256:3",
    project="team",
    owner="ann",
    target="prod",
    replicas=Replicas(
        min=2,
        max=5,
        scaling=Scaling(
            target_in_flight=8.0,
            idle_s=60.0,
            schedule=(
                Window(days=("mon", "sun"), start=time(8), end=time(18, 30), min=3, max=6, timezone="Europe/Berlin"),
            ),
        ),
    ),
    isolation=Isolation.PROCESS,
    limits=Limits(requests_per_s=5.5, deadline_ms=100, max_in_flight=7),
    batching=Batching(max_size=3, max_wait_ms=1.5),
    resilience=Resilience(retries=2),
    cache=ResponseCache(ttl_s=5.0),
    rollout=Rollout(
        strategy=Strategy.CANARY,
        steps=(0, 20),
        step_s=60.0,
        guard=Guard.OFF,
        watch=(Watched.ERRORS,),
        sticky="x-session",
        matches=(CanaryMatch(headers={"x-canary": "yes"}), CanaryMatch(keys=("k1",))),
        max_surge=2,
        max_unavailable=1,
    ),
    shadow=Shadow(model="iris", version="5", digest="sha256:5", percent=40, isolation=Isolation.PROCESS),
    alias="champion",
    follow=True,
    resources=Resources(cpu=1.5, memory_bytes=512 << 20, device="cpu"),
    env={"TOKEN": "iris-token"},
    slo=Objectives(latency_p99_ms=50.0, availability=99.9, window_s=3600.0),
    upstream=Upstream(protocol=UpstreamProtocol.V2, url="https://there.example/v2", model="far", check_s=5.0),
    graph=Graph(
        nodes={
            "root": Node(
                kind=NodeKind.SWITCH,
                steps=(
                    Step(name="old", service="a", when=Condition(input="x", element=2, op=Comparison.GT, value=0.5)),
                    Step(name="gold", model="m@champion", when=Condition(parameter="tier", value="gold")),
                    Step(name="one-of", service="b", when=Condition(parameter="n", op=Comparison.IN, value=(1, 2))),
                    Step(name="rest", node="rest"),
                ),
            ),
            "rest": Node(
                kind=NodeKind.ENSEMBLE,
                combine=Combine.VOTE,
                steps=(
                    Step(name="a", service="a", weight=2, inputs={"x": "pixels"}, outputs={"y": "label"}),
                    Step(name="s", node="shares"),
                ),
            ),
            "shares": Node(
                kind=NodeKind.SPLITTER,
                sticky="user",
                steps=(Step(name="a", service="a", weight=40), Step(name="b", service="b", weight=60)),
            ),
        }
    ),
)


def document(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "modelyard.io/v1",
        "kind": "ModelService",
        "metadata": {"name": "iris"},
        "spec": {"model": "iris:1", **spec},
    }


def refused(*documents: object) -> list[dict[str, Any]]:
    with pytest.raises(InvalidRequest) as caught:
        manifest_reading.read_manifests(documents)
    return [dict(each) for each in caught.value.details]


def test_the_manifest_of_the_contract_is_understood(tmp_path: Path) -> None:
    (tmp_path / "iris.yaml").write_text(CONTRACT)
    wish = wish_of(manifest_reading.read_manifests(read_manifests([tmp_path / "iris.yaml"]))[0])
    assert (wish.name, wish.model, wish.alias, wish.owner) == ("iris", "iris", "champion", "team-a")
    assert wish.replicas == Replicas(min=1, max=4, scaling=Scaling(target_in_flight=8.0))
    assert wish.resources == Resources(cpu=1.0, memory_bytes=512 << 20)
    assert wish.rollout is not None
    assert (wish.rollout.steps, wish.rollout.guard) == ((10, 50), Guard.AUTO)
    assert wish.shadow is not None
    assert (wish.shadow.model, wish.shadow.version) == ("iris", "5")
    assert wish.env == {"TOKEN": "iris-token"}
    assert wish.slo == Objectives(latency_p99_ms=50.0, availability=99.9)


@pytest.mark.parametrize("name", [each.name for each in fields(ServiceSpec)])
def test_every_field_of_a_spec_comes_through_its_manifest(name: str) -> None:
    """One field at a time away from its default, so that a field that is forgotten on one side is seen."""
    plain = ServiceSpec(name="iris", model="iris", version="1", digest="sha256:1")
    given = replace(plain, **{name: getattr(FULL, name)})
    if name in ("alias", "follow"):
        given = replace(given, alias="champion", follow=name == "follow")
    wish = wish_of(manifest_reading.read_manifests([json.loads(json.dumps(manifest_of(given)))])[0])
    if name in ("digest", "parts"):
        return  # what a version is stands in the library
    if name == "version":
        assert wish.version == "3"
    elif name == "shadow":
        assert wish.shadow is not None
        assert (wish.shadow.model, wish.shadow.version, wish.shadow.percent) == ("iris", "5", 40)
    else:
        usual = getattr(plain, name)
        assert (getattr(wish, name) or usual) == getattr(given, name)
        assert getattr(given, name) != usual or name in ("name", "model")


def test_all_fields_together_come_through() -> None:
    full = replace(FULL, upstream=None, graph=None)
    wish = wish_of(manifest_reading.read_manifests([json.loads(json.dumps(manifest_of(full)))])[0])
    for name in ("target", "replicas", "isolation", "limits", "batching", "resilience", "rollout", "resources", "slo"):
        assert getattr(wish, name) == getattr(FULL, name)
    assert (wish.alias, wish.follow, wish.project) == ("champion", True, "team")


@pytest.mark.parametrize(
    ("spec", "path", "expected"),
    [
        ({"rollout": {"strategy": "canary", "steps": [10, "50"]}}, "spec.rollout.steps[1]", "integer"),
        ({"rollout": {"strategy": "canary", "steps": [10, 150]}}, "spec.rollout.steps[1]", "99"),
        ({"rollout": {"stepz": [10]}}, "spec.rollout.stepz", "did you mean steps?"),
        ({"replica": 3}, "spec.replica", "did you mean replicas?"),
        ({"replicas": {"min": -1}}, "spec.replicas.min", "0"),
        ({"replicas": -1}, "spec.replicas.min", "0"),
        (
            {"replicas": {"schedule": [{"start": "25:00", "end": "18:00", "min": 1, "max": 2}]}},
            "spec.replicas.schedule[0].start",
            "",
        ),
        ({"limits": {"requests_per_s": 1e400}}, "spec.limits.requests_per_s", "1000000000"),
        ({"limits": {"deadline_ms": True}}, "spec.limits.deadline_ms", "integer"),
        ({"resources": {"memory": "lots"}}, "spec.resources.memory", "pattern"),
        ({"resources": {"memory": 512}}, "spec.resources.memory", "string"),
        ({"isolation": "cell"}, "spec.isolation", "'shared' or 'process'"),
        ({"env": {"TOKEN": "secret-value"}}, "spec.env.TOKEN", "object"),
        ({"env": {"token": {"secret": "a"}}}, "spec.env.token", "pattern"),
        ({"slo": {"availability": 100}}, "spec.slo.availability", "100"),
        ({"model": "iris:1@champion"}, "spec.model", "pattern"),
        ({"shadow": {"model": "iris:5", "percent": 0}}, "spec.shadow.percent", "1"),
        ({"rollout": {"matches": [{"header": {}}]}}, "spec.rollout.matches[0].header", "did you mean headers?"),
    ],
)
def test_what_is_wrong_is_named_with_its_path_and_what_is_right(spec: dict[str, Any], path: str, expected: str) -> None:
    rows = refused(document(**spec))
    row = next(each for each in rows if each["field"].startswith(path))
    assert expected in row["expected"]
    assert row["document"] == 0


def test_everything_that_is_wrong_is_said_at_once() -> None:
    wrong = {"apiVersion": "v2", "kind": "Pod", "metadata": {}, "spec": {"replicas": -1}, "status": {}}
    paths = {each["field"] for each in refused(document(), wrong)}
    assert paths == {"apiVersion", "kind", "metadata.name", "spec.replicas.min", "status"}
    assert refused({**document(), "spec": {}})[0]["field"] == "spec.model"
    assert refused(document(), document())[0]["field"] == "metadata.name"
    assert refused("iris")[0]["field"] == "the document"
    with pytest.raises(InvalidRequest, match="0 documents"):
        manifest_reading.read_manifests([])


def test_overlays_merge_maps_replace_lists_and_take_away(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(
        "metadata: {name: a}\nspec: {model: 'a:1', rollout: {steps: [1, 2], guard: off}, owner: x}\n"
        "---\nmetadata: {name: b}\nspec: {model: 'b:1'}\n---\n"
    )
    (tmp_path / "prod.yaml").write_text(
        "spec: {target: prod}\n---\nmetadata: {name: a}\nspec: {rollout: {steps: [5]}, owner: null}\n"
    )
    assert read_manifests([tmp_path / "base.yaml"], [tmp_path / "prod.yaml"]) == [
        {
            "metadata": {"name": "a"},
            "spec": {"model": "a:1", "rollout": {"steps": [5], "guard": "off"}, "target": "prod"},
        },
        {"metadata": {"name": "b"}, "spec": {"model": "b:1", "target": "prod"}},
    ]
    assert merged({"a": [1]}, {"a": {"b": 1}}) == {"a": {"b": 1}}
    (tmp_path / "other.json").write_text('{"metadata": {"name": "c"}}')
    with pytest.raises(InvalidRequest, match="no manifest is"):
        read_manifests([tmp_path / "base.yaml"], [tmp_path / "other.json"])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.yaml", "a: !!python/object:os.system x"),
        ("a.yaml", "a: &x 1\nb: *x"),
        ("a.yaml", "a: 1\na: 2"),
        ("a.yaml", "a: [1"),
        ("a.yaml", "- just\n- text"),
        ("a.yaml", "'just text'"),
        ("a.json", '{"a": 1, "a": 2}'),
        ("a.json", "[" * 100 + "]" * 100),
        ("a.json", '{"a": NaN}'),
        ("a.yaml", "\x00\xff"),
    ],
)
def test_a_file_that_is_no_plain_document_is_refused(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_bytes(text.encode("latin-1"))
    with pytest.raises(InvalidRequest):
        read_manifests([tmp_path / name])
    with pytest.raises(InvalidRequest, match="cannot be read"):
        read_manifests([tmp_path / "nothing.yaml"])
