"""The folder's own kit is importable by name; servers are those of the data plane's own tests."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from token_kit import KeyServer


def _kit_of(folder: str, name: str) -> ModuleType:
    if name not in sys.modules:
        path = Path(__file__).parent.parent / folder / "conftest.py"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


@pytest.fixture(scope="session")
def kit() -> ModuleType:
    """Packages, tables and model servers."""
    return _kit_of("inference", "data_plane_kit")


@pytest.fixture(scope="session")
def grpc_kit() -> ModuleType:
    """A plain gRPC client."""
    return _kit_of("inference_grpc", "grpc_kit")


@pytest.fixture
def key_server() -> Iterator[KeyServer]:
    """An issuer's address for its public keys."""
    with KeyServer() as server:
        yield server


@pytest.fixture(scope="module")
def started(kit: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Makes packages and starts servers."""
    root = tmp_path_factory.mktemp("tokens")
    servers = kit.Servers(root)
    servers.packages = kit.Packages(root / "packages")
    yield servers
    servers.close()
