"""Whatever bytes come, a parser gives facts or one of our refusals, and keeps memory and time bounded."""

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import joblib
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from modelyard.domain.errors.uploads import NameInvalid, PathUnsafe, UploadRefused, WeightsUnsafe
from modelyard.inspection.archives import expand
from modelyard.inspection.documents.config import read_config
from modelyard.inspection.documents.labels import read_labels
from modelyard.inspection.documents.safe_yaml import read_yaml
from modelyard.inspection.kinds import WeightsKind, content_of
from modelyard.inspection.names import require_file_name
from modelyard.inspection.pickle_types import is_allowed
from modelyard.inspection.policy import InspectionPolicy, ReceivedFile
from modelyard.inspection.weights.foreign import refuse_foreign
from modelyard.inspection.weights.lightgbm_file import read_lightgbm
from modelyard.inspection.weights.numpy_file import read_npy
from modelyard.inspection.weights.onnx import read_onnx
from modelyard.inspection.weights.packed import unpack_pickle
from modelyard.inspection.weights.pickles import read_pickle
from modelyard.inspection.weights.safetensors import read_safetensors
from modelyard.inspection.weights.skops_file import read_skops
from modelyard.inspection.weights.xgboost_file import read_xgboost

POLICY = InspectionPolicy(bundle_bytes=1 << 22, pickle_expanded_bytes=1 << 22, pickle_opcodes=100_000)
ROWS, CLASSES = np.eye(4), [0, 1, 0, 1]
MUTATIONS: Final = 50


def in_file(read: Callable[[Path], object]) -> Callable[[bytes], object]:
    def run(data: bytes) -> object:
        with TemporaryDirectory() as place:
            path = Path(place) / "file"
            path.write_bytes(data)
            return read(path)

    return run


def opened(name: str) -> Callable[[bytes], object]:
    return in_file(lambda path: expand(ReceivedFile(name, path, path.stat().st_size, ""), path.parent / "out", POLICY))


PARSERS: dict[str, Callable[[bytes], object]] = {
    "safetensors": lambda data: read_safetensors(data, POLICY),
    "onnx": lambda data: read_onnx(data, {"d.bin": 8}, POLICY),
    "pickle": lambda data: read_pickle(data, POLICY),
    "joblib": lambda data: read_pickle(data, POLICY),
    "packed": in_file(lambda path: unpack_pickle(path, path.parent / "out", POLICY)),
    "skops": lambda data: read_skops(data, POLICY),
    "xgboost json": lambda data: read_xgboost(data, POLICY),
    "xgboost ubj": lambda data: read_xgboost(data, POLICY),
    "lightgbm": lambda data: read_lightgbm(data, POLICY),
    "npy": lambda data: read_npy(data, len(data), what="array"),
    "npz": lambda data: refuse_foreign(WeightsKind.NUMPY, data, POLICY),
    "gguf": lambda data: refuse_foreign(WeightsKind.GGUF, data, POLICY),
    "keras": lambda data: refuse_foreign(WeightsKind.KERAS, data, POLICY),
    "torch": lambda data: refuse_foreign(WeightsKind.TORCH, data, POLICY),
    "zip": opened("b.zip"),
    "tar": opened("b.tar"),
    "tar.gz": opened("b.tar.gz"),
    "config": in_file(lambda path: read_config(path, "config.json", POLICY)),
    "yaml config": in_file(lambda path: read_config(path, "model.yaml", POLICY)),
    "labels json": in_file(lambda path: read_labels(path, "labels.json", POLICY)),
    "labels csv": in_file(lambda path: read_labels(path, "labels.csv", POLICY)),
    "labels txt": in_file(lambda path: read_labels(path, "labels.txt", POLICY)),
}


@cache
def valid(name: str) -> bytes:
    """A small good file of each kind."""
    return _MAKERS[name]()


def _joblib(**options: Any) -> bytes:
    buffer = io.BytesIO()
    joblib.dump(StandardScaler().fit(ROWS), buffer, **options)
    return buffer.getvalue()


def _skops() -> bytes:
    import skops.io

    return skops.io.dumps(StandardScaler().fit(ROWS))


def _xgboost(form: str) -> bytes:
    import xgboost

    return bytes(xgboost.train({}, xgboost.DMatrix(ROWS, label=CLASSES), 1).save_raw(form))


def _lightgbm() -> bytes:
    import lightgbm

    data = lightgbm.Dataset(np.arange(80.0).reshape(40, 2), label=np.arange(40) % 2)
    return lightgbm.train({"verbose": -1, "objective": "binary"}, data, 2).model_to_string().encode()


