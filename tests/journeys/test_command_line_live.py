"""The command line against a live platform: each command once, JSON where it is asked for, and what bad use is told."""

import json
import os
import re
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from stranger_models import joblib_classifier, make, mlflow_directory, original_pipeline

from modelyard.cli.main import SECTIONS, commands
from modelyard.testing.platform import Platform, running_platform

pytestmark = [pytest.mark.platform, pytest.mark.slow]
Done = subprocess.CompletedProcess


def modelyard(*arguments: str, cwd: Path, **environment: str) -> Done[str]:
    """Run one command to its end."""
    done = subprocess.run(
        [sys.executable, "-m", "modelyard.cli", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        cwd=cwd,
        env=os.environ | environment,
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert "Traceback" not in done.stdout, done.stdout
    return done


class Yard:
    """A platform with its command line."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.used: set[str] = set()

    def run(self, *arguments: str, code: int = 0) -> Done[str]:
        """A command that ends with `code`."""
        self.used.add(arguments[0])
        done = modelyard(*arguments, cwd=self.platform.directory, MODELYARD_URL=self.platform.control_url)
        assert done.returncode == code, (arguments, done.returncode, done.stdout, done.stderr)
        if code == 1:
            assert "hint:" in done.stderr, done.stderr
        return done

    def json(self, *arguments: str, code: int = 0) -> Any:
        """The same with `--json`: what it printed on stdout, which is JSON and nothing else."""
        return json.loads(self.run(*arguments, "--json", code=code).stdout)


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    with running_platform(tmp_path_factory.mktemp("yard")) as platform:
        yield Yard(platform)


def test_every_command_of_the_help_works_on_a_live_platform(yard: Yard, digits_bundle: Path, tmp_path: Path) -> None:
    _library(yard, digits_bundle, tmp_path)
    _services(yard)
    _governance(yard)
    _files(yard, tmp_path)
    _keeping(yard, tmp_path)
    _moving(yard, digits_bundle, tmp_path)
    rest = {name for names in SECTIONS.values() for name in names} - yard.used
    assert rest <= {"serve", "up", "projects", "copy"}, rest  # copying takes two platforms, and has a test of its own


def _library(yard: Yard, digits_bundle: Path, tmp_path: Path) -> None:
    assert yard.json("upload", str(digits_bundle), "--name", "digits", "--alias", "champion")["version"] == "1"
    shown = yard.run("upload", str(make(joblib_classifier, tmp_path / "a").path), "--name", "flowers").stdout
    assert "probe.golden" in shown
    assert "flowers:1  approved" in shown
    splines = make(original_pipeline, tmp_path / "b").path
    assert yard.json("upload", str(splines), "--name", "splines", code=3)["state"] == "needs_review"
    assert yard.json("upload", str(splines), "--name", "bad", code=3)["version"] == "1"
    assert {row["name"] for row in yard.json("models")} == {"digits", "flowers", "splines", "bad"}
    assert "digits" in yard.run("models", "--task", "classification", "--sort", "-name").stdout
    assert [row["name"] for row in yard.json("search", "digits")] == ["digits"]
    assert [row["version"] for row in yard.json("versions", "digits")] == ["1"]
    assert yard.json("show", "digits")["name"] == "digits"
    assert yard.json("show", "digits:1")["audit"]["verdict"] == "approved"
    assert "SplineTransformer" in yard.run("show", "splines:1").stdout
    assert {row["name"] for row in yard.json("reviews")} == {"splines", "bad"}
    yard.run("approve", "splines:1")
    yard.run("reject", "bad:1", "--reason", "not ours")
    yard.run("alias", "flowers", "champion", "1")
    assert "demo" in yard.run("tag", "flowers", "demo", "iris").stdout
    assert "shared" in yard.run("share", "flowers").stdout
    got = yard.run("download", "digits:1", "--out", str(tmp_path)).stdout.split()
    assert {Path(path).name for path in got} >= {"model.joblib", "labels.json"}
    assert (tmp_path / "digits-1" / "model.joblib").read_bytes() == (digits_bundle / "model.joblib").read_bytes()


def _services(yard: Yard) -> None:
    row = json.dumps([np.zeros(64).tolist()])
    assert yard.json("deploy", "digits")["phase"] == "serving"
    assert "serving" in yard.run("deploy", "splines", "--replicas", "1").stdout
    assert {row["name"] for row in yard.json("services")} == {"digits", "splines"}
    assert yard.json("status", "digits")["phase"] == "serving"
    assert "serving" in yard.run("status", "splines").stdout
    assert len(yard.json("predict", "digits", "--data", row)["outputs"]["label"]) == 1
    assert "label" in yard.run("predict", "digits", "--data", row).stdout
    assert yard.json("deploy", "digits", "--isolation", "process")["revision"] == 2
    assert len(yard.json("predict", "digits", "--data", row, "--version", "1")["outputs"]["label"]) == 1
    assert [row["revision"] for row in yard.json("revisions", "digits")] == [2, 1]
    assert "revision 3" in yard.run("rollback", "digits", "--to", "1").stdout
    assert yard.json("nodes")[0]["state"]
    _work(yard, row)
    yard.run("undeploy", "splines")
    yard.run("delete", "digits:1", "--yes", code=1)
    yard.run("delete", "bad:1", "--yes")
    yard.run("archive", "flowers:1", code=1)  # its champion


TRIAL = """
import json, os
x = json.load(open(os.environ["MODELYARD_TRIAL"]))["parameters"]["x"]
open("metrics.jsonl", "w").write(json.dumps({"score": x}))
"""


def _work(yard: Yard, row: str) -> None:
    """Asked later, whole files, and a smaller version; `row` is one row of digits as JSON."""
    asked = yard.json("predict", "digits", "--data", row, "--async")["id"]
    assert len(yard.json("result", "digits", asked)["outputs"]["label"]) == 1
    assert yard.run("result", "digits", asked, "--status").stdout.count("succeeded") == 1
    rows = yard.platform.directory / "rows.jsonl"
    rows.write_text((json.dumps(json.loads(row)[0]) + "\n") * 40)
    assert yard.json("batch", "digits", "--data", str(rows))["result"]["rows"] == 40
    job = yard.json("batch", "digits", "--data", str(rows), "--no-wait")["id"]
    assert yard.json("job", job, "--follow")["state"] == "succeeded"
    assert {each["state"] for each in yard.json("jobs")} == {"succeeded"}
    assert yard.json("dead-letters") == []
    sample = yard.platform.directory / "sample.csv"
    line = ",".join(map(str, json.loads(row)[0])) + "\n"
    sample.write_text(",".join(f"p{number}" for number in range(64)) + "\n" + line * 40)
    smaller = yard.json("compress", "digits:1", "--sample", str(sample), "--method", "graph", "--name", "lean")
    assert smaller["candidates"][0]["state"] == "version"
    load = ("--sample", str(sample), "--seconds", "5", "--rate", "100")
    quick = yard.json("optimise", "digits:1", *load, "--p99", "5s", "--method", "graph", "--runtime", "onnxruntime")
    assert quick["result"]["chosen"]["meets"] is True
    assert yard.json("measure", "digits", *load)["result"]["answered"] > 0
    many = yard.platform.directory / "many.csv"
    values = np.random.default_rng(0).integers(0, 17, (200, 64))
    np.savetxt(many, values, delimiter=",", fmt="%d", header=",".join(f"p{n}" for n in range(64)), comments="")
    student = ("--student", "tree", "--max-disagreement", "100", "--generate", "100", "--name", "small")
    assert yard.json("distil", "digits:1", "--sample", str(many), *student)["candidates"][0]["state"] == "version"
    _training(yard)
    queue = ("--dir", str(yard.platform.directory / "queue"))
    yard.run("stream", "send", "asked", "--group", "digits", "--data", str(rows), *queue)
    assert len(yard.run("stream", "read", "asked", "--group", "digits", *queue).stdout.splitlines()) == 40


def _training(yard: Yard) -> None:
    """Recipes, scripts, and networks."""
    table = yard.platform.directory / "table.csv"
    np.savetxt(
        table,
        np.random.default_rng(0).integers(0, 17, (200, 4)),
        delimiter=",",
        fmt="%d",
        header="a,b,c,d",
        comments="",
    )
    taught = yard.json("train", "guess", "--data", str(table), "--target", "d", "--estimator", "boosted")
    assert taught["candidates"][0]["state"] == "version"
    again = yard.json("train", "guess:1", "--data", str(table), "--earlier", str(table), "--only-if-drift", "0.2")
    assert again["result"]["trained"] is False
    yard.run("train", "guess", "--data", str(table), code=1)
    labelled = yard.platform.directory / "labelled.csv"
    names = ",".join(["digit", *(f"p{number}" for number in range(64))])
    np.savetxt(labelled, np.random.default_rng(1).integers(0, 10, (200, 65)), "%d", ",", header=names, comments="")
    refused = yard.run("fine-tune", "digits:1", "--sample", str(labelled), "--target", "digit", code=1)
    assert "are not taught here" in refused.stderr  # it is no network
    script = yard.platform.directory / "guess.py"
    script.write_text(TRIAL)
    found = yard.json(
        "tune", str(script), "--space", '{"x": {"choices": [1, 2]}}', "--metric", "score", "--method", "grid"
    )
    assert found["result"]["best"]["parameters"] == {"x": 2}


def _governance(yard: Yard) -> None:
    made = yard.json("keys", "create", "--name", "ci", "--scope", "infer")
    assert made["key"].startswith("mdy_live_")
    assert [row["id"] for row in yard.json("keys", "list")] == [made["id"]]
    assert "revoked" in yard.run("keys", "revoke", made["id"]).stdout
    assert yard.json("history", "--limit", "5")
    assert yard.run("history", "digits").stdout
    assert yard.json("history", "--verify")["intact"] is True
    assert yard.json("history", "digits", "--at", "2100-01-01T00:00:00Z")["live"]


def _files(yard: Yard, tmp_path: Path) -> None:
    """Services in files, their numbers, and what is on its way."""
    file = tmp_path / "digits.json"
    head = {"apiVersion": "modelyard.io/v1", "kind": "ModelService", "metadata": {"name": "filed"}}
    file.write_text(json.dumps({**head, "spec": {"model": "digits:1", "isolation": "process"}}))
    assert "create" in yard.run("plan", "-f", str(file), code=4).stdout
    yard.run("apply", "-f", str(file))
    yard.run("diff", "-f", str(file))
    assert "filed" in yard.run("export").stdout
    assert "serving" in yard.run("scale", "filed", "2").stdout
    assert yard.json("rollout", "status", "filed")["phase"] == "serving"
    yard.run("rollout", "promote", "filed", code=1)
    yard.run("shadow", "report", "filed", code=1)
    yard.run("undeploy", "filed")


def _keeping(yard: Yard, tmp_path: Path) -> None:
    """Nodes, secrets, and the whole in one file."""
    (node,) = yard.json("nodes")
    assert yard.json("node", node["name"], "--cordon", "--why", "a look")["state"] == "cordoned"
    assert yard.json("node", node["name"], "--uncordon")["state"] == "ready"
    (tmp_path / "secret").write_text("sk-a-text")
    yard.run("secrets", "set", "token", "--from-file", str(tmp_path / "secret"))
    assert [row["name"] for row in yard.json("secrets", "list")] == ["token"]
    yard.run("secrets", "delete", "token")
    file = tmp_path / "all.modelyard"
    assert yard.json("backup", str(file))["services"] >= 1
    assert "whole" in yard.run("restore", str(file), "--check").stdout


def _moving(yard: Yard, digits_bundle: Path, tmp_path: Path) -> None:
    registry = tmp_path / "mlflow"
    registry.mkdir()
    make(mlflow_directory, registry)
    assert yard.json("import", "mlflow", str(registry / "mlflow_model"), "--dry-run")
    packed = yard.json("pack", str(digits_bundle / "model.joblib"), "--out", str(tmp_path / "packed.zip"))
    assert Path(packed["path"]).is_file()
    assert yard.json("upload", packed["path"], "--name", "packed")["state"] == "approved"
    yard.run("archive", "packed:1")
    assert yard.json("versions", "packed")[0]["state"] == "archived"


@pytest.mark.parametrize("command", [name for names in SECTIONS.values() for name in names])
def test_every_command_explains_itself(command: str) -> None:
    done = CliRunner().invoke(commands, [command, "--help"])
    assert done.exit_code == 0
    assert "Usage: " in done.output


@pytest.mark.parametrize(
    "arguments",
    [["nothing"], ["serve"], ["serve", "--nothing", "x"], ["upload"], ["up", "--auth", "maybe"], ["keys", "nothing"]],
    ids=" ".join,
)
def test_wrong_use_ends_with_two(arguments: list[str], tmp_path: Path) -> None:
    done = modelyard(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert "Usage" in done.stderr
    assert done.stdout == ""


def test_what_cannot_be_served_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.joblib").write_text("hello")
    (tmp_path / "evil.pkl").write_bytes(b"cos\nsystem\n(S'touch canary'\ntR.")
    (tmp_path / "model.keras").write_bytes(b"PK\x03\x04 something")
    for path, words in (
        ("absent.joblib", "there is no"),
        ("empty", "holds no files"),
        ("text.joblib", ""),
        ("evil.pkl", "system"),
        ("model.keras", ""),
    ):
        done = modelyard("serve", path, "--port", "0", cwd=tmp_path)
        assert done.returncode == 1, (path, done.stdout, done.stderr)
        assert words in done.stdout + done.stderr, done
        assert "hint:" in done.stdout + done.stderr, done
    assert not (tmp_path / "canary").exists()


def test_a_port_that_is_taken_is_refused_by_name(tmp_path: Path, digits_bundle: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for arguments, option in (
            (["serve", str(digits_bundle), "--port", port], "--port"),
            (["up", "--data", str(tmp_path / "data"), "--control-port", port], "--control-port"),
            (["up", "--data", str(tmp_path / "data"), "--inference-port", port], "--inference-port"),
        ):
            done = modelyard(*arguments, cwd=tmp_path)
            assert done.returncode == 1
            assert f"port {port} on 127.0.0.1 is in use by process {os.getpid()}" in done.stderr
            assert option in done.stderr


def test_a_platform_that_is_not_there_is_told_in_words(tmp_path: Path) -> None:
    done = modelyard("models", "--url", "http://127.0.0.1:9", cwd=tmp_path)
    assert done.returncode == 1
    assert "hint:" in done.stderr
    assert "modelyard up" in done.stderr


def test_data_of_a_newer_version_is_refused_and_of_an_older_one_copied_then_migrated(tmp_path: Path) -> None:
    with running_platform(tmp_path) as platform:
        data, records = platform.places.data, platform.places.database
        platform.stop()
        with closing(sqlite3.connect(records)) as database, database:
            heads = [row[0] for row in database.execute("SELECT version_num FROM alembic_version")]
            database.execute("INSERT INTO alembic_version VALUES ('catalog_9999')")
            database.execute("UPDATE about SET value = '99.1' WHERE name = 'written_by'")
        done = modelyard("up", "--data", str(data), "--control-port", "0", "--inference-port", "0", cwd=tmp_path)
        assert done.returncode == 1
        assert "newer Modelyard (99.1" in done.stderr
        assert re.search(r"hint: .*99\.1", done.stderr), done.stderr
        with closing(sqlite3.connect(records)) as database, database:
            database.execute("DELETE FROM alembic_version WHERE version_num = 'catalog_9999'")
            database.execute("DELETE FROM alembic_version WHERE version_num = 'backups_0001'")
            database.execute("DROP TABLE backups")
        assert not list(platform.places.backups.glob("*.db"))
        platform.start()
        assert len(list(platform.places.backups.glob("before-*.db"))) == 1
        with closing(sqlite3.connect(records)) as database:
            now = [row[0] for row in database.execute("SELECT version_num FROM alembic_version")]
        assert sorted(now) == sorted(heads)
