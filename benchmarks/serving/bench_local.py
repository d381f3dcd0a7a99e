"""What the data plane costs over a bare echo on the same edge: paired rounds with wrk, ratios printed.

    python benchmarks/serving/bench_local.py [--rounds 5] [--seconds 2] [--connections 64]

Needs wrk. The server runs on the first core and the load on the last one. S is a 4→16→3 network, M 256→1024→1024→10.
Everything is on: key check, limits, metrics, access log and response headers; `open` is without key, limits and access
log. Bodies differ from request to request.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import psutil
from onnx import TensorProto, helper, numpy_helper

from modelyard.domain.access import KeyRecord, Scope, Verb, key_id, key_mac, make_key
from modelyard.domain.contract import ModelContract, ModelFormat, ServingPackage
from modelyard.domain.routing import Backend, Limits, RoutingTable, ServiceRoute
from modelyard.domain.tensors import DataType, TensorSpec
from modelyard.foundation.documents import to_json, write_package

ECHO = """
import os, sys
from modelyard.foundation.http import run, serve
class Echo:
    def handle(self, request, reply):
        reply.send(200, b'{"outputs":[]}')
async def main():
    import asyncio
    listener = await serve(Echo(), address=("127.0.0.1", 0))
    print(listener.port, flush=True)
    await asyncio.Event().wait()
run(main())
"""
SIZES = {"s": [4, 16, 3], "m": [256, 1024, 1024, 10]}


def write_model(directory: Path, sizes: list[int]) -> None:
    directory.mkdir(parents=True)
    random = np.random.default_rng(0)
    nodes, constants, current = [], [], "x"
    for index, (before, after) in enumerate(pairwise(sizes)):
        last = index == len(sizes) - 2
        weights = (random.standard_normal((before, after)) / before**0.5).astype("f4")
        constants.append(numpy_helper.from_array(weights, f"w{index}"))
        nodes.append(helper.make_node("MatMul", [current, f"w{index}"], ["y" if last else f"m{index}"]))
        if not last:
            nodes.append(helper.make_node("Relu", [f"m{index}"], [f"h{index}"]))
        current = f"h{index}"
    ends = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size])]
        for name, size in (("x", sizes[0]), ("y", sizes[-1]))
    ]
    graph = helper.make_graph(nodes, "g", *ends, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(directory / "model.onnx"))
    contract = ModelContract(
        inputs=(TensorSpec(name="x", datatype=DataType.FP32, shape=(-1, sizes[0])),),
        outputs=(TensorSpec(name="y", datatype=DataType.FP32, shape=(-1, sizes[-1])),),
        max_batch_size=1024,
    )
    package = ServingPackage(
        name=directory.name,
        digest=f"sha256:{directory.name}",
        format=ModelFormat.ONNX,
        runtime="onnxruntime",
        entry="model.onnx",
        platform="onnx_onnxv1",
        contract=contract,
    )
    write_package(directory, package)


def write_script(path: Path, width: int, key: str | None) -> None:
    bodies = []
    random = np.random.default_rng(1)
    for _ in range(256):
        data = [round(float(value), 4) for value in random.standard_normal(width)]
        bodies.append(json.dumps({"inputs": [{"name": "x", "shape": [1, width], "datatype": "FP32", "data": data}]}))
    path.write_text(
        'wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/json"\n'
        + (f'wrk.headers["Authorization"] = "Bearer {key}"\n' if key else "")
        + "local bodies = {"
        + ",".join(f"'{body}'" for body in bodies)
        + "}\nlocal made, at = {}, 0\n"
        + "function init(args) for i, b in ipairs(bodies) do made[i] = wrk.format(nil, nil, nil, b) end end\n"
        + "function request() at = at % #made + 1; return made[at] end\n"
    )


def start_server(root: Path, name: str, *, key: str | None) -> tuple[subprocess.Popen, int, float]:
    limits = Limits(requests_per_s=1e9, max_in_flight=100_000) if key else Limits()
    services = tuple(
        ServiceRoute(
            name=size,
            revision=1,
            limits=limits,
            backends=(Backend(model=size, version="1", digest=f"sha256:{size}", package=str(root / size), revision=1),),
        )
        for size in SIZES
    )
    keys: tuple[KeyRecord, ...] = ()
    pepper = root / "pepper"
    pepper.write_text("ab" * 32)
    pepper.chmod(0o600)
    if key:
        mac = key_mac(key, pepper=bytes.fromhex("ab" * 32))
        keys = (KeyRecord(id=key_id(key) or "", mac=mac, name="bench", scopes=(Scope(Verb.INFER),)),)
    table = root / f"{name}.table"
    table.write_bytes(to_json(RoutingTable(revision=1, services=services, keys=keys, auth_required=bool(key))))
    config: dict[str, object] = {
        "id": name,
        "table": {"static": str(table)},
        "port": 0,
        "pepper": str(pepper),
        "metrics": str(root / f"{name}.metrics"),
        "address_file": str(root / f"{name}.address"),
        "log_level": "warning",
    }
    if key:
        config["access_log"] = str(root / "access.log")
    settings = root / f"{name}.json"
    settings.write_text(json.dumps(config))
    read_fd, write_fd = os.pipe()
    began = time.perf_counter()
    command = [sys.executable, "-m", "modelyard.processes.model_server", "--config", str(settings)]
    process = subprocess.Popen([*command, "--ready-fd", str(write_fd)], pass_fds=(write_fd,))
    os.close(write_fd)
    os.read(read_fd, 100)
    took = time.perf_counter() - began
    return process, int((root / f"{name}.address").read_text().split()[0].rsplit(":", 1)[1]), took


def start_echo() -> tuple[subprocess.Popen, int]:
    process = subprocess.Popen([sys.executable, "-c", ECHO], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def load(port: int, path: str, script: Path, *, connections: int, seconds: int) -> float:
    """Requests a second; ends the program when one was not answered 2xx."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}", "-s", str(script), f"http://127.0.0.1:{port}{path}"]
    cores = os.cpu_count() or 1
    if cores > 1:
        command = ["taskset", "-c", str(cores - 1), *command]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in text or "Socket errors" in text:
        sys.exit(f"not every request was answered:\n{text}")
    found = re.search(r"Requests/sec:\s+([\d.]+)", text)
    assert found is not None, text
    return float(found[1])


