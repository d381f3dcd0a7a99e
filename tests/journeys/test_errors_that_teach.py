"""Every refusal of the inference listener, asked of real served models: what it says, and that its example succeeds.

Refusals are made by changing a request that succeeds in one way. Each must be a 4xx with a code, the culprit, what was
expected and what came, and an example that is answered with 200 when it is sent exactly as it was given.
"""

import copy
import json
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
import pytest
from stranger_models import (
    Stranger,
    frame_pipeline,
    joblib_classifier,
    lightgbm_text,
    make,
    onnx_file,
    original_pipeline,
)

from modelyard.testing.platform import serving

pytestmark = [pytest.mark.platform, pytest.mark.slow]
BUILDERS = (joblib_classifier, frame_pipeline, lightgbm_text, onnx_file, original_pipeline)
KINDS = [builder.__name__ for builder in BUILDERS]
Body = dict[str, Any]


@dataclass
class Asked:
    """A served model with a request that succeeds."""

    model: Stranger
    url: str
    metadata: Body
    client: httpx.Client

    @property
    def base(self) -> str:
        return self.url.split("/v2/", 1)[0]

    @property
    def name(self) -> str:
        return self.url.rsplit("/", 1)[1]

    def good(self, rows: int = 2) -> Body:
        """A V2 request of that many rows."""
        inputs = copy.deepcopy(self.model.inputs)
        for tensor in inputs:
            width = len(tensor["data"]) // tensor["shape"][0]
            tensor["data"] = tensor["data"][: rows * width]
            tensor["shape"][0] = rows
        return {"inputs": inputs}

    def rows(self, count: int = 2) -> list[Any]:
        """The same as V1 instances."""
        inputs = self.good(count)["inputs"]
        if len(inputs) == 1:
            return np.array(inputs[0]["data"]).reshape(inputs[0]["shape"]).tolist()
        return [{tensor["name"]: tensor["data"][row] for tensor in inputs} for row in range(count)]

    def post(self, path: str, content: bytes, **headers: str) -> httpx.Response:
        sent = {"content-type": "application/json", **{k.replace("_", "-"): v for k, v in headers.items()}}
        return self.client.post(self.base + path, content=content, headers=sent)


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Asked]]:
    root = tmp_path_factory.mktemp("teaching")
    with ExitStack() as stack, ThreadPoolExecutor(3) as pool:
        client = stack.enter_context(httpx.Client(trust_env=False, timeout=20))

        def start(kind: str) -> Asked:
            model = make(next(builder for builder in BUILDERS if builder.__name__ == kind), root / kind)
            context = serving(model.path, root / kind, *model.options)
            running = context.__enter__()
            stack.push(context)
            return Asked(model, running.url, client.get(running.url).json(), client)

        yield dict(zip(KINDS, pool.map(start, KINDS), strict=True))


# Ways to spoil a V2 request: what is done to it, and the code that must come of it. None: it does not apply.


def unknown_input(body: Body) -> str | None:
    body["inputs"][0]["name"] += "_typo"
    return "unknown_input"


def missing_input(body: Body) -> str | None:
    if len(body["inputs"]) == 1:
        return None
    del body["inputs"][-1]
    return "missing_input"


def no_inputs(body: Body) -> str | None:
    del body["inputs"]
    return "bad_request"


def input_twice(body: Body) -> str | None:
    body["inputs"].append(body["inputs"][0])
    return "bad_request"


def wrong_width(body: Body) -> str | None:
    tensor = body["inputs"][0]
    tensor["shape"][1] += 1
    tensor["data"] = [tensor["data"][0]] * (tensor["shape"][0] * tensor["shape"][1])
    return "shape_mismatch"


def wrong_rank(body: Body) -> str | None:
    body["inputs"][0]["shape"].append(1)
    return "shape_mismatch"


def negative_size(body: Body) -> str | None:
    body["inputs"][0]["shape"][0] = -1
    return "bad_shape"


def no_rows(body: Body) -> str | None:
    body["inputs"][0]["shape"][0] = 0
    body["inputs"][0]["data"] = []
    return "bad_shape"


def shape_is_a_number(body: Body) -> str | None:
    body["inputs"][0]["shape"] = 4
    return "bad_shape"


