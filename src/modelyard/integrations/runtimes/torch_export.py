"""Serve exported PyTorch programs (`pt2`) as own code is served: by a program of their own, never in a process of ours.

The few lines that ask torch are in the package (`inspection/children/torch_export_predict.py`). Which torch: that which
is installed beside Modelyard, else the environment that was built from the package's lock file.
"""

from modelyard.integrations.runtimes.python_code import PythonCode


class TorchExport(PythonCode):
    """The runtime `torch_export`."""

    name = "torch_export"
