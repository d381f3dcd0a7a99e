"""`modelyard pack OBJECT_OR_FILE`: run in the author's own environment, it writes a bundle to upload.

The model is loaded here, where its libraries are, which executes the author's own code. Where it converts to ONNX with
equal answers, the bundle holds the graph, so that models of older library versions come in too; otherwise it holds the
original with a lock file of what is installed here, and will need a review.
"""

import io
import json
import zipfile
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from modelyard.client.pack.converting import Converted, NotConverted, convert
from modelyard.client.pack.loading import PICKLES, READY_MADE, load_object, read_sample
from modelyard.domain.errors.base import quote
from modelyard.domain.errors.platform import InvalidRequest
from modelyard.domain.names import require_name, suggest_name

if TYPE_CHECKING:
    import numpy as np

    from modelyard.client.pack.loading import Sample

    Array = np.ndarray[Any, Any]

__all__ = ["PackResult", "pack"]

SAMPLE_ROWS: Final = 1_000
GOLDEN_ROWS: Final = 5
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
_DATATYPES: Final = {
    "float32": "FP32", "float64": "FP64", "int64": "INT64", "int32": "INT32", "bool": "BOOL", "object": "BYTES",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class PackResult:
    """The bundle, whether it holds ONNX, what lies in it, and sentences for the author."""

    path: Path
    name: str
    converted: bool
    files: tuple[str, ...]
    notes: tuple[str, ...]


def pack(
    source: str | Path,
    *,
    out: Path | None = None,
    sample: Path | None = None,
    labels: Path | None = None,
    name: str | None = None,
) -> PackResult:
    """Write a bundle of `source`: a model file, or `module:object`.

    `out` is the archive to write (default `NAME.zip` here; never overwritten). `sample` is a CSV or .npy file of rows
    as the model is asked; without one, rows are made up from the number of features. Loading a pickle or a module
    executes it.

    Raises:
        InvalidRequest: the source, sample, labels or name cannot be used, or `out` exists.
    """
    path = Path(source)
    stem = path.stem if path.suffix else str(source).rpartition(":")[2]
    title = require_name(name, what="model name") if name else suggest_name(stem)
    target = out or Path(f"{title}.zip")
    if target.exists():
        raise InvalidRequest(f"{quote(target)} exists", hint="give another --out, or move it away")
    if path.is_file() and path.suffix in READY_MADE:
        files, notes, converted = {path.name: path.read_bytes()}, [f"{path.name} is data only, taken as it is"], True
        if sample is not None:
            files["sample" + sample.suffix] = sample.read_bytes()
    elif path.is_file() and path.suffix not in PICKLES:
        raise InvalidRequest(f"{quote(path.name)} is no model file that can be packed")
    else:
        files, notes, converted = _estimator(source, sample, title)
    if labels is not None:
        if not labels.is_file() or labels.suffix not in {".json", ".txt", ".csv"}:
            raise InvalidRequest(f"{quote(labels)} is no label map", hint="a .json, .txt or .csv file")
        files = {key: data for key, data in files.items() if not key.startswith("labels.")}
        files["labels" + labels.suffix] = labels.read_bytes()
    files["README.md"] = _card(title, notes).encode()
    _write(target, files)
    return PackResult(path=target, name=title, converted=converted, files=tuple(files), notes=tuple(notes))


def _estimator(source: str | Path, sample: Path | None, title: str) -> tuple[dict[str, bytes], list[str], bool]:
    estimator: Any = load_object(source)
    if not hasattr(estimator, "predict") and not hasattr(estimator, "transform"):
        raise InvalidRequest(f"{quote(source)} has neither predict() nor transform()", hint="pack a fitted estimator")
    notes = ["loading it executed code of yours, in this environment"]
    rows = read_sample(sample)[:SAMPLE_ROWS] if sample is not None else _made_up(estimator, notes)
    files: dict[str, bytes] = {}
    outcome = convert(estimator, rows) if rows is not None else NotConverted(reason="there are no rows to try it on")
    if isinstance(outcome, Converted):
        notes.append(f"converted to ONNX; answers are equal on {0 if rows is None else len(rows)} rows")
        files["model.onnx"] = outcome.model
        files["golden.json"] = json.dumps(_golden(outcome), indent=1).encode()
    else:
        notes.append(f"{outcome.reason}; the original is packed and will need a review")
        files["model.joblib"] = _dump(estimator)
        files["requirements.lock"] = _installed().encode()
    if rows is not None:
        files |= _sample_file(rows)
    classes = getattr(estimator, "classes_", None)
    if classes is not None and getattr(classes, "ndim", 0) == 1:
        files["labels.json"] = json.dumps({str(index): str(label) for index, label in enumerate(classes)}).encode()
    config = {"name": title, "format": "onnx" if "model.onnx" in files else "sklearn"}
    files["config.json"] = json.dumps(config | _task(estimator), indent=1).encode()
    return files, notes, "model.onnx" in files


def _made_up(estimator: Any, notes: list[str]) -> "Sample | None":  # noqa: ANN401 (any estimator)
    """Rows of a standard normal distribution, where the estimator takes plain numbers."""
    import numpy as np

    width = getattr(estimator, "n_features_in_", None)
    if width is None or hasattr(estimator, "feature_names_in_"):
        notes.append("no sample was given and none could be made up: give --sample rows.csv")
        return None
    notes.append("no sample was given: equal answers were tried on made-up rows; --sample makes it sure")
    return np.random.default_rng(0).normal(size=(SAMPLE_ROWS, int(width))).astype(np.float32)


def _task(estimator: Any) -> dict[str, str]:  # noqa: ANN401
    kind = getattr(estimator, "_estimator_type", None) or (
        "classifier" if hasattr(estimator, "predict_proba") else "regressor" if hasattr(estimator, "predict") else ""
    )
    tasks = {"classifier": "classification", "regressor": "regression", "clusterer": "clustering"}
    return {"task": tasks[kind]} if kind in tasks else {}


def _golden(converted: Converted) -> dict[str, object]:
    """A request and its answer as V2 documents (Open Inference Protocol, "Inference")."""
    inputs = [_tensor(name, value[:GOLDEN_ROWS]) for name, value in converted.inputs.items()]
    outputs = [_tensor(name, value[:GOLDEN_ROWS]) for name, value in converted.outputs.items()]
    return {"request": {"inputs": inputs}, "outputs": outputs}


def _tensor(name: str, value: "Array") -> dict[str, object]:
    datatype = _DATATYPES.get(value.dtype.name, "BYTES")
    return {"name": name, "shape": list(value.shape), "datatype": datatype, "data": value.ravel().tolist()}


def _sample_file(rows: "Sample") -> dict[str, bytes]:
    import numpy as np

    buffer = io.BytesIO()
    if isinstance(rows, np.ndarray):
        np.save(buffer, rows, allow_pickle=False)
        return {"sample.npy": buffer.getvalue()}
    rows.to_csv(buffer, index=False)
    return {"sample.csv": buffer.getvalue()}


def _dump(estimator: object) -> bytes:
    import joblib

    buffer = io.BytesIO()
    joblib.dump(estimator, buffer)
    return buffer.getvalue()


def _installed() -> str:
    """Every distribution of this environment, pinned."""
    found = {(one.metadata["Name"], one.version) for one in distributions() if one.metadata["Name"]}
    return "".join(f"{name}=={version}\n" for name, version in sorted(found, key=lambda one: one[0].lower()))


def _card(title: str, notes: list[str]) -> str:
    lines = "\n".join(f"- {note}" for note in notes)
    return (
        f"---\nlicense:\ntags: []\n---\n# {title}\n\n## Intended use\n\nSay what it is for, and what not.\n\n"
        f"## Training data\n\nSay what it was trained on.\n\n## How it was packed\n\n{lines}\n"
    )


def _write(target: Path, files: dict[str, bytes]) -> None:
    """A flat archive whose bytes depend on its contents alone."""
    with zipfile.ZipFile(target, "x", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), files[name], zipfile.ZIP_DEFLATED)
