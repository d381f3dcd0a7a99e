"""What a file of a bundle is: its role by name, agreed to by its first bytes.

An allow list. What is on it is read by a parser of ours; some formats are on it only to be refused with a way out
(`weights/foreign.py`). What is not on it is refused by name.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.uploads import TypeNotAllowed


class Role(StrEnum):
    """What a file is for.

    A bundle has at most one CONFIG, LABELS and SAMPLE, and exactly one WEIGHTS; beside CODE any number of them.
    """

    CONFIG = "config"
    LABELS = "labels"
    WEIGHTS = "weights"
    EXTERNAL = "external_data"
    SAMPLE = "sample"
    DOCUMENT = "document"
    TEXT = "text"
    SIGNATURE = "signature"
    MANIFEST = "manifest"
    MLFLOW = "mlflow"
    ARCHIVE = "archive"
    CODE = "code"


class WeightsKind(StrEnum):
    """Formats of weights, the accepted ones first, then those we know and do not take."""

    ONNX = "onnx"
    SAFETENSORS = "safetensors"
    SKOPS = "skops"
    PICKLE = "pickle"
    XGBOOST = "xgboost"
    LIGHTGBM = "lightgbm"
    PYTHON = "python"
    OPENVINO = "openvino"
    TORCH_EXPORT = "pt2"
    TORCH = "torch"
    KERAS = "keras"
    HDF5 = "hdf5"
    NUMPY = "numpy"
    GGUF = "gguf"
    XML = "xml"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Kind:
    """Role and, for weights, the format that the name promises."""

    role: Role
    weights: WeightsKind | None = None


_NAMES: Final[Mapping[str, Role]] = {
    **dict.fromkeys(("config.json", "config.yaml", "config.yml", "model.yaml", "model.yml"), Role.CONFIG),
    **dict.fromkeys(("labels.json", "labels.txt", "labels.csv"), Role.LABELS),
    **dict.fromkeys(("sample.json", "sample.csv", "sample.npy", "input_example.json"), Role.SAMPLE),
    **dict.fromkeys(("profile.json", "golden.json", "serving_input_example.json"), Role.DOCUMENT),
    **dict.fromkeys(("license", "notice", "license.txt", "notice.txt", "registered_model_meta"), Role.TEXT),
    **dict.fromkeys(("conda.yaml", "python_env.yaml", "requirements.txt", "requirements.lock"), Role.TEXT),
    "manifest.json": Role.MANIFEST,
    "mlmodel": Role.MLFLOW,
}
_ENDINGS: Final[Mapping[str, Kind]] = {
    ".md": Kind(Role.TEXT),
    ".py": Kind(Role.CODE),
    ".sig": Kind(Role.SIGNATURE),
    **dict.fromkeys((".zip", ".tar", ".tar.gz", ".tgz"), Kind(Role.ARCHIVE)),
    **dict.fromkeys((".bin", ".data", ".onnx_data", ".onnx.data"), Kind(Role.EXTERNAL)),
    ".onnx": Kind(Role.WEIGHTS, WeightsKind.ONNX),
    ".safetensors": Kind(Role.WEIGHTS, WeightsKind.SAFETENSORS),
    ".skops": Kind(Role.WEIGHTS, WeightsKind.SKOPS),
    **dict.fromkeys(
        tuple(
            stem + packed
            for stem in (".pkl", ".pickle", ".joblib")
            for packed in ("", ".gz", ".z", ".bz2", ".xz", ".lzma")
        ),
        Kind(Role.WEIGHTS, WeightsKind.PICKLE),
    ),
    **dict.fromkeys((".json", ".ubj", ".xgb"), Kind(Role.WEIGHTS, WeightsKind.XGBOOST)),
    **dict.fromkeys((".txt", ".lgb"), Kind(Role.WEIGHTS, WeightsKind.LIGHTGBM)),
    **dict.fromkeys((".pt", ".pth", ".ckpt"), Kind(Role.WEIGHTS, WeightsKind.TORCH)),
    ".pt2": Kind(Role.WEIGHTS, WeightsKind.TORCH_EXPORT),
    ".keras": Kind(Role.WEIGHTS, WeightsKind.KERAS),
    **dict.fromkeys((".h5", ".hdf5"), Kind(Role.WEIGHTS, WeightsKind.HDF5)),
    **dict.fromkeys((".npy", ".npz"), Kind(Role.WEIGHTS, WeightsKind.NUMPY)),
    ".gguf": Kind(Role.WEIGHTS, WeightsKind.GGUF),
    ".xml": Kind(Role.WEIGHTS, WeightsKind.OPENVINO),
    ".pmml": Kind(Role.WEIGHTS, WeightsKind.XML),
    **dict.fromkeys(
        (".pb", ".tflite", ".mar", ".nemo", ".cbm", ".bst", ".mlmodel"), Kind(Role.WEIGHTS, WeightsKind.OTHER)
    ),
}
_LONGEST_FIRST: Final = tuple(sorted(_ENDINGS, key=len, reverse=True))

_MAGICS: Final[tuple[tuple[bytes, str], ...]] = (
    (b"\x7fELF", "elf program"),
    (b"\xfe\xed\xfa", "mach-o program"),
    (b"\xcf\xfa\xed\xfe", "mach-o program"),
    (b"\xca\xfe\xba\xbe", "java class"),
    (b"\x00asm", "webassembly"),
    (b"#!", "script"),
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"Rar!\x1a\x07", "rar"),
    (b"%PDF-", "pdf"),
    (b"\x89HDF\r\n\x1a\n", "hdf5"),
    (b"\x93NUMPY", "numpy"),
    (b"GGUF", "gguf"),
    (b"<?xml", "xml"),
    (b"<!DOCTYPE", "html"),
    (b"<html", "html"),
    (b"\x89PNG", "png"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"GIF8", "gif"),
    (b"SQLite format 3\x00", "sqlite"),
    (b"PAR1", "parquet"),
)
_PICKLE: Final = re.compile(rb"\x80[\x02-\x05]")
_WINDOWS: Final = re.compile(rb"MZ[^\x00]{0,62}\x00", re.DOTALL)
_TAR_MAGIC_AT: Final = 257
HEAD_BYTES: Final = 512

_AGREEING: Final[Mapping[WeightsKind, frozenset[str]]] = {
    WeightsKind.SKOPS: frozenset({"zip"}),
    WeightsKind.PICKLE: frozenset({"pickle", "gzip", "bzip2", "xz"}),
    WeightsKind.OPENVINO: frozenset({"xml", "html"}),
    WeightsKind.TORCH: frozenset({"zip", "pickle"}),
    WeightsKind.TORCH_EXPORT: frozenset({"zip"}),
    WeightsKind.KERAS: frozenset({"zip", "hdf5"}),
    WeightsKind.HDF5: frozenset({"hdf5"}),
    WeightsKind.NUMPY: frozenset({"numpy", "zip"}),
    WeightsKind.GGUF: frozenset({"gguf"}),
    WeightsKind.XML: frozenset({"xml", "html"}),
}
_BINARY_BY_CHANCE: Final = frozenset({WeightsKind.SAFETENSORS, WeightsKind.ONNX})
"""Formats whose first bytes are a length or a field: two bytes that look like a pickle say nothing."""

ACCEPTED: Final = (
    ".onnx, .safetensors (with config.json), .joblib/.pkl and .skops of scikit-learn, XGBoost .json/.ubj, LightGBM "
    ".txt, OpenVINO .xml with .bin, torch.export .pt2, predict.py with requirements.lock and config.json"
)


def kind_of(name: str) -> Kind:
    """Role and format that `name` promises, or `TypeNotAllowed`."""
    lower = name.lower()
    if lower in _NAMES:
        return Kind(_NAMES[lower])
    for ending in _LONGEST_FIRST:
        if lower.endswith(ending):
            return _ENDINGS[ending]
    raise TypeNotAllowed(
        f"{quote(name)} is of no kind that a bundle may hold",
        hint=f"weights: {ACCEPTED}; beside them config, labels, sample, README.md, *.sig",
        details=[{"file": quote(name)}],
    )


def content_of(head: bytes) -> str | None:
    """What the first bytes say, None when they are no mark of a format that we know."""
    for mark, content in _MAGICS:
        if head.startswith(mark):
            return content
    if _WINDOWS.match(head):
        return "windows program"
    if _PICKLE.match(head):
        return "pickle"
    if head[_TAR_MAGIC_AT : _TAR_MAGIC_AT + 5] == b"ustar":
        return "tar"
    return None


def require_agreement(name: str, kind: Kind, head: bytes) -> str | None:
    """The content that the head shows; `TypeNotAllowed` when it contradicts the name.

    Archives are left to their own readers, which say more precisely what is wrong.
    """
    content = content_of(head)
    if content is None or kind.role is Role.ARCHIVE:
        return content
    if kind.weights in _BINARY_BY_CHANCE and content in {"pickle", "bzip2", "script", "windows program"}:
        return None
    if kind.role is Role.CODE and content == "script":
        return content  # a first line for the shell harms nobody: the file is never started
    if kind.role is Role.EXTERNAL or (
        kind.role is Role.SAMPLE and content == "numpy" and name.lower().endswith(".npy")
    ):
        return content
    if kind.weights is not None and content in _AGREEING.get(kind.weights, frozenset()):
        return content
    raise TypeNotAllowed(
        f"{quote(name)} holds {content} content, which its name denies",
        hint="name a file after what it is; " + ACCEPTED,
        details=[{"file": quote(name), "received": content}],
    )
