"""What every route through convert ends with: files in the package directory, rows for the probe, the package."""

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from modelyard.domain.contract import Isolation, ModelContract, ModelFormat, ServingPackage
from modelyard.domain.errors.uploads import BundleMismatch, UploadRefused
from modelyard.domain.report import Check, Outcome
from modelyard.domain.tensors import TensorSpec
from modelyard.foundation.documents import to_plain
from modelyard.inspection.child import PROBE_ROWS
from modelyard.inspection.children.facts import Array
from modelyard.inspection.children.program import Channel, Request
from modelyard.inspection.children.samples import SampleUnusable, read_sample
from modelyard.inspection.children.v2_values import document

ONNX_FILE: Final = "model.onnx"
_CHUNK: Final = 1 << 24
_RUNS: Final[Mapping[str, tuple[str, Isolation]]] = {
    "onnxruntime": ("onnxruntime_onnx", Isolation.SHARED),
    "openvino": ("openvino_ir", Isolation.SHARED),
    "sklearn_original": ("sklearn", Isolation.PROCESS),
    "torch_export": ("pytorch_pt2", Isolation.PROCESS),
}
"""Runtime → the platform that metadata names (Open Inference Protocol, `$platform`), and the least isolation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One conversion: where things lie and whom to tell."""

    directory: Path
    out: Path
    name: str
    format: ModelFormat
    weights: str
    config: Mapping[str, Any]
    labels: tuple[str, ...]
    sample: str | None
    channel: Channel

    @classmethod
    def of(cls, request: Request, channel: Channel) -> "Work":
        """The request's own part, typed."""
        body = request.body
        return cls(
            directory=Path(body["directory"]),
            out=Path(body["out"]),
            name=body["name"],
            format=ModelFormat(body["format"]),
            weights=body["weights"],
            config=body["config"],
            labels=tuple(body["labels"]),
            sample=body["sample"],
            channel=channel,
        )

    @property
    def weights_path(self) -> Path:
        """The file that holds the model."""
        return self.directory / self.weights

    def package(
        self, contract: ModelContract, *, entry: str = ONNX_FILE, runtime: str = "onnxruntime"
    ) -> ServingPackage:
        """The package of this conversion; digests and files are filled in by the parent."""
        platform, isolation = _RUNS[runtime]
        return ServingPackage(
            name=self.name,
            digest="",
            format=self.format,
            runtime=runtime,
            entry=entry,
            platform=platform,
            contract=contract,
            isolation=isolation,
        )

    def finish(self, package: ServingPackage) -> None:
        """The last event: the package is whole."""
        self.channel.done({"package": to_plain(package)})

    def require_labels(self, classes: int) -> None:
        """Refuse a label map of another length than the model has classes."""
        if self.labels and len(self.labels) != classes:
            raise BundleMismatch(
                f"{len(self.labels)} labels are given, but the model has {classes} classes",
                hint=f"give one label for each class index from 0 to {classes - 1}",
                details=[{"file": "labels", "expected": classes, "received": len(self.labels)}],
            )

    def write_rows(self, arrays: Mapping[str, Array], inputs: tuple[TensorSpec, ...], *, source: str) -> None:
        """Leave rows for the probe."""
        text = json.dumps({"source": source, "inputs": document(arrays, inputs)}, allow_nan=True)
        (self.out / PROBE_ROWS).write_text(text)

    def read_sample(self, inputs: tuple[TensorSpec, ...]) -> dict[str, Array] | None:
        """The sample's rows for these inputs; None, with a warning in the report, when there are none to use."""
        if self.sample is None:
            return None
        with timed(self.channel, "sample.rows") as found:
            try:
                arrays = read_sample(self.directory / self.sample, inputs)
            except SampleUnusable as error:
                found.outcome = Outcome.WARNING
                found.summary = f"the sample cannot be asked: {error}"
                found.hint = f"give rows for the inputs {', '.join(item.name for item in inputs[:8])}"
                return None
            rows = len(next(iter(arrays.values())))
            found.summary = f"{rows} rows of the sample are asked"
            found.evidence["rows"] = rows
            return arrays


@dataclass(slots=True)
class Finding:
    """What a check found, filled in while it runs."""

    summary: str = "as it should be"
    outcome: Outcome = Outcome.PASSED
    hint: str = ""
    evidence: dict[str, Any] = field(default_factory=dict)


@contextmanager
def timed(channel: Channel, name: str) -> Iterator[Finding]:
    """One check with its duration; a refusal inside is the failed check, and goes on."""
    finding = Finding()
    began = time.perf_counter()
    try:
        yield finding
    except UploadRefused as error:
        finding.outcome, finding.summary, finding.hint = Outcome.FAILED, error.detail, error.hint
        finding.evidence["code"] = error.code
        raise
    finally:
        channel.check(
            Check(
                name=name,
                outcome=finding.outcome,
                summary=finding.summary,
                evidence=finding.evidence,
                duration_s=round(time.perf_counter() - began, 6),
                hint=finding.hint,
            )
        )


def copy_file(source: Path, target: Path) -> None:
    """A copy of its own (a reflink where the file system can): the uploaded file may be changed or deleted later."""
    with source.open("rb") as reading, target.open("xb") as writing:
        while True:
            try:
                moved = os.copy_file_range(reading.fileno(), writing.fileno(), _CHUNK)
            except (AttributeError, OSError):
                while block := reading.read(_CHUNK):
                    writing.write(block)
                return
            if not moved:
                return
