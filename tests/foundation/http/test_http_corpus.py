"""Every transport and smuggling case of the corpus, sent to a real listener over a real socket."""

from pathlib import Path

import pytest
import yaml

CORPUS = yaml.safe_load((Path(__file__).parents[2] / "corpora" / "bad_requests.yaml").read_text())
NAMES: dict = {}
exec(CORPUS["prelude"], NAMES)
CASES = [
    case
    for case in CORPUS["cases"]
    if case["group"] in {"transport", "smuggling", "control"} or case["id"] in {"S51", "S59"}
    if case["kind"] != "scenario"
]
EDGE_CODES = {"bad_framing", "bad_host", "headers_too_large", "uri_too_long", "bad_header", "unsupported_encoding"}


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_the_case_is_answered_as_listed(case, edge):
    construct = eval(case["construct"], NAMES)
    pieces = [data for data, _ in construct] if isinstance(construct, list) else [construct]
    answers = 2 if case["id"] == "D18" else 1
    if case["id"] == "T04":
        pieces = pieces[:10]

    talk = edge.talk(*pieces, answers=answers, linger=0.15)

    expect = case["expect"]
    if expect["http"]:
        assert talk.statuses, "no answer"
        assert all(status in expect["http"] for status in talk.statuses)
        assert len(talk.statuses) == answers
    else:
        assert talk.statuses == []
    if expect["connection"] == "close":
        assert closes(edge, pieces, talk)
    assert b"smuggled" not in talk.raw
    assert all("smuggled" not in path for _, path, _ in edge.handler.seen)
    code = expect["code"].lower()
    if code in EDGE_CODES and talk.statuses and talk.statuses[0] != 200:
        assert f'"code":"{code}"'.encode() in talk.raw
    good = edge.talk(eval("J(Q())", NAMES))
    assert good.statuses == [200]


def closes(edge, pieces, talk):
    return talk.closed or edge.talk(*pieces, answers=1, linger=1.0).closed
