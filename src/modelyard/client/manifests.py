"""Manifests from files: YAML (a safe subset, several documents) or JSON, with overlays merged over them.

An overlay is merged over the document of the same `metadata.name` (and `metadata.project`, where it names one), or over
all documents when it names none: maps are merged, everything else replaces what is there, and null takes a field away.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.platform import InvalidRequest
from modelyard.domain.errors.uploads import ConfigInvalid, ConfigUnsafe
from modelyard.foundation.strict_json import StrictJsonError, loads
from modelyard.inspection.documents.safe_yaml import read_yaml_documents

_MOST_BYTES: Final = 4 << 20
_DEPTH: Final = 32
_DIGITS: Final = 19
Document = dict[str, Any]


def read_manifests(paths: Sequence[str | Path], overlays: Sequence[str | Path] = ()) -> list[Document]:
    """The manifests in the files, in their order, with the overlays merged over them in theirs.

    Raises:
        InvalidRequest: a file cannot be read or is not YAML or JSON, or an overlay fits no document.
    """
    documents = [document for path in paths for document in _read(Path(path))]
    for path in overlays:
        for overlay in _read(Path(path)):
            documents = _overlay(documents, overlay, Path(path).name)
    return documents


def merged(base: Any, over: Any) -> Any:  # noqa: ANN401  (plain JSON)
    """`over` merged over `base`."""
    if not (isinstance(base, Mapping) and isinstance(over, Mapping)):
        return over
    result = dict(base)
    for name, value in over.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


def _read(path: Path) -> list[Document]:
    try:
        data = path.read_bytes()
        if len(data) > _MOST_BYTES:
            raise InvalidRequest(f"{quote(path.name)} is larger than {_MOST_BYTES >> 20} MiB", hint="split it")
        found = _json(data) if path.suffix.lower() == ".json" else _yaml(data, path.name)
    except OSError as error:
        raise InvalidRequest(f"{quote(path)} cannot be read", hint=error.strerror or "") from error
    except (ConfigInvalid, ConfigUnsafe) as error:
        raise InvalidRequest(error.detail, hint=error.hint) from error
    except (StrictJsonError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{quote(path.name)} is not a manifest: {error}", hint="write YAML or JSON") from error
    for document in found:
        if not isinstance(document, dict):
            raise InvalidRequest(
                f"{quote(path.name)} holds something else than maps", hint="a manifest begins with apiVersion"
            )
    return found


def _json(data: bytes) -> list[Any]:
    value = loads(data, max_depth=_DEPTH, max_digits=_DIGITS)
    return value if isinstance(value, list) else [value]


def _yaml(data: bytes, name: str) -> list[Any]:
    return read_yaml_documents(data.decode(), what=quote(name), max_depth=_DEPTH, max_digits=_DIGITS)


def _overlay(documents: list[Document], overlay: Document, name: str) -> list[Document]:
    fits = [_fits(overlay, document) for document in documents]
    if not any(fits):
        wanted = _metadata(overlay).get("name")
        raise InvalidRequest(
            f"the overlay {quote(name)} is about {quote(wanted)}, and no manifest is",
            hint="name a service of the manifests in metadata.name, or none for all of them",
        )
    return [merged(each, overlay) if fit else each for each, fit in zip(documents, fits, strict=True)]


def _fits(overlay: Document, document: Document) -> bool:
    wanted, found = _metadata(overlay), _metadata(document)
    return all(name not in wanted or wanted[name] == found.get(name) for name in ("name", "project"))


def _metadata(document: Document) -> Mapping[str, Any]:
    metadata = document.get("metadata")
    return metadata if isinstance(metadata, Mapping) else {}