def _onnx() -> bytes:
    from onnx import parser

    return parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[N, 2] x, bool f) => (float[N, 2] y)
        <float[2] w = {1.0, 2.0}, int64[1] s = {2}> {
            z = Add (x, w)
            c = ConstantOfShape (s)
            y = If (f) <then_branch = a () => (float[N, 2] p) { p = Add (z, c) },
                        else_branch = b () => (float[N, 2] q) { q = Neg (z) }>
        }
    """).SerializeToString()


def _zip(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def _tar(mode: str) -> bytes:
    import tarfile

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        info = tarfile.TarInfo("config.json")
        info.size = 2
        archive.addfile(info, io.BytesIO(b"{}"))
    return buffer.getvalue()


def _array(*, packed: bool) -> bytes:
    buffer = io.BytesIO()
    if packed:
        np.savez(buffer, w=ROWS)
    else:
        np.save(buffer, ROWS)
    return buffer.getvalue()


def _safetensors() -> bytes:
    header = json.dumps({"w": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(16)


_MAKERS: dict[str, Callable[[], bytes]] = {
    "safetensors": _safetensors,
    "onnx": _onnx,
    "pickle": lambda: pickle.dumps(LogisticRegression().fit(ROWS, CLASSES)),
    "joblib": _joblib,
    "packed": lambda: _joblib(compress=("zlib", 3)),
    "skops": _skops,
    "xgboost json": lambda: _xgboost("json"),
    "xgboost ubj": lambda: _xgboost("ubj"),
    "lightgbm": _lightgbm,
    "npy": lambda: _array(packed=False),
    "npz": lambda: _array(packed=True),
    "gguf": lambda: b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"a" + struct.pack("<II", 4, 7),
    "keras": lambda: _zip({"config.json": b'{"class_name": "Sequential", "config": {}}', "metadata.json": b"{}"}),
    "torch": lambda: _zip({"m/data.pkl": pickle.dumps({}), "m/data/0": b"1"}),
    "zip": lambda: _zip({"config.json": b"{}", "README.md": b"# card"}),
    "tar": lambda: _tar("w"),
    "tar.gz": lambda: _tar("w:gz"),
    "config": lambda: b'{"task": "x", "input": {"name": "x", "datatype": "FP32", "shape": [-1, 3]}}',
    "yaml config": lambda: b"task: x\ninput: {name: x, datatype: FP32, shape: [-1, 3]}\nmetrics:\n  - 1.5\n  - a: b\n",
    "labels json": lambda: b'{"0": "cat", "1": "dog"}',
    "labels csv": lambda: b"index,label\n0,cat\n1,dog\n",
    "labels txt": lambda: b"cat\ndog\n",
}

edit = st.tuples(st.floats(0, 1, exclude_max=True), st.binary(max_size=9), st.integers(0, 12))


def mutated(data: bytes, edits: list[tuple[float, bytes, int]]) -> bytes:
    """`data` with some spans replaced: flips, insertions, deletions."""
    for where, new, removed in edits:
        at = int(where * (len(data) + 1))
        data = data[:at] + new + data[at + removed :]
    return data


@pytest.mark.parametrize("name", PARSERS)
def test_a_valid_file_is_read(name: str) -> None:
    PARSERS[name](valid(name))


@pytest.mark.parametrize("name", PARSERS)
@settings(max_examples=MUTATIONS, deadline=None, suppress_health_check=list(HealthCheck))
@given(edits=st.lists(edit, min_size=1, max_size=5))
def test_a_mutated_file_is_read_or_refused(name: str, edits: list[tuple[float, bytes, int]]) -> None:
    with suppress(UploadRefused):
        PARSERS[name](mutated(valid(name), edits))


@settings(max_examples=100, deadline=None)
@given(
    data=st.binary(max_size=400),
    prefix=st.sampled_from([b"", b"\x80\x04", b"PK\x03\x04", b"GGUF\x03\0\0\0", b"{", b"\x93NUMPY"]),
)
def test_arbitrary_bytes_are_read_or_refused_by_every_parser(data: bytes, prefix: bytes) -> None:
    content_of(prefix + data)
    for parse in PARSERS.values():
        with suppress(UploadRefused):
            parse(prefix + data)


@settings(max_examples=200, deadline=None)
@given(name=st.text(max_size=200))
def test_a_name_is_plain_or_refused(name: str) -> None:
    try:
        plain = require_file_name(name)
    except (NameInvalid, PathUnsafe):
        return
    assert Path(plain).name == plain
    assert plain.isascii()
    assert plain.strip(".")


word = st.text(
    st.characters(categories=["L", "N"], max_codepoint=0x7F, include_characters="_."), min_size=1, max_size=20
)


@settings(max_examples=100, deadline=None)
@given(module=word, name=word, protocol=st.sampled_from(["global", "stack", "inst", "memo"]))
def test_a_name_outside_the_table_is_found_however_it_is_written(module: str, name: str, protocol: str) -> None:
    assume(not is_allowed(module, name))
    one, two = module.encode(), name.encode()
    short = lambda text: b"\x8c" + bytes([len(text)]) + text  # noqa: E731
    data = {
        "global": b"c" + one + b"\n" + two + b"\n)R.",
        "stack": b"\x80\x04" + short(one) + short(two) + b"\x93)R.",
        "inst": b"(i" + one + b"\n" + two + b"\n.",
        "memo": b"\x80\x04" + short(two) + b"\x94" + short(one) + b"\x94h\x01h\x00\x93)R.",
    }[protocol]
    with pytest.raises(WeightsUnsafe):
        read_pickle(data, POLICY)
    with pytest.raises(WeightsUnsafe):
        read_pickle(data[:-1] + b"\xff", POLICY)


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**15), 10**15) | st.text("abcxyz -_", max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text("abcdef", min_size=1, max_size=6), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=100, deadline=None)
@given(value=plain)
def test_yaml_reads_what_json_writes(value: object) -> None:
    assert read_yaml(json.dumps(value), what="x", max_depth=32, max_digits=19) == value
