"""The tutorial's notebook runs from its first cell to its last, against a real platform."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from modelyard.testing.platform import running_platform

NOTEBOOK = Path(__file__).parents[2] / "docs" / "tutorial" / "python-client.ipynb"


@pytest.mark.platform
@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::RuntimeWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
def test_the_notebook_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running_platform(tmp_path) as platform:
        monkeypatch.setenv("MODELYARD_URL", platform.control_url)
        notebook = nbformat.read(NOTEBOOK, as_version=4)
        NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = str([cell.get("outputs") for cell in notebook.cells])
    assert "customers:1" in shown
    assert "missing: city" in shown
