"""Malformed V2 requests (the corpus's groups S and N) against a real server: status and code as listed, never a 500."""

import json
import os
import socket
from pathlib import Path

import httpx
import pytest
import yaml

from modelyard.domain.tensors import DataType

CORPUS = Path(__file__).parent.parent / "corpora" / "bad_requests.yaml"
NOT_OURS = {"S56": {"model_not_found"}, "S58": {"method_not_allowed"}, "S59": {"method_not_allowed"}}
"""Cases whose listed code is not one of the project's names: what we answer instead."""


def cases() -> list:
    document = yaml.safe_load(CORPUS.read_text())
    return [case for case in document["cases"] if case["id"] in {"R000", "R001", "R002"} or case["id"][0] in "SN"]


@pytest.fixture(scope="module")
def corpus() -> dict:
    document = yaml.safe_load(CORPUS.read_text())
    names: dict = {}
    exec(document["prelude"].replace("%%KEY%%", "none"), names)
    return names


@pytest.fixture(scope="module")
def server(tmp_path_factory, make_packages, make_servers, kit_functions):
    root = tmp_path_factory.mktemp("corpus")
    kit, packages = kit_functions, make_packages(root / "packages")
    spec = kit.spec
    loading = packages.linear("m_loading")
    (loading / "model.onnx").unlink()
    os.mkfifo(loading / "model.onnx")  # nobody ever writes: the load is blocked
    models = [
        packages.linear("m1"),
        packages.same("m_int8", spec("x", DataType.INT8, -1, 3)),
        packages.same("m_two", spec("x"), spec("z")),
        packages.same("m_bytes", spec("x", DataType.BYTES)),
        packages.same("m_bool", spec("x", DataType.BOOL)),
        loading,
    ]
    started = make_servers(root)
    table = kit.table(*(kit.service(each.name, kit.backend(each)) for each in models))
    yield started.start(table, wait_first_s=2.0)
    started.close()


def ask(port: int, data: bytes) -> tuple[int, dict, bytes]:
    """Status, headers and body of the one answer to `data`."""
    with socket.create_connection(("127.0.0.1", port), timeout=15) as client:
        client.sendall(data)
        received = b""
        while b"\r\n\r\n" not in received:
            part = client.recv(65536)
            assert part, "closed without an answer"
            received += part
        head, _, body = received.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        while len(body) < int(headers["content-length"]):
            body += client.recv(65536)
    return int(lines[0].split()[1]), headers, body


@pytest.mark.parametrize("case", cases(), ids=lambda case: case["id"])
def test_a_bad_request_is_answered_as_listed(case, server, corpus) -> None:
    data = eval(case["construct"], corpus)
    status, headers, body = ask(server.port, data)
    assert status in case["expect"]["http"], (status, body[:300])
    assert status != 500
    if status >= 400:
        document = json.loads(body)
        assert isinstance(document["error"], str)
        assert len(document["error"]) <= 500
        assert document["request_id"] == headers["x-request-id"]
        assert document["code"] in NOT_OURS.get(case["id"], {case["expect"]["code"].lower()}), document
        if status == 503:
            assert int(headers["retry-after"]) >= 1
        assert httpx.post(f"{server.url}/v2/models/m1/infer", content=corpus["GOOD"], trust_env=False).is_success, (
            "the server goes on"
        )


def test_the_account_of_the_corpus_adds_up(server) -> None:
    figures = server.figures()
    of = 'project="default",service="m1"'
    settled = sum(
        value
        for name, value in figures.items()
        if of in name
        and name.startswith(("modelyard_inputs_answered", "modelyard_inputs_rejected", "modelyard_inputs_lost"))
    )
    assert figures[f"modelyard_inputs_received_total{{{of}}}"] == settled
    assert figures[f"modelyard_inputs_in_flight{{{of}}}"] == 0
