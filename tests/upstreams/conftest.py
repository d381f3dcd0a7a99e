"""Model servers of the data plane's own kit, and small servers elsewhere for them to relay to."""

import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from small_servers import Upstream, small_upstream

from modelyard.domain.routing import RoutingTable
from modelyard.domain.upstreams import UpstreamRules


def _data_plane_kit() -> ModuleType:
    """The packages, tables and servers of the data plane's own tests."""
    name = "data_plane_kit"
    if name not in sys.modules:
        path = Path(__file__).parent.parent / "inference" / "conftest.py"
        spec = importlib.util.spec_from_file_location(name, path)
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
def pepper(tmp_path: Path) -> Path:
    path = tmp_path / "pepper"
    path.write_text("ab" * 32)
    path.chmod(0o600)
    return path


@pytest.fixture
def kit() -> SimpleNamespace:
    module = _data_plane_kit()
    names = ("until", "spec", "backend", "service", "question", "Traffic")
    functions = {name: getattr(module, name) for name in names}

    def table(*services: Any, allow_private: bool = True, **more: Any) -> RoutingTable:
        """A table under which the small servers of this machine may be asked."""
        rules = UpstreamRules(allow_private=allow_private, ca_file=more.pop("ca_file", None))
        return replace(module.table(*services, **more), upstreams=rules)

    return SimpleNamespace(**functions, table=table)


@pytest.fixture
def make_upstream() -> Iterator[Callable[..., Upstream]]:
    with ExitStack() as stack:
        yield lambda **more: stack.enter_context(small_upstream(**more))


@pytest.fixture
def upstream(make_upstream: Callable[..., Upstream]) -> Upstream:
    return make_upstream()
