"""Graphs for formats that carry none: bare weights, XGBoost and LightGBM files become ONNX here.

Each builder reads its format with code of its own (no booster library is needed to serve a booster) and promises the
library's own answers within float rounding, or an `UploadRefused` that says what to change. What is handed in is
hostile: every count and index is checked before it is used. Builders run in the convert child only.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from modelyard.domain.contract import Labelling, Task

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A graph and what it knows of itself.

    `labels` are those that the file itself names, in class-index order, mostly none; the bundle's label map is laid
    over them by the caller. `labelling` says which output decides the class (None: not a classifier, or no
    probabilities). `allows_nan` holds for every input: NaN means "missing" to the model. `feature_names` names the
    columns of a two-dimensional input, in order, when the file does. `notes` are sentences for the audit report.
    """

    model: "onnx.ModelProto"
    task: Task
    labels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    labelling: Labelling | None = None
    allows_nan: bool = False
    feature_names: tuple[str, ...] = ()
