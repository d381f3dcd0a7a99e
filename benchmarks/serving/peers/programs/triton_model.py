"""A model of Triton's Python backend: gathers what the dynamic batcher gives into one run.

The backend's interpreter does not read PYTHONPATH, so the path is extended here.
"""

import json
import os
import sys

sys.path[:0] = os.environ["SITE"].split(":")

import numpy as np
import triton_python_backend_utils as pb_utils
from sessions import open_session


class TritonPythonModel:
    def initialize(self, args):
        self.session = open_session(json.loads(args["model_config"])["name"])

    def execute(self, requests):
        arrays = [pb_utils.get_input_tensor_by_name(request, "x").as_numpy() for request in requests]
        answer = self.session.run(None, {"x": np.concatenate(arrays) if len(arrays) > 1 else arrays[0]})[0]
        answers, at = [], 0
        for array in arrays:
            end = at + len(array)
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("y", answer[at:end])]))
            at = end
        return answers