def rows_differ(body: Body) -> str | None:
    if len(body["inputs"]) == 1:
        return None
    tensor = body["inputs"][-1]
    tensor["shape"][0] = 1
    tensor["data"] = tensor["data"][:1]
    return "shape_mismatch"


def too_few_values(body: Body) -> str | None:
    del body["inputs"][0]["data"][-1]
    return "size_mismatch"


def no_data(body: Body) -> str | None:
    del body["inputs"][0]["data"]
    return "size_mismatch"


def data_is_text(body: Body) -> str | None:
    body["inputs"][0]["data"] = "1,2,3"
    return "bad_data"


def wrong_datatype(body: Body) -> str | None:
    body["inputs"][0]["datatype"] = "INT64"
    return "bad_datatype"


def unheard_datatype(body: Body) -> str | None:
    body["inputs"][0]["datatype"] = "FLOAT"
    return "bad_datatype"


def text_for_a_number(body: Body) -> str | None:
    body["inputs"][-1]["data"][1] = "three"
    return "bad_data"


def number_for_a_text(body: Body) -> str | None:
    if body["inputs"][0]["datatype"] != "BYTES":
        return None
    body["inputs"][0]["data"][1] = 3
    return "bad_data"


def ragged(body: Body) -> str | None:
    body["inputs"][0]["data"] = [[body["inputs"][0]["data"][0]], [1, 2, 3, 4, 5, 6]]
    return "bad_data"


def too_large(body: Body) -> str | None:
    if body["inputs"][-1]["datatype"] != "FP32":
        return None
    body["inputs"][-1]["data"][1] = 1e39
    return "bad_data"


def unknown_category(body: Body) -> str | None:
    if body["inputs"][0]["datatype"] != "BYTES":
        return None
    body["inputs"][0]["data"][1] = "Atlantis"
    return "unknown_category"


def unknown_output(body: Body) -> str | None:
    body["outputs"] = [{"name": "nope"}]
    return "unknown_output"


def binary_without_its_header(body: Body) -> str | None:
    tensor = body["inputs"][0]
    del tensor["data"]
    tensor["parameters"] = {"binary_data_size": 4}
    return "bad_binary"


def id_is_a_list(body: Body) -> str | None:
    body["id"] = [1]
    return "bad_request"


def priority_is_text(body: Body) -> str | None:
    body["parameters"] = {"priority": "high"}
    return "bad_request"


SPOILERS: tuple[Callable[[Body], str | None], ...] = (
    unknown_input,
    missing_input,
    no_inputs,
    input_twice,
    wrong_width,
    wrong_rank,
    negative_size,
    no_rows,
    shape_is_a_number,
    rows_differ,
    too_few_values,
    no_data,
    data_is_text,
    wrong_datatype,
    unheard_datatype,
    text_for_a_number,
    number_for_a_text,
    ragged,
    too_large,
    unknown_category,
    unknown_output,
    binary_without_its_header,
    id_is_a_list,
    priority_is_text,
)


@pytest.mark.parametrize("spoil", SPOILERS, ids=lambda spoil: spoil.__name__)
@pytest.mark.parametrize("kind", KINDS)
def test_a_spoilt_v2_request_is_explained(asked: dict[str, Asked], kind: str, spoil: Callable) -> None:
    one = asked[kind]
    body = one.good()
    code = spoil(body)
    if code is None:
        return  # this model has nothing that could be spoilt so
    path = f"/v2/models/{one.name}/infer"
    _explained(one, path, one.post(path, json.dumps(body).encode()), {code})


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_json_is_explained(asked: dict[str, Asked], kind: str) -> None:
    one = asked[kind]
    path = f"/v2/models/{one.name}/infer"
    whole = json.dumps(one.good()).encode()
    for body in (b"", b"{", whole[:-1], whole + b"}", b"\xff\xfe", b"[" * 5000, whole.replace(b":", b"=", 1)):
        _explained(one, path, one.post(path, body), {"bad_json"}, culprit=False)
    for body in (b"null", b"[]", b'"text"', b"7"):
        _explained(one, path, one.post(path, body), {"bad_request"})
    _explained(one, path, one.post(path, b'{"id":"a",' + whole[1:-1] + b',"id":"b"}'), {"bad_json"}, culprit=False)


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_value_is_refused_where_the_model_cannot_take_it(asked: dict[str, Asked], kind: str) -> None:
    one = asked[kind]
    path = f"/v2/models/{one.name}/infer"
    body = one.good()
    body["inputs"][-1]["data"][1] = None
    takes_it = kind in {"lightgbm_text", "frame_pipeline"}
    answer = one.post(path, json.dumps(body).encode())
    if takes_it:
        assert answer.status_code == 200, answer.text
    else:
        found = _explained(one, path, answer, {"bad_data"})
        assert found["details"][0]["row"] == 0
    literal = json.dumps(body).replace("null", "NaN").encode()
    _explained(one, path, one.post(path, literal), {"bad_json"}, culprit=False)


