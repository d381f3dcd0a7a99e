"""The models as the programs of the peers hold them: onnxruntime with one thread, the same for all.

Runs in the peers' own environments: nothing but numpy and onnxruntime is imported. `MODELS` is the directory.
"""

import os
from pathlib import Path

import numpy as np
import onnxruntime

NAMES = tuple(os.environ.get("MODEL_NAMES", "s,m,r").split(","))


def open_session(name):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    path = Path(os.environ["MODELS"]) / f"{name}.onnx"
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def to_array(document):
    """The input of a V2 request."""
    one = document["inputs"][0]
    return np.asarray(one["data"], dtype=np.float32).reshape(one["shape"])


def to_document(name, answer):
    """A V2 answer."""
    output = {"name": "y", "shape": list(answer.shape), "datatype": "FP32", "data": answer.ravel().tolist()}
    return {"model_name": name, "outputs": [output]}
