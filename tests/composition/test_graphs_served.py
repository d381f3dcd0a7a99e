"""Graphs carried out by real model servers: what they answer, what each part is told, and what is booked for whom."""

import threading
from typing import Any

import httpx
import numpy as np
import pytest
from graph_routes import ask, graph, node, part
from small_servers import small_upstream
from upstream_routes import relayed

from modelyard.domain.contract import Isolation
from modelyard.domain.graph import Combine, Comparison, Condition, Step
from modelyard.domain.routing import Limits


def rows(*values: list[float], name: str = "x", **more: Any) -> dict[str, Any]:
    flat = [value for row in values for value in row]
    shape = [len(values), len(values[0])]
    return {"inputs": [{"name": name, "shape": shape, "datatype": "FP32", "data": flat}], **more}


def infer(server: Any, name: str, body: Any, **more: Any) -> httpx.Response:
    with server.client() as client:
        return client.post(f"/v2/models/{name}/infer", json=body, **more)


def data(answer: httpx.Response, output: str = "y") -> list[Any]:
    assert answer.status_code == 200, answer.text
    return next(one["data"] for one in answer.json()["outputs"] if one["name"] == output)


def account(server: Any, service: str) -> dict[str, float]:
    """Figures of one service without their labels."""
    found = {}
    for name, value in server.figures().items():
        if f'service="{service}"' in name:
            found[name.partition("{")[0]] = found.get(name.partition("{")[0], 0.0) + value
    return found


