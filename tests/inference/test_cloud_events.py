"""CloudEvents on the prediction addresses, with the official SDK as the client."""

import base64
import json
import re

import numpy as np
import pytest
from cloudevents.core.bindings.http import (
    HTTPMessage,
    from_http_event,
    to_binary_event,
    to_structured_event,
)
from cloudevents.core.v1.event import CloudEvent

INFER, PREDICT = "/v2/models/m1/infer", "/v1/models/m1:predict"
RESPONSE = "org.kubeflow.serving.inference.response"
MADE = {"binary": to_binary_event, "structured": to_structured_event}


@pytest.fixture(scope="module")
def server(tmp_path_factory, make_packages, make_servers, kit_functions):
    root = tmp_path_factory.mktemp("events")
    package = make_packages(root / "packages").linear("m1", scale=2.0)
    started = make_servers(root)
    yield started.start(kit_functions.table(kit_functions.service("m1", kit_functions.backend(package))))
    started.close()


def event(data: object, **more: str) -> CloudEvent:
    attributes = {"type": "org.kubeflow.serving.inference.request", "source": "https://shop.example/carts", "id": "a-1"}
    return CloudEvent({**attributes, "datacontenttype": "application/json", **more}, data)


def send(server, message: HTTPMessage, path: str = INFER) -> tuple[int, HTTPMessage]:
    with server.client() as client:
        answer = client.post(path, content=message.body, headers=dict(message.headers))
        return answer.status_code, HTTPMessage(dict(answer.headers), answer.content)


@pytest.mark.parametrize("mode", MADE)
def test_an_event_is_answered_by_an_event_with_its_id(server, kit, mode) -> None:
    for identity in ("a-1", 'Bücher 100 % "q"', "7"):
        status, message = send(server, MADE[mode](event(kit.question(id="mine"), id=identity)))
        assert status == 200, message.body
        answer = from_http_event(message)
        assert answer.get_id() == identity
        assert answer.get_type() == RESPONSE
        assert answer.get_source() == "/p/default/v2/models/m1"
        assert answer.get_specversion() == "1.0"
        assert answer.get_time() is not None
        assert answer.get_extension("inferenceservicename") == "m1"
        data = answer.get_data()
        assert (data["id"], data["outputs"][0]["data"]) == ("mine", [2.0, 4.0])
        assert message.headers["x-model-version"] == "1"


@pytest.mark.parametrize("mode", MADE)
def test_an_event_may_ask_in_v1(server, mode) -> None:
    status, message = send(server, MADE[mode](event({"instances": [[1, 2, 3]]})), PREDICT)
    assert status == 200
    assert from_http_event(message).get_data() == {"predictions": [[2.0, 4.0]]}


@pytest.mark.parametrize("mode", MADE)
def test_a_refusal_is_an_event_of_its_own_type(server, mode) -> None:
    status, message = send(server, MADE[mode](event({"inputs": []})))
    assert status == 400
    answer = from_http_event(message)
    assert (answer.get_id(), answer.get_type()) == ("a-1", "org.kubeflow.serving.inference.error")
    assert answer.get_data()["code"] == "missing_input"


def test_an_event_may_carry_binary_tensors_and_asks_for_them(server) -> None:
    values = np.array([[1, 2, 3]], dtype="<f4").tobytes()
    tensor = {"name": "x", "shape": [1, 3], "datatype": "FP32", "parameters": {"binary_data_size": len(values)}}
    text = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    plain = event(text + values, datacontenttype="application/octet-stream")
    for mode, made in MADE.items():
        message = made(plain)
        message.headers["inference-header-content-length"] = str(len(text))
        status, answer = send(server, message)
        assert status == 200, answer.body
        size = int(answer.headers["inference-header-content-length"])
        data = answer.body if mode == "binary" else base64.b64decode(json.loads(answer.body)["data_base64"])
        assert np.frombuffer(data[size:], "<f4").tolist() == [2.0, 4.0]


GOOD = {"specversion": "1.0", "id": "1", "source": "/x", "type": "t"}


@pytest.mark.parametrize(
    "change",
    [
        {"specversion": None},
        {"specversion": "0.3"},
        {"specversion": "1.1"},
        {"id": None},
        {"id": ""},
        {"source": None},
        {"source": "not a uri"},
        {"type": None},
        {"type": ""},
        {"time": "yesterday"},
        {"Bad-Name": "x"},
        {"long": "x" * 3000},
    ],
)
def test_an_event_that_is_none_is_refused_clearly(server, kit, change) -> None:
    attributes = {name: value for name, value in {**GOOD, **change}.items() if value is not None}
    structured = json.dumps({**attributes, "data": kit.question()}).encode()
    with server.client() as client:
        answers = [client.post(INFER, content=structured, headers={"content-type": "application/cloudevents+json"})]
        if "specversion" in attributes:  # without it, it is no event but a request with headers
            headers = {f"ce-{name}": value for name, value in attributes.items()}
            answers.append(client.post(INFER, json=kit.question(), headers=headers))
    for answer in answers:
        assert answer.status_code == 400, answer.text
        document = answer.json()
        assert document["code"] == "bad_event"
        assert re.search(r"specversion|id|source|type|time|Bad-Name|bad-name|long", document["error"])


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "bad_event"),
        (b"[]", "bad_event"),
        (b'{"specversion":"1.0","specversion":"1.0"}', "bad_event"),
        (json.dumps(GOOD).encode(), "bad_event"),
        (json.dumps({**GOOD, "data": {}, "data_base64": ""}).encode(), "bad_event"),
        (json.dumps({**GOOD, "data_base64": "***"}).encode(), "bad_event"),
        (json.dumps({**GOOD, "data_base64": 7}).encode(), "bad_event"),
        (json.dumps({**GOOD, "data": {}, "ext": {"a": 1}}).encode(), "bad_event"),
        (json.dumps({**GOOD, "data": {}, "datacontenttype": "text/plain"}).encode(), "unsupported_type"),
    ],
)
def test_a_structured_event_that_is_none_is_refused(server, body, code) -> None:
    with server.client() as client:
        answer = client.post(INFER, content=body, headers={"content-type": "application/cloudevents+json"})
    assert answer.status_code in (400, 415)
    found = answer.json()
    assert (found.get("data") or found)["code"] == code


def test_a_batch_of_events_is_not_taken(server) -> None:
    with server.client() as client:
        answer = client.post(INFER, content=b"[]", headers={"content-type": "application/cloudevents-batch+json"})
    assert answer.status_code == 415


def test_every_event_is_in_the_account(server, kit) -> None:
    of = 'project="default",service="m1"'
    figures = server.figures()
    settled = sum(
        value
        for name, value in figures.items()
        if of in name and name.startswith(("modelyard_inputs_answered", "modelyard_inputs_rejected"))
    )
    assert figures[f"modelyard_inputs_received_total{{{of}}}"] == settled
    assert figures[f"modelyard_inputs_in_flight{{{of}}}"] == 0
