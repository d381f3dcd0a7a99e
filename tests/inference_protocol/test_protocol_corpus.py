"""Every V2 and binary case of the corpus that the protocol decides, by its code."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from protocol_models import M1, MODELS

from modelyard.domain.errors import ModelyardError
from modelyard.inference.protocol import parse_json_size, read_infer, write_error

CORPUS = yaml.safe_load((Path(__file__).parents[1] / "corpora" / "bad_requests.yaml").read_text(encoding="utf-8"))
AT_THE_EDGE = {"S51", "S53", "S56", "S58", "S59", "S60", "N20"}


def cases() -> list[Any]:
    chosen = [case for case in CORPUS["cases"] if re.match(r"[SN]\d|R00[01]", case["id"])]
    return [pytest.param(case, id=case["id"]) for case in chosen if case["id"] not in AT_THE_EDGE]


def test_the_corpus_holds_the_cases_that_are_meant() -> None:
    assert len(cases()) >= 27


@pytest.mark.parametrize("case", cases())
def test_a_case_of_the_corpus_gets_its_code(case: dict[str, Any]) -> None:
    space: dict[str, Any] = {}
    exec(CORPUS["prelude"], space)
    message = eval(case["construct"], space)
    head, _, body = message.partition(b"\r\n\r\n")
    model = re.search(rb"/v2/models/([^/]+)/", head)
    size = re.search(rb"Inference-Header-Content-Length: (\S+)", head)
    assert model is not None
    want = case["expect"]["code"].lower()
    try:
        read_infer(body, json_size=parse_json_size(size[1]) if size else None, signature=MODELS[model[1].decode()])
        code = "ok"
    except ModelyardError as error:
        code = error.code
        status, document = write_error(error, request_id="r")
        assert status in case["expect"]["http"]
        assert len(error.detail) <= 500  # noqa: PT017  (either outcome may be right)
        assert len(document) < 4000
    assert code == want


def test_the_example_of_each_refusal_succeeds() -> None:
    import msgspec

    assert M1.example is not None
    read_infer(msgspec.json.encode(M1.example), json_size=None, signature=M1)
