"""Right answers as a network gives them: shares of classes, or numbers."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.platform import InvalidRequest

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


def as_texts(target: Any) -> list[str]:  # noqa: ANN401  (an array, or nothing)
    """Labels as text, whole numbers without a point."""
    values = [] if target is None else target.tolist()
    return [str(int(each)) if isinstance(each, float) and each.is_integer() else str(each) for each in values]


def shares_of(target: Any, labels: Sequence[str]) -> "Array":  # noqa: ANN401
    """Rows of 0 with a 1 at the place of their label: [rows, labels].

    Raises:
        InvalidRequest: a label is none of these.
    """
    import numpy as np

    places = {label: place for place, label in enumerate(labels)}
    texts = as_texts(target)
    unknown = next((each for each in texts if each not in places), None)
    if unknown is not None:
        raise InvalidRequest(
            f"the target holds {quote(unknown)}, which is no label of the model",
            hint="head new makes a last layer for other labels",
            details=[{"field": "parameters.target", "expected": list(labels[:8]), "received": unknown[:60]}],
        )
    return np.eye(len(labels), dtype=np.float32)[[places[each] for each in texts]]


def numbers_of(target: Any, width: int) -> "Array":  # noqa: ANN401
    """Numbers, [rows, width].

    Raises:
        InvalidRequest: they are none, or of another width.
    """
    import numpy as np

    try:
        values = np.asarray(target, dtype=np.float32).reshape(len(target), -1)
    except (TypeError, ValueError) as error:
        raise InvalidRequest("the target holds what is no number", hint="this network gives numbers") from error
    if values.shape[1] != width:
        raise InvalidRequest(f"the target has {values.shape[1]} numbers a row, and the network gives {width}")
    return values
