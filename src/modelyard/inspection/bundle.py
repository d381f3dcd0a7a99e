"""Which file of a bundle is which: one for each role, and nothing that does not belong."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from modelyard.domain.contract import ModelFormat
from modelyard.domain.errors.base import quote
from modelyard.domain.errors.uploads import ArchiveUnsafe, BundleMismatch, FileTooLarge, TypeNotAllowed
from modelyard.inspection.documents.mlflow import MlflowModel, read_mlmodel
from modelyard.inspection.kinds import ACCEPTED, HEAD_BYTES, Kind, Role, WeightsKind, kind_of, require_agreement
from modelyard.inspection.policy import MIB, InspectionPolicy, ReceivedFile

FORMATS: Final[Mapping[WeightsKind, ModelFormat]] = {
    WeightsKind.ONNX: ModelFormat.ONNX,
    WeightsKind.SAFETENSORS: ModelFormat.SAFETENSORS,
    WeightsKind.SKOPS: ModelFormat.SKOPS,
    WeightsKind.PICKLE: ModelFormat.SKLEARN,
    WeightsKind.XGBOOST: ModelFormat.XGBOOST,
    WeightsKind.LIGHTGBM: ModelFormat.LIGHTGBM,
    WeightsKind.PYTHON: ModelFormat.PYTHON,
    WeightsKind.OPENVINO: ModelFormat.OPENVINO,
    WeightsKind.TORCH_EXPORT: ModelFormat.TORCH_EXPORT,
}
"""What is accepted, as the convert child is told."""

_SINGLE: Final = (Role.CONFIG, Role.LABELS, Role.SAMPLE, Role.MANIFEST, Role.SIGNATURE, Role.MLFLOW)


@dataclass(frozen=True, slots=True)
class Sorted:
    """A received file with its kind."""

    file: ReceivedFile
    kind: Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """The files by name, and those with a role of their own. `format` is None for weights that are not accepted."""

    files: Mapping[str, ReceivedFile]
    weights: ReceivedFile
    kind: WeightsKind
    roles: Mapping[Role, ReceivedFile]
    external: frozenset[str]
    texts: tuple[Sorted, ...] = ()
    mlflow: MlflowModel | None = None

    @property
    def format(self) -> ModelFormat | None:
        """The model's format."""
        return FORMATS.get(self.kind)

    @property
    def digests(self) -> Mapping[str, str]:
        """Name → hex SHA-256 of every file."""
        return {name: file.sha256 for name, file in self.files.items()}


def sort_files(files: Sequence[ReceivedFile], policy: InspectionPolicy, *, unpacked: bool) -> Sequence[Sorted]:
    """Each file with its kind; content must agree with the name, and small kinds must be small.

    Raises:
        TypeNotAllowed: a kind that is not on the list, or content that contradicts the name.
        FileTooLarge: a document larger than its kind may be.
        ArchiveUnsafe: an archive in an archive.
    """
    found = []
    for file in files:
        kind = kind_of(file.name)
        if kind.role is Role.ARCHIVE and unpacked:
            raise ArchiveUnsafe(f"{quote(file.name)} is an archive in an archive", hint="pack the files themselves")
        with file.path.open("rb") as stream:
            head = stream.read(HEAD_BYTES)
        require_agreement(file.name, kind, head)
        limit = _limit(kind.role, policy)
        if file.size > limit:
            raise FileTooLarge(
                f"{quote(file.name)} has {file.size} bytes, at most {limit} are read",
                details=[{"file": quote(file.name), "expected": limit, "received": file.size}],
            )
        found.append(Sorted(file, kind))
    return found


def _limit(role: Role, policy: InspectionPolicy) -> int:
    if role in (Role.CONFIG, Role.MANIFEST, Role.MLFLOW):
        return policy.config_bytes
    if role in (Role.LABELS, Role.SIGNATURE):
        return policy.labels_bytes
    if role in (Role.TEXT, Role.DOCUMENT):
        return policy.text_bytes
    if role is Role.CODE:
        return policy.code_bytes
    return policy.sample_bytes if role is Role.SAMPLE else policy.bundle_bytes