@pytest.mark.parametrize("kind", KINDS)
def test_spoilt_binary_tensors_are_explained(asked: dict[str, Asked], kind: str) -> None:
    one = asked[kind]
    path = f"/v2/models/{one.name}/infer"
    body = one.good()
    tensor = body["inputs"][-1]
    code = {"FP32": "f", "FP64": "d"}[tensor["datatype"]]
    data = struct.pack(f"<{len(tensor['data'])}{code}", *tensor.pop("data"))

    def send(size: object, content: bytes, length: str | None = None) -> httpx.Response:
        tensor["parameters"] = {"binary_data_size": size}
        head = json.dumps(body).encode()
        return one.post(
            path,
            head + content,
            content_type="application/octet-stream",
            inference_header_content_length=str(len(head)) if length is None else length,
        )

    assert send(len(data), data).status_code == 200
    _explained(one, path, send(len(data) + 4, data), {"size_mismatch"})
    _explained(one, path, send(len(data) - 4, data[:-4]), {"size_mismatch"})
    _explained(one, path, send(-1, data), {"bad_binary"})
    _explained(one, path, send("12", data), {"bad_binary"})
    _explained(one, path, send(len(data), data + b"more"), {"bad_binary"})
    for length in ("-1", "1000000", "x", str(2**64)):
        _explained(one, path, send(len(data), data, length), {"bad_binary"}, culprit=False)
    infinite = struct.pack(f"<{code}", float("inf")) + data[struct.calcsize(code) :]
    _explained(one, path, send(len(infinite), infinite), {"bad_data"})


@pytest.mark.parametrize("kind", KINDS)
def test_spoilt_v1_requests_are_explained(asked: dict[str, Asked], kind: str) -> None:
    one = asked[kind]
    path = f"/v1/models/{one.name}:predict"
    rows = one.rows()
    assert one.post(path, json.dumps({"instances": rows}).encode()).status_code == 200
    for body, codes in (
        ({}, {"bad_request"}),
        ([], {"bad_request"}),
        ({"instances": 5}, {"bad_data"}),
        ({"instances": []}, {"bad_shape", "bad_data"}),
        ({"instances": [rows[0], 7]}, {"bad_data", "shape_mismatch"}),
        ({"instances": [{"nobody": 1}, {"nobody": 2}]}, {"unknown_input"}),
        ({"instances": [_widened(rows[0])] * 2}, {"shape_mismatch", "unknown_input"}),
        ({"instances": _with_text(rows)}, {"bad_data"}),
    ):
        _explained(one, path, one.post(path, json.dumps(body).encode()), codes)


@pytest.mark.parametrize("kind", KINDS)
def test_spoilt_mlflow_requests_are_explained(asked: dict[str, Asked], kind: str) -> None:
    one = asked[kind]
    rows = one.rows()
    assert one.post("/invocations", json.dumps({"instances": rows}).encode()).status_code == 200
    for body, codes in (
        ({}, {"bad_request"}),
        ({"instances": rows, "inputs": rows}, {"bad_request"}),
        ({"instances": _with_text(rows)}, {"bad_data"}),
        ({"dataframe_split": {"columns": ["a"], "data": [[1, 2]]}}, {"bad_data"}),
        ({"dataframe_split": 5}, {"bad_request"}),
        ({"dataframe_records": [{"nobody": 1}]}, {"unknown_input", "missing_input"}),
        ({"dataframe_records": [1]}, {"bad_request"}),
        ({"inputs": {"nobody": [1]}}, {"unknown_input"}),
    ):
        _explained(one, "/invocations", one.post("/invocations", json.dumps(body).encode()), codes)
    for text in (b"", b"a,b\n", b"a,b\n1\n"):
        answer = one.post("/invocations", text, content_type="text/csv")
        _explained(one, "/invocations", answer, {"bad_request", "bad_data"})


