"""Load what the author wants packed. This runs the author's own code, on the author's own machine, and says so."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.platform import InvalidRequest

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    Sample = np.ndarray[Any, Any] | pd.DataFrame

PICKLES: Final = frozenset({".joblib", ".pkl", ".pickle"})
READY_MADE: Final = frozenset({".onnx", ".skops", ".safetensors", ".ubj", ".json", ".txt"})


def load_object(source: str | Path) -> object:
    """The estimator in a joblib or pickle file, or the one that `module:object` names.

    Loading executes what the file or module says: only for files of one's own, in one's own environment.

    Raises:
        InvalidRequest: nothing is there, or it cannot be loaded here.
    """
    path = Path(source)
    if path.is_file():
        import joblib

        try:
            return joblib.load(path)
        except Exception as error:
            raise InvalidRequest(
                f"{quote(path.name)} cannot be loaded here: {quote(error, limit=200)}",
                hint="run this in the environment in which the model was trained",
            ) from error
    module, found, attribute = str(source).partition(":")
    if not found or not module or not attribute:
        raise InvalidRequest(f"{quote(source)} is neither a file nor module:object", hint="such as train:model")
    try:
        value: object = import_module(module)
        for part in attribute.split("."):
            value = getattr(value, part)
    except (ImportError, AttributeError) as error:
        raise InvalidRequest(f"{quote(source)} cannot be imported: {quote(error, limit=200)}") from error
    return value


def read_sample(path: Path) -> "Sample":
    """Rows as the model is asked: `.npy` as an array, `.csv` with a header as a DataFrame."""
    import numpy as np
    import pandas as pd

    try:
        if path.suffix == ".npy":
            rows: np.ndarray[Any, Any] = np.load(path, allow_pickle=False)
            return rows
        if path.suffix == ".csv":
            return pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"the sample {quote(path.name)} cannot be read: {quote(error, limit=120)}") from error
    raise InvalidRequest(f"a sample is a .csv or .npy file, not {quote(path.name)}")