def show(rates: Mapping[str, list[float]], cpu: Mapping[str, list[float]]) -> None:
    print(f"{'case':<10}{'req/s':>10}{'× echo':>10}{'spread':>16}{'CPU µs':>10}")
    for case, each in rates.items():
        size = case.split()[0]
        ratios = [rate / echo for rate, echo in zip(each, rates[f"{size} echo"], strict=True)]
        spread = f"{min(ratios):.2f}…{max(ratios):.2f}"
        print(
            f"{case:<10}{statistics.median(each):>10.0f}{statistics.median(ratios):>10.2f}{spread:>16}"
            f"{statistics.median(cpu[case]):>10.1f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--connections", type=int, default=64)
    given = parser.parse_args()
    key = make_key()
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        for name, sizes in SIZES.items():
            write_model(root / name, sizes)
        started: list[subprocess.Popen] = []
        try:
            echo, echo_port = start_echo()
            started.append(echo)
            whole, whole_port, took = start_server(root, "whole", key=key)
            started.append(whole)
            plain, plain_port, _ = start_server(root, "plain", key=None)
            started.append(plain)
            memory = psutil.Process(whole.pid).memory_info().rss / 2**20
            if (os.cpu_count() or 1) > 1:
                for process in started:
                    psutil.Process(process.pid).cpu_affinity([0])
            rates: dict[str, list[float]] = {}
            cpu: dict[str, list[float]] = {}
            for _ in range(given.rounds):
                for size, sizes in SIZES.items():
                    for kind, process, port in (
                        ("echo", echo, echo_port),
                        ("all on", whole, whole_port),
                        ("open", plain, plain_port),
                    ):
                        script = root / f"{size}-{kind}.lua"
                        write_script(script, sizes[0], key if kind != "open" else None)
                        before = sum(psutil.Process(process.pid).cpu_times()[:2])
                        rate = load(
                            port,
                            f"/v2/models/{size}/infer",
                            script,
                            connections=given.connections,
                            seconds=given.seconds,
                        )
                        spent = sum(psutil.Process(process.pid).cpu_times()[:2]) - before
                        rates.setdefault(f"{size} {kind}", []).append(rate)
                        cpu.setdefault(f"{size} {kind}", []).append(spent / (rate * given.seconds) * 1e6)
            print(
                f"start to ready {took:.2f} s, resident {memory:.0f} MiB with two models, "
                f"{given.connections} connections"
            )
            show(rates, cpu)
        finally:
            for process in started:
                process.kill()
                process.wait()


if __name__ == "__main__":
    main()
