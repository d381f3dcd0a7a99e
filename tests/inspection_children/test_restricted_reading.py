"""Pickles and skops files are read by one table of types; nothing that they name is executed, here or in a child."""

import bz2
import gzip
import io
import lzma
import os
import pickle
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from conversion import convert_file
from joblib.numpy_pickle import NumpyArrayWrapper
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import FunctionTransformer

from modelyard.domain.contract import ModelFormat
from modelyard.domain.errors.uploads import UploadRefused, WeightsFormat, WeightsUnsafe
from modelyard.domain.report import Outcome
from modelyard.inspection.child import ChildLimits, ConvertJob, convert
from modelyard.inspection.children.bounds import check
from modelyard.inspection.children.skops_file import read_skops
from modelyard.inspection.children.unpickle import read_estimator, read_stream

X, Y = load_iris(return_X_y=True)


class Calls:
    """Pickles as a call of anything."""

    def __init__(self, function: Callable[..., Any], *arguments: object) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, ...]]:
        return self.function, self.arguments


class OwnClassifier(ClassifierMixin, BaseEstimator):
    """A class of the author's own."""


def hostile(canary: Path) -> dict[str, object]:
    touch = f"touch {canary}"
    code = f"open({str(canary)!r}, 'w').close()"
    model = LogisticRegression()
    model.coef_ = Calls(os.system, touch)
    inside_array = LogisticRegression()
    inside_array.coef_ = np.array([Calls(exec, code)], dtype=object)
    return {
        "system": Calls(os.system, touch),
        "popen": Calls(subprocess.Popen, ["touch", str(canary)]),
        "eval": Calls(eval, code),
        "exec": Calls(exec, code),
        "getattr": Calls(getattr, "text", "upper"),
        "import": Calls(__import__, "antigravity"),
        "open": Calls(open, str(canary), "w"),
        "numpy load": Calls(np.load, str(canary)),
        "joblib load": Calls(joblib.load, str(canary)),
        "inside an estimator": model,
        "inside an array of objects": inside_array,
        "own function": FunctionTransformer(hostile),
        "own class": OwnClassifier(),
    }


@pytest.mark.parametrize("name", hostile(Path("x")))
@pytest.mark.parametrize("dump", [joblib.dump, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_a_name_outside_the_table_is_refused_before_it_is_called(
    name: str, dump: Callable[[object, Path], object], tmp_path: Path
) -> None:
    canary, path = tmp_path / "canary", tmp_path / "model.pkl"
    dump(hostile(canary)[name], path)
    with pytest.raises(WeightsUnsafe) as caught:
        read_estimator(path)
    assert caught.value.hint
    assert not canary.exists()


@pytest.mark.parametrize(
    "stream",
    [
        b"cos\nsystem\n(S'true'\ntR.",
        b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R.",
        b"\x80\x04\x8c\x08builtins\x8c\x0aint.__subclasses__\x93)R.",
        b"\x80\x02\x82\xf0.",
        b"Pidentity\n.",
        b"\x80\x04]\x94\x2e",
        b"\x80\x04K\x01",
        b"",
        b"\x80\xff.",
    ],
)
def test_crafted_streams_are_refused(stream: bytes) -> None:
    with pytest.raises(UploadRefused):
        read_stream(io.BytesIO(stream))


@pytest.mark.parametrize("compress", [0, 3, ("gzip", 3), ("bz2", 3), ("lzma", 3), ("xz", 3)])
def test_joblib_files_of_every_compression_are_read(compress: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.joblib"
    joblib.dump(LogisticRegression(max_iter=300).fit(X, Y), path, compress=compress)
    assert type(read_estimator(path).model) is LogisticRegression


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress, zlib.compress])
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_plain_pickles_of_every_protocol_are_read(
    pack: Callable[[bytes], bytes], protocol: int, tmp_path: Path
) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(pack(pickle.dumps(LogisticRegression(max_iter=300).fit(X, Y), protocol=protocol)))
    assert (read_estimator(path).model.predict(X) == Y).mean() > 0.9


def test_another_library_version_needs_review(tmp_path: Path) -> None:
    model = LogisticRegression(max_iter=300).fit(X, Y)
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(model).replace(b"1.9.1", b"1.2.0"))
    made = convert_file(path, ModelFormat.SKLEARN, tmp_path / "out")
    check = made.said.named("model.versions")
    assert check.outcome is Outcome.NEEDS_REVIEW
    assert "1.2.0" in check.summary


def test_a_tree_that_points_outside_itself_is_refused() -> None:
    model = RandomForestClassifier(2, random_state=0).fit(X, Y)
    check(model)
    for field, value in (("left_child", 10**6), ("left_child", 0), ("feature", 99)):
        crafted = pickle.loads(pickle.dumps(model))
        tree = crafted.estimators_[0].tree_
        state = tree.__getstate__()
        state["nodes"] = state["nodes"].copy()
        state["nodes"][0][field] = value
        tree.__setstate__(state)
        with pytest.raises(WeightsFormat):
            check(crafted)


def test_skops_files_are_read_by_the_same_table(tmp_path: Path) -> None:
    from skops import io as skops_io

    good, bad = tmp_path / "good.skops", tmp_path / "bad.skops"
    skops_io.dump(LogisticRegression(max_iter=300).fit(X, NAMES), good)
    skops_io.dump(OwnClassifier(), bad)
    made = convert_file(good, ModelFormat.SKOPS, tmp_path / "out")
    assert made.package.contract.labels == ("setosa", "versicolor", "virginica")
    with pytest.raises(WeightsUnsafe, match="test_restricted_reading"):
        read_skops(bad)
    bad.write_bytes(pickle.dumps(LogisticRegression()))
    with pytest.raises(WeightsFormat):
        read_skops(bad)


NAMES = np.array(["setosa", "versicolor", "virginica"])[Y]


def array_bomb(path: Path) -> None:
    """A joblib file whose one array claims 800 GB."""

    class Bomb:
        def __reduce__(self) -> Any:
            state = {
                "subclass": np.ndarray,
                "shape": (10**11,),
                "order": "C",
                "dtype": np.dtype("f8"),
                "allow_mmap": False,
            }
            return NumpyArrayWrapper, (np.ndarray, (10**11,), "C", np.dtype("f8")), state

    path.write_bytes(pickle.dumps(Bomb()))


def test_hostile_files_are_refused_by_the_child_with_their_code(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    for name, make, code in (
        ("call", lambda path: path.write_bytes(pickle.dumps(Calls(os.system, f"touch {canary}"))), "weights_unsafe"),
        ("bomb", array_bomb, "audit_timeout"),
    ):
        place, out = tmp_path / name, tmp_path / name / "out"
        out.mkdir(parents=True)
        make(place / "model.pkl")
        job = ConvertJob(directory=place, out=out, name="m", digest="", format=ModelFormat.SKLEARN, weights="model.pkl")
        heard: list[Any] = []
        result = convert(job, limits=ChildLimits(), on_check=heard.append)
        assert result.package is None
        assert result.refusal is not None
        assert result.refusal.code == code
        assert result.checks == tuple(heard)
        assert list(out.iterdir()) == []
    assert not canary.exists()