def test_a_sequence_answers_as_its_parts_one_after_the_other_and_says_who_took_part(servers: Any, kit: Any) -> None:
    double = kit.service("double", kit.backend(kit.times("double", 2.0), revision=3))
    triple = kit.service("triple", kit.backend(kit.times("triple", 3.0), revision=5))
    both = graph("both", root=node("Sequence", ask("double", outputs={"y": "x"}), ask("triple")))
    server = servers.start(kit.table(double, triple, both))
    kit.until(server.is_ready)
    answer = infer(server, "both", rows([1, 2], [3, 4], id="mine"))
    assert data(answer) == [6.0, 12.0, 18.0, 24.0]
    assert (answer.json()["id"], answer.json()["model_name"]) == ("mine", "both")
    assert answer.headers["x-revision"] == "7"
    assert answer.headers["x-parts"] == "double;revision=3, triple;revision=5"
    with server.client() as client:
        described = client.get("/v2/models/both").json()
        assert described["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]
        assert described["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}]
        assert described["platform"] == "modelyard_graph"
        assert client.get("/v2/models/both/ready").status_code == 200
        assert client.post("/v1/models/both:predict", json={"instances": [[1, 1]]}).json() == {
            "predictions": [[6.0, 6.0]]
        }
        assert client.get("/v2/models/both/stats").json()["model_stats"][0]["inference_stats"]["success"]["count"] == 2
    infer(server, "double", rows([1, 1]))
    for service, requests in (("both", 2), ("double", 3), ("triple", 2)):
        booked = account(server, service)
        assert booked["modelyard_inputs_received_total"] == requests
        assert booked["modelyard_inputs_answered_total"] == requests
        assert booked["modelyard_inputs_in_flight"] == 0


@pytest.mark.parametrize(
    ("combine", "expected"),
    [(Combine.AVERAGE, [3.0, 6.0]), (Combine.WEIGHTED, [3.5, 7.0]), (Combine.MAX, [5.0, 10.0])],
)
def test_an_ensemble_combines_numbers(servers: Any, kit: Any, combine: Combine, expected: list[float]) -> None:
    one = kit.service("one", kit.backend(kit.times("one", 1.0)))
    five = kit.service("five", kit.backend(kit.times("five", 5.0)))
    steps = (ask("one", weight=3), ask("five", weight=5))
    server = servers.start(kit.table(one, five, graph("mix", root=node("Ensemble", *steps, combine=combine))))
    kit.until(server.is_ready)
    assert data(infer(server, "mix", rows([1, 2]))) == expected


def test_votes_and_averages_of_classifiers_give_labels(servers: Any, kit: Any, packages: Any) -> None:
    names = ("a", "b", "c")
    services = [kit.service(name, kit.backend(packages.classifier(name))) for name in names]
    flip = kit.service("flip", kit.backend(packages.linear("flip")))
    vote = graph("vote", root=node("Ensemble", *(ask(name) for name in names), combine=Combine.VOTE))
    mean = graph("mean", root=node("Ensemble", *(ask(name) for name in names)))
    server = servers.start(kit.table(*services, flip, vote, mean))
    kit.until(server.is_ready)
    body = kit.question([3.0, 1.0, 0.0], [0.0, 2.0, 0.0])
    assert data(infer(server, "vote", body), "label") == ["no", "yes"]
    averaged = infer(server, "mean", body)
    assert data(averaged, "label") == ["no", "yes"]
    alone = data(infer(server, "a", body), "p")
    assert np.allclose(data(averaged, "p"), alone)
    with server.client() as client:
        wanted = {**body, "outputs": [{"name": "p", "parameters": {"classification": 1}}]}
        best = client.post("/v2/models/mean/infer", json=wanted).json()["outputs"][0]["data"]
        assert [text.split(":")[2] for text in best] == ["no", "yes"]


def test_a_switch_divides_rows_by_a_value_and_requests_by_a_parameter(servers: Any, kit: Any) -> None:
    small = kit.service("small", kit.backend(kit.times("small", 1.0)))
    large = kit.service("large", kit.backend(kit.times("large", 10.0)))
    by_value = node(
        "Switch", ask("large", when=Condition(input="x", element=1, op=Comparison.GT, value=5)), ask("small")
    )
    by_parameter = node(
        "Switch", ask("large", when=Condition(parameter="tier", op=Comparison.IN, value=("gold", "vip"))), ask("small")
    )
    server = servers.start(kit.table(small, large, graph("rows", root=by_value), graph("tiers", root=by_parameter)))
    kit.until(server.is_ready)
    assert data(infer(server, "rows", rows([1, 9], [2, 2], [3, 8]))) == [10.0, 90.0, 2.0, 2.0, 30.0, 80.0]
    assert account(server, "large")["modelyard_inferences_total"] == 2
    assert account(server, "small")["modelyard_inferences_total"] == 1
    assert data(infer(server, "rows", rows([1, 1]))) == [1.0, 1.0]
    assert data(infer(server, "tiers", rows([1, 1], parameters={"tier": "vip"}))) == [10.0, 10.0]
    assert data(infer(server, "tiers", rows([1, 1], parameters={"tier": "iron"}))) == [1.0, 1.0]
    assert data(infer(server, "tiers", rows([1, 1]))) == [1.0, 1.0]


def test_a_splitter_gives_each_step_its_share_and_the_same_caller_the_same_step(servers: Any, kit: Any) -> None:
    one = kit.service("one", kit.backend(kit.times("one", 1.0)))
    two = kit.service("two", kit.backend(kit.times("two", 2.0)))
    split = node("Splitter", ask("one", weight=75), ask("two", weight=25), sticky="user")
    server = servers.start(kit.table(one, two, graph("split", root=split)))
    kit.until(server.is_ready)
    answers = [data(infer(server, "split", rows([1, 1])))[0] for _ in range(20)]
    assert (answers.count(1.0), answers.count(2.0)) == (15, 5)
    seen: dict[int, set[float]] = {}
    for user in range(30):
        for _ in range(2):
            got = data(infer(server, "split", rows([1, 1], parameters={"user": f"u{user}"})))[0]
            seen.setdefault(user, set()).add(got)
    assert all(len(each) == 1 for each in seen.values())
    assert {value for each in seen.values() for value in each} == {1.0, 2.0}


def test_requests_of_many_callers_share_runs_of_a_part(servers: Any, kit: Any, packages: Any) -> None:
    slow = kit.service("part", kit.backend(kit.times("part", 2.0)))
    from modelyard.domain.routing import Batching

    waits = kit.service("waits", kit.backend(kit.times("waits", 1.0)), batching=Batching(max_wait_ms=200))
    chain = graph("chain", root=node("Sequence", ask("waits", outputs={"y": "x"}), ask("part")))
    server = servers.start(kit.table(slow, waits, chain))
    kit.until(server.is_ready)
    answers: list[list[float]] = []
    threads = [
        threading.Thread(target=lambda i=i: answers.append(data(infer(server, "chain", rows([i, i])))))
        for i in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer[0] for answer in answers) == [2.0 * i for i in range(16)]
    booked = account(server, "waits")
    assert booked["modelyard_inferences_total"] == 16
    assert booked["modelyard_executions_total"] < 16


def test_models_of_its_own_are_loaded_and_asked_by_the_graph_itself(servers: Any, kit: Any) -> None:
    package = kit.times("inner", 4.0)
    own = Step(name="inner", model="inner@champion")
    server = servers.start(kit.table(graph("direct", part("inner@champion", package), root=node("Sequence", own))))
    kit.until(server.is_ready)
    answer = infer(server, "direct", rows([1, 2]))
    assert data(answer) == [4.0, 8.0]
    assert answer.headers["x-parts"] == "inner;version=1"
    booked = account(server, "direct")
    assert booked["modelyard_inputs_answered_total"] == 1


def test_upstreams_and_isolated_workers_are_parts_like_any_other(servers: Any, kit: Any, tmp_path: Any) -> None:
    package = kit.times("walled", 5.0)
    socket = tmp_path / "w.sock"
    servers.worker(package, socket)
    walled = kit.service("walled", kit.backend(package, workers=(str(socket),)), isolation=Isolation.PROCESS)
    with small_upstream() as upstream:
        far = relayed("far", upstream.url(), protocol="v2", model="double")
        chain = graph("chain", root=node("Sequence", ask("walled", outputs={"y": "x"}), ask("far")))
        server = servers.start(kit.table(walled, far, chain))
        kit.until(server.is_ready)
        assert data(infer(server, "chain", rows([1, 2]))) == [10.0, 20.0]
        upstream.mode = "broken"
        refused = infer(server, "chain", rows([1, 2]))
        assert (refused.status_code, refused.json()["code"]) == (502, "upstream_failed")
        assert refused.json()["error"].startswith("the part far (far): the upstream failed")
        assert refused.json()["details"][0] == {"part": "root.far", "asked": "far"}
        assert refused.headers["x-parts"] == "far;revision=1, walled;revision=1"
        for service, outcome in (("chain", "answered"), ("far", "answered"), ("walled", "answered")):
            booked = account(server, service)
            assert booked["modelyard_inputs_received_total"] == booked[f"modelyard_inputs_{outcome}_total"] == 2
            assert booked["modelyard_inputs_in_flight"] == 0
        upstream.mode = "silent"
        late = infer(server, "chain", rows([1, 2], parameters={"timeout": 300_000}))
        assert (late.status_code, late.json()["code"]) == (504, "deadline_exceeded")
        assert account(server, "chain")["modelyard_inputs_lost_total"] == 1
        assert account(server, "far")["modelyard_inputs_lost_total"] == 1


def test_limits_of_a_part_hold_for_graphs_too_and_the_error_names_the_part(servers: Any, kit: Any) -> None:
    tight = kit.service("tight", kit.backend(kit.times("tight", 1.0)), limits=Limits(requests_per_s=1))
    server = servers.start(kit.table(tight, graph("free", root=node("Sequence", ask("tight")))))
    kit.until(server.is_ready)
    answers = [infer(server, "free", rows([1, 1])) for _ in range(6)]
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.json()["error"].startswith("the part tight (tight): this service takes 1 requests a second")
    assert refused.headers["retry-after"]


def test_a_graph_may_be_a_part_of_a_graph_and_waits_for_its_parts(servers: Any, kit: Any) -> None:
    base = kit.service("base", kit.backend(kit.times("base", 2.0)))
    inner = graph("inner", root=node("Sequence", ask("base", outputs={"y": "x"}), ask("base", name="again")))
    outer = graph("outer", root=node("Sequence", ask("inner", outputs={"y": "x"}), ask("base")))
    server = servers.start(kit.table(outer, inner, base))
    kit.until(server.is_ready)
    assert data(infer(server, "outer", rows([1, 1]))) == [8.0, 8.0]


def test_a_graph_whose_parts_are_away_or_do_not_fit_says_so(servers: Any, kit: Any, packages: Any) -> None:
    wide = kit.service("wide", kit.backend(packages.linear("wide")))
    lost = graph("lost", root=node("Sequence", ask("nowhere")))
    twice = kit.service("twice", kit.backend(kit.times("twice", 2.0)))
    odd = graph("odd", root=node("Sequence", ask("twice", outputs={"y": "x"}), ask("wide")))
    server = servers.start(kit.table(wide, lost, odd, twice))
    refused = kit.until(lambda: _says(infer(server, "lost", rows([1, 1])), "the part nowhere is not there"))
    assert (refused.status_code, refused.json()["code"]) == (503, "not_ready")
    refused = kit.until(lambda: _says(infer(server, "odd", rows([1, 1])), "graph.nodes.root.steps[1].inputs.x"))
    assert "do not fit" in refused.json()["error"]


def test_a_wrong_question_is_refused_before_any_part_sees_it(servers: Any, kit: Any) -> None:
    base = kit.service("base", kit.backend(kit.times("base", 2.0)))
    server = servers.start(kit.table(base, graph("whole", root=node("Sequence", ask("base")))))
    kit.until(server.is_ready)
    refused = infer(server, "whole", rows([1, 2, 3]))
    assert (refused.status_code, refused.json()["code"]) == (400, "shape_mismatch")
    assert data(infer(server, "whole", refused.json()["example"]))
    assert account(server, "base")["modelyard_inputs_received_total"] == 1


def test_a_client_that_goes_lets_go_of_the_parts(servers: Any, kit: Any) -> None:
    with small_upstream() as upstream:
        far = relayed("far", upstream.url(), protocol="v2", model="double")
        server = servers.start(kit.table(far, graph("whole", root=node("Sequence", ask("far")))))
        kit.until(server.is_ready)
        upstream.mode = "silent"
        with pytest.raises(httpx.ReadTimeout), server.client() as client:
            client.post("/v2/models/whole/infer", json=rows([1, 1]), timeout=1)
        for service in ("whole", "far"):
            kit.until(lambda service=service: account(server, service).get("modelyard_inputs_lost_total") == 1)
            assert account(server, service)["modelyard_inputs_in_flight"] == 0


def _says(answer: httpx.Response, text: str) -> httpx.Response | None:
    return answer if text in answer.json().get("error", "") else None
