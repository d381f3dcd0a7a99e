"""Save S as an MLflow model of the ONNX flavour: `mlflow models serve` then does the rest."""

import os
import sys

import mlflow.onnx
import onnx

model = onnx.load(os.path.join(os.environ["MODELS"], "s.onnx"))
mlflow.onnx.save_model(model, sys.argv[1])
