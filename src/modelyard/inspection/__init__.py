"""From files that a stranger sent to a package that can be served, or a refusal with its reason.

Both `modelyard serve` and the upload centre stand on this floor. The parent process parses structure in pure Python
and never loads a model; libraries run in two limited child programs (`inspection/children`), started by path.

What is imported from here is loaded when it is first asked for: the child programs live in this package too, and a
start of theirs shall not pay for the parent's parsers.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from modelyard.inspection.pipeline import Inspection, inspect_bundle
    from modelyard.inspection.policy import InspectionPolicy, ReceivedFile, TrustedKey

__all__ = ["Inspection", "InspectionPolicy", "ReceivedFile", "TrustedKey", "inspect_bundle"]

_HOMES: Final = {
    "Inspection": "modelyard.inspection.pipeline",
    "inspect_bundle": "modelyard.inspection.pipeline",
    "InspectionPolicy": "modelyard.inspection.policy",
    "ReceivedFile": "modelyard.inspection.policy",
    "TrustedKey": "modelyard.inspection.policy",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401  (any of the names above)
    """Load what is asked for by name (PEP 562)."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(home), name)
