"""Runtimes by name; none is imported before a package asks for it."""

from typing import Final

from modelyard.foundation.registry import Registry
from modelyard.ports.runtime import Runtime

RUNTIMES: Final = Registry[Runtime](
    group="modelyard.runtimes",
    builtin={
        "onnxruntime": "modelyard.integrations.runtimes.onnx:OnnxRuntime",
        "openvino": "modelyard.integrations.runtimes.openvino:OpenVino",
        "python_code": "modelyard.integrations.runtimes.python_code:PythonCode",
        "sklearn_original": "modelyard.integrations.runtimes.sklearn_original:SklearnOriginal",
        "torch_export": "modelyard.integrations.runtimes.torch_export:TorchExport",
    },
)
