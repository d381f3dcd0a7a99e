"""Run in the environment of locks/mlflow.txt: log real models into the registry whose address is given."""

import sys
import warnings

warnings.simplefilter("ignore")

import mlflow  # noqa: E402
import numpy as np  # noqa: E402
import onnx  # noqa: E402
import xgboost as xgb  # noqa: E402
from mlflow import MlflowClient  # noqa: E402
from onnx import TensorProto, helper  # noqa: E402
from sklearn.datasets import load_iris  # noqa: E402
from sklearn.linear_model import LogisticRegression  # noqa: E402


class Own(mlflow.pyfunc.PythonModel):
    def predict(self, model_input):
        return model_input


def main():
    mlflow.set_tracking_uri(sys.argv[1])
    x, y = load_iris(return_X_y=True)
    model = LogisticRegression(max_iter=500).fit(x, y)
    client = MlflowClient()
    with mlflow.start_run():
        options = {"name": "m", "registered_model_name": "Iris flowers", "pip_requirements": []}
        mlflow.sklearn.log_model(model, serialization_format="cloudpickle", **options)
        mlflow.sklearn.log_model(model, serialization_format="skops", **options)
        booster = xgb.train({"max_depth": 2, "nthread": 1}, xgb.DMatrix(x, y), 3)
        mlflow.xgboost.log_model(booster, name="b", registered_model_name="boosted", pip_requirements=[])
        node = helper.make_node("Relu", ["x"], ["y"])
        ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 4]) for name in ("x", "y")]
        graph = helper.make_graph([node], "g", ends[:1], ends[1:])
        built = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        onnx.checker.check_model(built)
        signature = mlflow.models.infer_signature(np.zeros((1, 4), np.float32))
        onnx_options = {"signature": signature, "pip_requirements": [], "save_as_external_data": False}
        mlflow.onnx.log_model(built, name="o", registered_model_name="graph", **onnx_options)
        mlflow.pyfunc.log_model(name="p", python_model=Own(), registered_model_name="own", pip_requirements=[])
    client.set_registered_model_alias("Iris flowers", "champion", 2)
    client.set_model_version_tag("Iris flowers", 1, "team", "a")


main()
