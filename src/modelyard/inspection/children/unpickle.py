"""Read a scikit-learn pickle or joblib file with an unpickler that knows one table of types and nothing else.

`inspection/pickle_types.py` is the table. A name outside it is refused before it is imported; nested streams (joblib
keeps arrays of objects as pickles of their own) ask the same table. What comes out is checked (`bounds`) before anybody
calls it. The same reader serves the audit and the runtime that answers from an approved original.
"""

import bz2
import gzip
import io
import lzma
import pickle
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

from joblib.numpy_pickle import NumpyUnpickler

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.uploads import UploadRefused, WeightsFormat, WeightsUnsafe
from modelyard.inspection.children import audit_hook, bounds
from modelyard.inspection.pickle_types import MODEL_ROOTS, RENAMED, is_allowed

MAX_EXPANDED_BYTES: Final = 2 << 30
_HINT_OWN_CODE: Final = (
    "only types of scikit-learn, numpy, scipy, XGBoost and LightGBM are known; bring own classes as predict.py with a "
    "requirements.lock, or save the ONNX form"
)
_HINT_VERSION: Final = "save it again with a scikit-learn release near the one that is installed here, or as ONNX"
_UNREADABLE: Final = (
    pickle.UnpicklingError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
    zlib.error,
)


@dataclass(frozen=True, slots=True)
class Unpickled:
    """A model that was read: `version_warnings` say which parts were saved by another version of their library."""

    model: Any
    version_warnings: tuple[str, ...] = field(default=())


def read_estimator(path: Path) -> Unpickled:
    """The model in a pickle or joblib file, compressed or not.

    Raises:
        WeightsUnsafe: the file names something outside the table.
        WeightsFormat: damaged, of another library version, or not a model.
    """
    with path.open("rb") as raw:
        return read_stream(expand(raw), str(path))


def read_stream(content: BinaryIO, name: str = "") -> Unpickled:
    """The model in a stream of expanded bytes."""
    with version_warnings() as heard:
        try:
            with audit_hook.reading():
                model = _TableUnpickler(name, content, ensure_native_byte_order=True).load()
        except UploadRefused:
            raise
        except MemoryError:
            raise
        except _UNREADABLE as error:
            raise WeightsFormat(
                f"the pickle cannot be read: {quote(f'{type(error).__name__}: {error}', limit=200)}", hint=_HINT_VERSION
            ) from error
    return accepted(model, tuple(heard))


def accepted(model: object, heard: tuple[str, ...]) -> Unpickled:
    """`model`, when it is one and its arrays keep their bounds."""
    root = type(model).__module__.partition(".")[0]
    if root not in MODEL_ROOTS:
        raise WeightsFormat(
            f"the file holds a {quote(type(model).__name__)}, not a model",
            hint="save the fitted estimator or pipeline itself: joblib.dump(pipeline, 'model.joblib')",
        )
    bounds.check(model)
    return Unpickled(model, heard)


@contextmanager
def version_warnings() -> Iterator[list[str]]:
    """Collects what libraries say about files of other versions; silences the rest."""
    heard: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield heard
    for warning in caught:
        if warning.category.__name__ == "InconsistentVersionWarning":
            message = cast("Any", warning.message)
            text = f"{message.estimator_name} was saved by {message.original_sklearn_version}, here is " + (
                str(message.current_sklearn_version)
            )
            if text not in heard:
                heard.append(text)


def expand(raw: BinaryIO) -> BinaryIO:
    """`raw` without its compression, told by its first bytes; never more than `MAX_EXPANDED_BYTES`."""
    head = raw.read(6)
    raw.seek(0)
    if head.startswith(b"\x1f\x8b"):
        return _expanded(cast("BinaryIO", gzip.GzipFile(fileobj=raw)))
    if head.startswith(b"BZh"):
        return _expanded(cast("BinaryIO", bz2.BZ2File(raw)))
    if head.startswith((b"\xfd7zXZ\x00", b"\x5d\x00")):
        return _expanded(cast("BinaryIO", lzma.LZMAFile(raw)))
    if head[:1] == b"\x78" and len(head) > 1 and (head[0] * 256 + head[1]) % 31 == 0:  # RFC 1950, section 2.2
        data = zlib.decompressobj()
        content = data.decompress(raw.read(), MAX_EXPANDED_BYTES)
        if data.unconsumed_tail:
            raise _too_long()
        return io.BytesIO(content)
    if head.startswith((b"\x04\x22\x4d\x18", b"\x02\x21\x4c\x18")):
        raise WeightsFormat("the file is compressed with lz4", hint="save it with compress=3 (zlib) or without")
    return raw


def _expanded(stream: BinaryIO) -> BinaryIO:
    try:
        content = stream.read(MAX_EXPANDED_BYTES + 1)
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise WeightsFormat("the compressed file is damaged", hint="upload it again") from error
    if len(content) > MAX_EXPANDED_BYTES:
        raise _too_long()
    return io.BytesIO(content)


def _too_long() -> UploadRefused:
    return WeightsFormat(f"the file expands to more than {MAX_EXPANDED_BYTES >> 30} GiB", hint="save it uncompressed")


class _TableUnpickler(NumpyUnpickler):  # type: ignore[misc]  # joblib ships no types
    """joblib's reader (which also reads plain pickles), with the table in front of every name."""

    def find_class(self, module: str, name: str) -> object:
        """The type or function of the table, else `WeightsUnsafe`."""
        if not is_allowed(module, name):
            raise WeightsUnsafe(f"the pickle names {quote(f'{module}.{name}')}", hint=_HINT_OWN_CODE)
        try:
            with warnings.catch_warnings(), audit_hook.importing():
                warnings.simplefilter("ignore")
                return getattr(import_module(RENAMED.get(module, module)), name)
        except ModuleNotFoundError as error:
            raise WeightsFormat(
                f"the pickle needs {quote(module)}, which is not installed here", hint=_HINT_VERSION
            ) from error
        except AttributeError as error:
            raise WeightsFormat(
                f"the pickle needs {quote(f'{module}.{name}')}, which this version does not have", hint=_HINT_VERSION
            ) from error

    def persistent_load(self, identity: object) -> object:
        """Models have no parts outside their file."""
        raise WeightsUnsafe(f"the pickle refers to something outside it: {quote(identity)}", hint=_HINT_OWN_CODE)