def compose(found: Sequence[Sorted], policy: InspectionPolicy) -> Bundle:
    """The bundle of these files, or `BundleMismatch` when something is missing or double."""
    roles: dict[Role, ReceivedFile] = {}
    for entry in found:
        role = entry.kind.role
        if role is Role.ARCHIVE:
            raise BundleMismatch("an archive is a bundle of its own", hint="upload it alone, or upload plain files")
        if role in _SINGLE and role in roles:
            raise BundleMismatch(
                f"{quote(roles[role].name)} and {quote(entry.file.name)} are both the {role.value} of the bundle",
                hint="keep one of them",
            )
        if role in _SINGLE:
            roles[role] = entry.file
    files = {entry.file.name: entry.file for entry in found}
    mlflow = read_mlmodel(roles[Role.MLFLOW].path, files.keys(), policy) if Role.MLFLOW in roles else None
    weights, kind = _weights(found, mlflow)
    return Bundle(
        files=files,
        weights=weights,
        kind=kind,
        roles=roles,
        external=frozenset(entry.file.name for entry in found if entry.kind.role is Role.EXTERNAL),
        texts=tuple(entry for entry in found if entry.kind.role in (Role.TEXT, Role.DOCUMENT)),
        mlflow=mlflow,
    )


def _weights(found: Sequence[Sorted], mlflow: MlflowModel | None) -> tuple[ReceivedFile, WeightsKind]:
    candidates = [entry for entry in found if entry.kind.role is Role.WEIGHTS]
    if any(entry.kind.role is Role.CODE for entry in found):
        return _code(found), WeightsKind.PYTHON
    if len(candidates) > 1:
        names = ", ".join(quote(entry.file.name) for entry in candidates[:6])
        raise BundleMismatch(
            f"a bundle has one file of weights, this one has {names}", hint="upload each model on its own"
        )
    if not candidates:
        raise BundleMismatch("the bundle has no file of weights", hint=f"accepted: {ACCEPTED}")
    entry = candidates[0]
    kind = entry.kind.weights or WeightsKind.OTHER
    if mlflow is not None:
        if mlflow.weights != entry.file.name:
            raise BundleMismatch(f"MLmodel has the model in {quote(mlflow.weights)}, not in {quote(entry.file.name)}")
        kind = mlflow.kind
    return entry.file, kind


def _code(found: Sequence[Sorted]) -> ReceivedFile:
    """The entry of a bundle with code of its own; everything beside it is the code's business."""
    by_name = {entry.file.name: entry for entry in found}
    entry = by_name.get("predict.py")
    if entry is None:
        other = next(item.file.name for item in found if item.kind.role is Role.CODE)
        raise TypeNotAllowed(
            f"{quote(other)} is program code, and the bundle has no predict.py that would be asked",
            hint="bring predict.py with requirements.lock and config.json, or export the model to ONNX",
        )
    if "requirements.lock" not in by_name:
        raise BundleMismatch(
            "predict.py needs a requirements.lock beside it",
            hint="`uv pip compile --generate-hashes requirements.in -o requirements.lock` writes it",
        )
    return entry.file


def given_apart(path: Path, stem: str) -> ReceivedFile:
    """A labels or config file that was named on its own, under the name it has in a bundle."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(MIB):
            digest.update(chunk)
    return ReceivedFile(f"{stem}{path.suffix.lower()}", path, path.stat().st_size, digest.hexdigest())


def with_given(files: Sequence[ReceivedFile], given: Sequence[ReceivedFile]) -> Sequence[ReceivedFile]:
    """`files`, in which those given apart take the place of files of the same role."""
    taken = {kind_of(file.name).role for file in given}
    kept = [file for file in files if not taken or kind_of(file.name).role not in taken]
    return [*kept, *given]