def test_what_is_not_there_is_named(asked: dict[str, Asked]) -> None:
    one = asked["joblib_classifier"]
    body = json.dumps(one.good()).encode()
    for path, code in (
        ("/v2/models/nobody/infer", "model_not_found"),
        (f"/v2/models/{one.name}x/infer", "model_not_found"),
        ("/v1/models/nobody:predict", "model_not_found"),
        (f"/v2/models/{one.name}/versions/99/infer", "version_not_found"),
        (f"/v2/models/{one.name}/nothing", "route_not_found"),
    ):
        answer = one.post(path, body)
        assert answer.status_code == 404, answer.text
        found = answer.json()
        assert found["code"] == code
        assert found["hint"]
        if code == "model_not_found":
            assert found["details"][0]["expected"] == [one.name]
        if code == "version_not_found":
            assert found["details"] == [{"field": "version", "expected": ["1"], "received": "'99'"}]


def test_shared_memory_is_declined_with_a_request_that_works(asked: dict[str, Asked]) -> None:
    one = asked["joblib_classifier"]
    body = one.good()
    body["inputs"][0]["parameters"] = {"shared_memory_region": "r"}
    path = f"/v2/models/{one.name}/infer"
    answer = one.post(path, json.dumps(body).encode())
    assert (answer.status_code, answer.json()["code"]) == (501, "not_supported")
    assert one.post(path, json.dumps(answer.json()["example"]).encode()).status_code == 200


def test_other_refusals_say_what_to_do(asked: dict[str, Asked]) -> None:
    one = asked["joblib_classifier"]
    path = f"/v2/models/{one.name}/infer"
    body = json.dumps(one.good()).encode()
    for answer, status, code in (
        (one.client.get(one.base + path), 405, "method_not_allowed"),
        (one.post(path, body, content_type="text/plain"), 415, "unsupported_type"),
        (one.post(path, body, accept="text/csv"), 406, "not_acceptable"),
        (one.post(path, body, content_encoding="br"), 415, "unsupported_encoding"),
        (one.post(path, b" " * (65 << 20)), 413, "body_too_large"),
        (one.client.get(one.base + "/v2/health/live", headers={"host": "evil.example"}), 421, "bad_host"),
    ):
        found = answer.json()
        assert (answer.status_code, found["code"]) == (status, code), found
        assert found["error"]
        assert found["request_id"] == answer.headers["x-request-id"]


def _widened(row: Any) -> Any:
    return {**row, "extra": 1} if isinstance(row, dict) else [*row, row[0]]


def _with_text(rows: list[Any]) -> list[Any]:
    spoilt = copy.deepcopy(rows)
    key = next(reversed(spoilt[1])) if isinstance(spoilt[1], dict) else 0
    spoilt[1][key] = "three"
    return spoilt


def _explained(
    one: Asked, path: str, answer: httpx.Response, codes: set[str], *, culprit: bool = True
) -> dict[str, Any]:
    """What every refusal owes."""
    assert answer.status_code == 400, (answer.status_code, answer.text[:500])
    found: dict[str, Any] = answer.json()
    assert found["code"] in codes, found
    assert 0 < len(found["error"]) <= 500
    assert found["request_id"] == answer.headers["x-request-id"]
    assert found["hint"]
    if culprit:
        detail = found["details"][0]
        assert detail.keys() & {"input", "output", "field", "row", "expected"}, found
        assert "expected" in detail, found
        if codes <= {"bad_data", "unknown_category"} and "row" in detail:
            assert isinstance(detail["row"], int)
    again = one.post(path, json.dumps(found["example"]).encode())
    assert again.status_code == 200, (found, again.text)
    return found
