"""Models held on demand: loaded once by the first request, let go when idle or for another, no request lost."""

import re
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import httpx
import numpy as np
import psutil
import pytest
from onnx import helper

from modelyard.domain.contract import ModelContract
from modelyard.domain.tensors import DataType

MIB = 1 << 20


def body(value: float) -> dict:
    return {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [value, 1, 2]}]}


def answer(client: httpx.Client, name: str, value: float = 1.0) -> list[float]:
    response = client.post(f"/v2/models/{name}/infer", json=body(value))
    assert response.status_code == 200, response.text
    return response.json()["outputs"][0]["data"]


def figure(client: httpx.Client, name: str, **labels: str) -> float:
    """The sum of a metric over all series that have these labels."""
    wanted = [f'{key}="{value}"' for key, value in labels.items()]
    lines = [line for line in client.get("/metrics").text.splitlines() if re.match(rf"{name}\b", line)]
    return sum(float(line.rpartition(" ")[2]) for line in lines if all(text in line for text in wanted))


def heavy(packages, kit, name: str, factor: float, *, mib: int = 8):
    """A model of so many MiB of weights whose answer is `factor` times its first two inputs."""
    side = mib * MIB // 4 // 3
    weights = np.zeros((3, side), dtype="f4")
    weights[0, 0] = weights[1, 1] = factor
    contract = ModelContract(
        inputs=(kit.spec("x", DataType.FP32, -1, 3),),
        outputs=(kit.spec("y", DataType.FP32, -1, 2),),
        max_batch_size=64,
    )
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["z"]),
        helper.make_node("Slice", ["z", "from", "to", "axes"], ["y"]),
    ]
    ends = {"from": np.array([0]), "to": np.array([2]), "axes": np.array([1])}
    return packages.graph(name, nodes, contract, constants={"w": weights, **ends})


def on_demand(kit, package, **more):
    return kit.service(package.name, kit.backend(package), on_demand=True, **more)


def test_a_hundred_requests_at_once_to_a_model_that_sleeps_load_it_once(packages, servers, kit) -> None:
    package = packages.linear("cold", scale=3.0)
    server = servers.start(kit.table(on_demand(kit, package)))
    with httpx.Client(
        base_url=server.url, trust_env=False, timeout=30, limits=httpx.Limits(max_connections=100)
    ) as client:
        assert client.get("/v2/models/cold/ready").status_code == 200
        assert figure(client, "modelyard_model_memory_bytes") == 0, "nothing is in memory before the first request"
        with ThreadPoolExecutor(100) as threads:
            found = list(threads.map(lambda value: answer(client, "cold", value), range(100)))
        assert found == [[3.0 * value, 3.0] for value in range(100)]
        assert figure(client, "modelyard_model_wakes_total") == 1


def test_a_model_that_nobody_asks_is_let_go_and_comes_back(packages, servers, kit) -> None:
    package = packages.linear("dozy", scale=2.0)
    server = servers.start(kit.table(on_demand(kit, package, idle_s=0.3)))
    with httpx.Client(base_url=server.url, trust_env=False, timeout=30) as client:
        for turn in (1, 2):
            assert answer(client, "dozy") == [2.0, 2.0]
            assert figure(client, "modelyard_model_wakes_total") == turn
            kit.until(lambda turn=turn: figure(client, "modelyard_model_sleeps_total", reason="idle") == turn)


def test_many_models_are_served_in_the_memory_of_few_with_every_answer_right(packages, servers, kit) -> None:
    count, at_once = 32, 4
    factors = {f"m{number}": float(number + 1) for number in range(count)}
    routes = [on_demand(kit, heavy(packages, kit, name, factor)) for name, factor in factors.items()]
    table = replace(kit.table(*routes), model_memory_bytes=(at_once + 1) * 8 * MIB)
    server = servers.start(table)
    process = psutil.Process(server.process.pid)
    before, most = process.memory_info().rss, 0
    outcomes: Counter[str] = Counter()
    with httpx.Client(base_url=server.url, trust_env=False, timeout=60) as client:
        names = list(factors) * 3
        np.random.default_rng(7).shuffle(names)

        def ask(name: str) -> None:
            nonlocal most
            right = answer(client, name, 2.0) == [2.0 * factors[name], factors[name]]
            outcomes["right" if right else "wrong"] += 1
            most = max(most, process.memory_info().rss - before)

        with ThreadPoolExecutor(4) as threads:
            list(threads.map(ask, names))
        assert outcomes == {"right": 3 * count}
        assert figure(client, "modelyard_model_sleeps_total", reason="room") >= count - 2 * at_once
        assert figure(client, "modelyard_model_memory_bytes") <= table.model_memory_bytes
    assert most < count * 8 * MIB / 2, "the memory of half of them, at most"


def test_a_model_is_never_let_go_while_it_is_asked(packages, servers, kit) -> None:
    """Two models, room for one, asked by turns from many threads: each answer is right, none is refused."""
    routes = [on_demand(kit, heavy(packages, kit, name, factor)) for name, factor in (("a", 1.0), ("b", 5.0))]
    server = servers.start(replace(kit.table(*routes), model_memory_bytes=12 * MIB))
    outcomes: Counter[str] = Counter()
    lock = threading.Lock()

    def ask(name: str, factor: float) -> None:
        with httpx.Client(base_url=server.url, trust_env=False, timeout=60) as client:
            for value in range(25):
                right = answer(client, name, value) == [factor * value, factor]
                with lock:
                    outcomes["right" if right else "wrong"] += 1

    threads = [threading.Thread(target=ask, args=pair) for pair in (("a", 1.0), ("b", 5.0)) * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == {"right": 150}


def test_a_model_that_cannot_be_loaded_says_so_and_is_tried_again(packages, servers, kit) -> None:
    package = packages.linear("broken")
    good = (package / "model.onnx").read_bytes()
    (package / "model.onnx").write_bytes(b"damaged")
    server = servers.start(kit.table(on_demand(kit, package)))
    with httpx.Client(base_url=server.url, trust_env=False, timeout=30) as client:
        refused = client.post("/v2/models/broken/infer", json=body(1))
        assert (refused.status_code, refused.json()["code"]) == (503, "not_ready")
        assert "cannot be loaded" in refused.json()["error"]
        (package / "model.onnx").write_bytes(good)
        assert answer(client, "broken") == [1.0, 1.0]


@pytest.mark.parametrize("budget", [1, 10**12])
def test_a_model_larger_than_the_budget_is_served_alone(packages, servers, kit, budget: int) -> None:
    server = servers.start(replace(kit.table(on_demand(kit, packages.linear("alone"))), model_memory_bytes=budget))
    with httpx.Client(base_url=server.url, trust_env=False, timeout=30) as client:
        assert answer(client, "alone") == [1.0, 1.0]


def test_a_model_that_takes_more_than_its_service_allows_is_refused_and_says_how_much(kit, packages, servers) -> None:
    package = heavy(packages, kit, "large", 1.0, mib=16)
    small, large = (kit.backend(package, memory_bytes=mib * MIB) for mib in (4, 512))
    server = servers.start(kit.table(kit.service("small", small), kit.service("large", large)))
    with server.client() as client:
        assert client.post("/v2/models/large/infer", json=kit.question()).status_code == 200
        refused = client.post("/v2/models/small/infer", json=kit.question())
    assert refused.status_code == 503
    assert "resources.memory allows 4 MiB" in refused.text
