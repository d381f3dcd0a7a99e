"""The experiments in their small form: the same faults, a few hundred requests, one platform."""

from collections.abc import Iterator

import pytest
from tests.faults.experiment import REGISTRY, SHORT, Stands, carry_out
from tests.faults.experiments import load_all

load_all()
pytestmark = [pytest.mark.platform, pytest.mark.slow, pytest.mark.xdist_group("faults"), pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def stands() -> Iterator[Stands]:
    """Platforms, shared by the experiments."""
    made = Stands()
    yield made
    made.close()


@pytest.mark.parametrize("name", sorted(name for name, each in REGISTRY.items() if each.short))
def test_the_hypothesis_holds(name: str, stands: Stands) -> None:
    run = carry_out(REGISTRY[name], SHORT, seed=1, stands=stands)
    if run.unable:
        pytest.skip(run.unable)
    assert run.passed, "\n".join(run.failures)
