"""`modelyard import mlflow`, from a real MLflow server into a real platform."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from modelyard.testing.platform import running_platform


def modelyard(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "modelyard.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


@pytest.mark.slow
@pytest.mark.platform
def test_a_registry_comes_in_with_names_aliases_and_runs(mlflow_server, tmp_path: Path) -> None:
    with running_platform(tmp_path) as platform:
        address, _ = mlflow_server
        planned = modelyard("import", "mlflow", address, "--dry-run", "--json")
        assert planned.returncode == 0, planned.stderr
        lines = json.loads(planned.stdout)
        with platform.client() as client:
            assert client.models() == []

            done = modelyard("import", "mlflow", address, "--json", "--url", platform.control_url)
            rows = json.loads(done.stdout)
            assert {row["name"] for row in rows} == {line["becomes"] for line in lines if line["fate"] == "converts"}

            taken = [row for row in rows if row["error"] is None]
            assert taken == rows
            for row in taken:
                version = client.version(row["name"], row["version"])
                line = next(line for line in lines if f"{line['model']} {line['version']}" == row["from"])
                assert version.document["source"]["kind"] == "mlflow"
                assert version.document["source"]["run"] == line["run"]
                assert set(line["aliases"]) <= set(version.document["aliases"])
