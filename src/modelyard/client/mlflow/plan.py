"""What an import will do, a line a version, before anything is sent; then doing it through a small port."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Final, Protocol

from modelyard.client.mlflow.registry import MLMODEL, MLMODEL_BYTES, RegisteredVersion, Source
from modelyard.domain.errors.base import ModelyardError
from modelyard.domain.errors.uploads import TypeNotAllowed
from modelyard.domain.names import suggest_name
from modelyard.inspection.documents.mlflow import read_mlmodel
from modelyard.inspection.kinds import WeightsKind
from modelyard.inspection.policy import InspectionPolicy

FILE_BYTES: Final = 4 * 1024**3
_DOCUMENTS: Final = ("requirements.txt", "python_env.yaml", "conda.yaml")
_REASONS: Final[Mapping[WeightsKind, str]] = {
    WeightsKind.PICKLE: "scikit-learn, opened in the sandbox only and turned into ONNX where answers are equal",
    WeightsKind.SKOPS: "scikit-learn in skops form, turned into ONNX where answers are equal",
}


class Fate(StrEnum):
    """What becomes of a version."""

    CONVERTS = "converts"
    NEEDS_CODE = "needs code"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanLine:
    """One version: where it goes (`name`), what becomes of it and why; `files` are what would be sent."""

    origin: RegisteredVersion
    name: str
    fate: Fate
    reason: str
    files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What became of one line: the new version, or the error that the platform gave."""

    line: PlanLine
    version: str | None = None
    error: ModelyardError | None = None


class Uploader(Protocol):
    """The platform as an import needs it; the typed client fulfils it."""

    def upload(
        self,
        name: str,
        files: Sequence[Path],
        *,
        aliases: Sequence[str],
        tags: Mapping[str, str],
        source: Mapping[str, str],
    ) -> str:
        """Upload one version, wait for its verdict, set aliases and tags; gives the new version's number.

        A `ModelyardError` means that this version was not taken; the import goes on with the next.
        """


def plan(source: Source) -> list[PlanLine]:
    """A line for every version of `source`. Only `MLmodel` files are read; nothing is changed anywhere."""
    versions = list(source.versions())
    names = _names(sorted({version.name for version in versions}))
    return [_line(source, version, names[version.name]) for version in versions]


def carry_out(source: Source, lines: Sequence[PlanLine], uploader: Uploader) -> Iterator[Imported]:
    """Send every line that converts, in order; yields each as it is done, with one version on disk at a time."""
    for line in lines:
        if line.fate is not Fate.CONVERTS:
            continue
        origin = line.origin
        tags = dict(origin.tags) | {"mlflow.name": origin.name, "mlflow.version": str(origin.version)}
        if origin.run_id:
            tags["mlflow.run_id"] = origin.run_id
        came_from = {
            "kind": "mlflow", "uri": source.uri, "name": origin.name, "version": str(origin.version),
            "run": origin.run_id,
        }  # fmt: skip
        with tempfile.TemporaryDirectory(prefix="modelyard-import-") as place:
            try:
                files = [source.fetch(origin, name, Path(place), limit=FILE_BYTES) for name in line.files]
                version = uploader.upload(line.name, files, aliases=origin.aliases, tags=tags, source=came_from)
            except ModelyardError as error:
                yield Imported(line=line, error=error)
            else:
                yield Imported(line=line, version=version)


def _names(originals: Sequence[str]) -> dict[str, str]:
    """A valid name for each, two never the same."""
    taken: dict[str, str] = {}
    for original in originals:
        name = base = suggest_name(original)
        number = 1
        while name in taken.values():
            number += 1
            name = f"{base[:58]}-{number}"
        taken[original] = name
    return taken


def _line(source: Source, version: RegisteredVersion, name: str) -> PlanLine:
    line = PlanLine(origin=version, name=name, fate=Fate.REFUSED, reason="")
    if version.status != "READY":
        return replace(line, reason=f"its status is {version.status}, not READY")
    try:
        present = source.files(version)
        if MLMODEL not in present:
            return replace(line, reason="its directory has no MLmodel file")
        with tempfile.TemporaryDirectory(prefix="modelyard-plan-") as place:
            path = source.fetch(version, MLMODEL, Path(place), limit=MLMODEL_BYTES)
            model = read_mlmodel(path, present.keys(), InspectionPolicy())
    except TypeNotAllowed as error:
        hint = "pack it in its own environment with `modelyard pack`, or log it with a flavour of its library"
        return replace(line, fate=Fate.NEEDS_CODE, reason=f"{error.detail}; {hint}")
    except ModelyardError as error:
        return replace(line, reason=str(error))
    kind = model.kind
    beside = [one for one in present if one != model.weights and kind is WeightsKind.ONNX and _is_external(one)]
    files = (MLMODEL, model.weights, *beside, *(one for one in _DOCUMENTS if one in present))
    return replace(line, fate=Fate.CONVERTS, reason=_REASONS.get(kind, f"{kind}, read as it is"), files=files)


def _is_external(name: str) -> bool:
    return name.endswith((".data", ".onnx_data", ".bin"))
