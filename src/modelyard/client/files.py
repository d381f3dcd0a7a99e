"""From what a person hands over (a path, a directory, a fitted model) to the files of an upload."""

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.platform import InvalidRequest
from modelyard.inspection.companions import with_companions

Part = tuple[str, tuple[str, BinaryIO, str]]
"""A multipart part as httpx takes it: field name, (file name, stream, content type)."""


@contextmanager
def upload_parts(model: object, *, labels: Path | None, config: Path | None) -> Iterator[list[Part]]:
    """Open files for an upload, closed again afterwards. A fitted estimator is written as joblib first.

    Raises:
        InvalidRequest: the path is not there, or the object is not one that can be written.
    """
    with ExitStack() as stack:
        if isinstance(model, str | Path):
            paths = {path.name: path for path in _paths(Path(model))}
        elif isinstance(model, Sequence):
            paths = {path.name: path for item in model for path in _paths(Path(item))}
        else:
            place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="modelyard-")))
            paths = {"model.joblib": _dump(model, place / "model.joblib")}
        if labels is not None:
            paths["labels" + labels.suffix] = labels
        if config is not None:
            paths["config.json" if config.suffix == ".json" else "model.yaml"] = config
        yield [
            ("files", (name, stack.enter_context(path.open("rb")), "application/octet-stream"))
            for name, path in paths.items()
        ]


def upload_params(*, alias: str | None, project: str | None, source: Mapping[str, object] | None) -> dict[str, str]:
    """What an upload's address says beside the model's name."""
    given = {"alias": alias, "project": project, "source": json.dumps(source) if source else None}
    return {name: value for name, value in given.items() if value}


def _paths(path: Path) -> list[Path]:
    if path.is_file():
        return with_companions(path)
    if path.is_dir():
        return sorted(item for item in path.iterdir() if item.is_file() and not item.name.startswith("."))
    raise InvalidRequest(f"there is no {quote(path)}", hint="give the path of a model file, a directory or an archive")


def _dump(model: Any, path: Path) -> Path:  # noqa: ANN401  (any estimator)
    if not hasattr(model, "predict") and not hasattr(model, "transform"):
        raise InvalidRequest(
            f"{type(model).__name__} is neither a path nor a fitted estimator",
            hint="give a path, or an object with predict() or transform()",
        )
    import joblib

    joblib.dump(model, path)
    return path
