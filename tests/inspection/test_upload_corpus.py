"""Every bundle of the corpus gets its listed answer; nothing is executed, nothing is left."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from modelyard.domain.report import Outcome, Verdict
from modelyard.inspection import Inspection

CASES = [
    case
    for case in yaml.safe_load((Path(__file__).parents[1] / "corpora" / "bad_uploads.yaml").read_text())["cases"]
    if case["kind"] == "bundle"
]
REFUSED = [case for case in CASES if case["id"] not in {"U000", "C20"}]


HUGE = {"G05", "H14", "D10", "F17", "E18"}
"""Cases whose files take longest to build."""


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=[pytest.mark.slow] if case["id"] in HUGE else [], id=case["id"]) for case in REFUSED],
)
def test_a_bad_bundle_is_refused_with_its_code_and_nothing_runs(
    case: dict[str, Any], corpus: Callable[[str], Any], inspect: Callable[..., Inspection], tmp_path: Path
) -> None:
    done = inspect(corpus(case["construct"]))
    refusal = done.report.refusal
    assert refusal is not None
    assert refusal.code == case["expect"]["code"].lower()
    assert done.report.verdict is Verdict.REFUSED
    assert done.package_dir is None
    assert done.report.checks[-1].outcome is Outcome.FAILED
    assert len(refusal.detail) <= 500
    assert refusal.detail.isprintable()
    assert list((tmp_path / "canary").iterdir()) == []


@pytest.mark.parametrize("case_id", ["U000", "C20"])
def test_a_good_bundle_of_the_corpus_is_approved(
    case_id: str, corpus: Callable[[str], Any], inspect: Callable[..., Inspection]
) -> None:
    case = next(case for case in CASES if case["id"] == case_id)
    done = inspect(corpus(case["construct"]))
    assert done.report.refusal is None, done.report.refusal
    assert done.report.verdict is Verdict.APPROVED
    assert done.package_dir is not None
    assert (done.package_dir / "package.json").is_file()


def test_fifty_thousand_empty_tensors_are_more_than_an_audit_looks_at(
    corpus: Callable[[str], Any], inspect: Callable[..., Inspection]
) -> None:
    done = inspect(corpus("bundle(w=st({'t%d' % i: T('F32', [0], 0, 0) for i in range(50000)}))"))
    assert done.report.refusal is not None
    assert done.report.refusal.code == "audit_timeout"
