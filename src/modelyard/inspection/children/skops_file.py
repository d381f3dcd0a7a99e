"""Read a skops file: its own audit of types, with our table as the trusted list, and never a fall-back to pickle."""

from pathlib import Path
from typing import Any

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.uploads import UploadRefused, WeightsFormat, WeightsUnsafe
from modelyard.inspection.children import audit_hook
from modelyard.inspection.children.unpickle import Unpickled, accepted, version_warnings
from modelyard.inspection.pickle_types import is_allowed


def read_skops(path: Path) -> Unpickled:
    """The model in a skops file.

    Raises:
        WeightsUnsafe: a type outside the table.
        WeightsFormat: damaged.
    """
    from skops import io
    from skops.io.exceptions import UntrustedTypesFoundException

    with version_warnings() as heard:
        try:
            named = io.get_untrusted_types(file=path)
            foreign = [name for name in named if not is_allowed(*_parted(name))]
            if foreign:
                raise WeightsUnsafe(  # noqa: TRY301  (nothing has been read yet)
                    f"the skops file names {quote(foreign[0])}",
                    hint="only types of scikit-learn, numpy and scipy are known; bring own code as predict.py",
                )
            with audit_hook.reading():
                model: Any = io.load(path, trusted=named)
        except (UploadRefused, MemoryError):
            raise
        except UntrustedTypesFoundException as error:
            raise WeightsUnsafe("the skops file names types that are not known here") from error
        except Exception as error:
            raise WeightsFormat(
                f"the skops file cannot be read: {quote(f'{type(error).__name__}: {error}', limit=200)}",
                hint="save it again with skops.io.dump",
            ) from error
    return accepted(model, tuple(heard))


def _parted(name: str) -> tuple[str, str]:
    module, _, attribute = name.rpartition(".")
    return module, attribute
