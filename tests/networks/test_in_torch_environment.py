"""Networks are taught with PyTorch, which has an environment of its own here: the tests beside this one run in it."""

import re
import subprocess
from pathlib import Path

import pytest


@pytest.mark.slow
def test_networks_are_taught_and_pruned_where_pytorch_is_installed(torch_python: Path, tmp_path: Path) -> None:
    beside = Path(__file__).with_name("test_networks.py")
    done = subprocess.run(
        [
            torch_python,
            "-m",
            "pytest",
            beside,
            "-q",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:xdist",
            f"--basetemp={tmp_path / 'b'}",
        ],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) >= 15  # type: ignore[index]
    assert "skipped" not in done.stdout
