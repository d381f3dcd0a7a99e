"""The data plane's own kit, and routes to graphs as the control plane publishes them."""

import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from onnx import helper

from modelyard.domain.contract import ModelContract
from modelyard.domain.routing import RoutingTable
from modelyard.domain.tensors import DataType
from modelyard.domain.upstreams import UpstreamRules

HERE = Path(__file__).parent
for place in (HERE, HERE.parent / "upstreams"):
    sys.path.insert(0, str(place))


def _data_plane_kit() -> ModuleType:
    """The packages, tables and servers of the data plane's own tests."""
    name = "data_plane_kit"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, HERE.parent / "inference" / "conftest.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


@pytest.fixture
def packages(tmp_path: Path) -> Any:
    return _data_plane_kit().Packages(tmp_path / "packages")


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Any]:
    started = _data_plane_kit().Servers(tmp_path)
    yield started
    started.close()


@pytest.fixture
def kit(packages: Any) -> SimpleNamespace:
    module = _data_plane_kit()
    names = ("until", "spec", "backend", "service", "question", "Traffic")

    def table(*services: Any, **more: Any) -> RoutingTable:
        return replace(module.table(*services, **more), upstreams=UpstreamRules(allow_private=True))

    def times(name: str, factor: float, *, source: str = "x", target: str = "y", **more: Any) -> Path:
        """target = factor · source, both FP32 [-1, 2]."""
        contract = ModelContract(
            inputs=(module.spec(source, DataType.FP32, -1, 2),),
            outputs=(module.spec(target, DataType.FP32, -1, 2),),
            max_batch_size=64,
        )
        constants = {"f": np.array([factor], dtype="f4")}
        made: Path = packages.graph(
            name, [helper.make_node("Mul", [source, "f"], [target])], contract, constants=constants, **more
        )
        return made

    functions = {name: getattr(module, name) for name in names}
    return SimpleNamespace(**functions, table=table, times=times)
