"""Studies over scripts and recipes: what is found, what is kept, and what a bad script can and cannot do."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from sklearn.datasets import load_breast_cancer

from modelyard.domain.errors.platform import InvalidRequest, JobFailed
from modelyard.testing.platform import wait_until

HEAD = """
import json, os
trial = json.load(open(os.environ["MODELYARD_TRIAL"]))
p = trial["parameters"]
def say(**values):
    with open("metrics.jsonl", "a") as lines:
        lines.write(json.dumps(values) + "\\n")
"""
BOWL = HEAD + 'say(score=-(p["x"] - 2) ** 2 - p.get("y", 0))\n'
SPACE = {"x": {"low": -5, "high": 5}, "y": {"choices": [0, 1, [3]]}}
FAILS_BUT = HEAD + 'if p["x"] != 1:\n    {}\nsay(score=1)\n'


def test_a_search_finds_what_is_best_and_keeps_every_trial(tune) -> None:
    script = HEAD + 'say(score=-(p["x"] - 2) ** 2 - (p["y"] if isinstance(p["y"], int) else p["y"][0]))\n'
    done = tune(script=script, space=SPACE, metrics=["score"], trials=40, parallel=2)
    assert done.result["best"]["parameters"]["x"] == pytest.approx(2, abs=0.7)
    assert done.result["best"]["parameters"]["y"] == 0
    assert done.result["trials"] == {"complete": 40, "pruned": 0, "failed": 0}
    lines = [json.loads(line) for line in done.attempt.kept["trials.jsonl"].read_text().splitlines()]
    assert [each["number"] for each in lines] == list(range(40))
    assert max(each["values"]["score"] for each in lines) == done.result["best"]["values"]["score"]
    assert done.attempt.kept["study.svg"].read_text().startswith("<?xml")
    assert done.result["importances"]["x"] > done.result["importances"]["y"]
    assert done.attempt.reports[-1].metrics["score"] == done.result["best"]["values"]["score"]


def test_a_grid_tries_every_combination_once(tune) -> None:
    space = {"x": {"low": 0, "high": 3, "whole": True}, "y": {"choices": [0, 1]}}
    done = tune(script=BOWL, space=space, metrics=["score"], method="grid", trials=100, parallel=2)
    lines = [json.loads(line) for line in done.attempt.kept["trials.jsonl"].read_text().splitlines()]
    assert sorted((each["parameters"]["x"], each["parameters"]["y"]) for each in lines) == [
        (x, y) for x in range(4) for y in range(2)
    ]
    assert done.result["best"]["parameters"] == {"x": 2, "y": 0}


@pytest.mark.parametrize("method", ["random", "tpe"])
def test_the_same_seed_tries_the_same(tune, tmp_path, method) -> None:
    def tried(name: str, seed: int) -> list[float]:
        done = tune(
            script=BOWL,
            root=tmp_path / name,
            seed=seed,
            space={"x": SPACE["x"]},
            metrics=["score"],
            method=method,
            trials=14,
        )
        return [
            json.loads(line)["parameters"]["x"] for line in done.attempt.kept["trials.jsonl"].read_text().splitlines()
        ]

    first = tried("first", 1)
    assert tried("again", 1) == first
    assert tried("other", 2) != first


def test_of_several_metrics_the_front_is_what_no_other_beats(tune) -> None:
    script = HEAD + 'say(good=p["x"] - (p["x"] == 3), cost=p["x"])\n'
    space = {"x": {"low": 0, "high": 5, "whole": True}}
    done = tune(script=script, space=space, metrics=["good", "cost:minimise"], method="grid", trials=10)
    assert sorted(each["parameters"]["x"] for each in done.result["front"]) == [0, 1, 2, 4, 5]
    assert done.result["best"]["parameters"]["x"] == 5


def test_a_hopeless_trial_is_ended_early(tune) -> None:
    script = HEAD + (
        "import time\n"
        'if p["x"] >= 6:\n'
        "    say(step=0, score=-100)\n"
        "    time.sleep(600)\n"
        'say(step=0, score=p["x"])\nsay(score=p["x"])\n'
    )
    space = {"x": {"low": 0, "high": 7, "whole": True}}
    done = tune(script=script, space=space, metrics=["score"], method="grid", trials=8, pruning="median")
    assert done.result["trials"] == {"complete": 6, "pruned": 2, "failed": 0}


def test_the_best_trial_s_model_is_offered_and_the_others_are_not_kept(tune) -> None:
    script = BOWL + 'open("model.onnx", "w").write(str(p["x"]))\n'
    done = tune(script=script, space={"x": SPACE["x"]}, metrics=["score"], trials=12, name="bowl", parent="bowl:1")
    [offered] = done.attempt.offered
    assert float(offered.data) == done.result["best"]["parameters"]["x"]
    assert (offered.name, offered.parent) == ("bowl", "bowl:1")
    assert [each.name for each in (done.attempt.checkpoint() / "trials").iterdir()] == [
        str(done.result["best"]["number"])
    ]
    with pytest.raises(InvalidRequest, match="wrote no model"):
        tune(
            script=BOWL,
            root=done.attempt.checkpoint() / "other",
            space={"x": SPACE["x"]},
            metrics=["score"],
            trials=1,
            name="b",
        )


@pytest.mark.parametrize(
    ("does", "said"),
    [
        ("raise ValueError('no such thing')", "status 1: ValueError: no such thing"),
        ("import sys; sys.exit('bad luck')", "bad luck"),
        ("import time; time.sleep(600)", "not done after 2 seconds"),
        ("import numpy; a = [numpy.ones(10_000_000) for _ in range(100)]", "more than the 400 MiB of memory"),
        ("open('big', 'wb').write(b'x' * 60_000_000)", "File too large"),
        (
            "import time\n    for n in range(90): open(f'b{n}', 'wb').write(b'x' * 10**6)\n    time.sleep(600)",
            "wrote more than 50 MiB",
        ),
        ("import socket; socket.create_connection(('127.0.0.1', 80))", "has no network and starts no processes"),
        ("import socket; socket.socket(socket.AF_UNIX)", "has no network"),
        ("import subprocess; subprocess.run(['true'])", "starts no processes"),
        ("os.fork()", "starts no processes"),
        ("os.kill(os.getppid(), 9)", "Operation not permitted"),
        ("os.setsid()", "Operation not permitted"),
        ("open('/etc/passwd').read()", "Permission denied: '/etc/passwd'"),
        ("open('../../trials.jsonl', 'a').write('x')", "Permission denied"),
        ("raise SystemExit(0)", "without metrics"),
        ("say(score=float('nan'))", "no object of numbers"),
        ("open('metrics.jsonl', 'w').write('[1]\\n')", "line 1 of metrics.jsonl is no object"),
        ("say(other=1); raise SystemExit(0)", "gave no score"),
        ("os._exit(3)", "status 3"),
        ("os.abort()", "SIGABRT"),
    ],
)
def test_a_bad_trial_fails_alone_with_its_reason(tune, does, said) -> None:
    done = tune(
        script=FAILS_BUT.format(does),
        space={"x": {"choices": [0, 1]}},
        metrics=["score"],
        method="grid",
        trials=2,
        trial_seconds=2,
        trial_memory_mb=400,
        trial_disk_mb=50,
    )
    assert done.result["trials"] == {"complete": 1, "pruned": 0, "failed": 1}
    [failure] = done.result["failures"]
    assert said in failure["reason"]
    assert done.attempt.kept["trial-0.log"].is_file()
    assert left_behind() == []


def test_what_a_script_leaves_open_or_unended_is_still_read(tune) -> None:
    script = HEAD + 'lines = open("metrics.jsonl", "w")\nlines.write(json.dumps({"score": p["x"]}))\n'
    done = tune(script=script, space={"x": {"choices": [1, 2]}}, metrics=["score"], method="grid", trials=2)
    assert done.result["best"]["parameters"] == {"x": 2}


def test_secrets_that_a_script_prints_are_not_kept(tune, capsys) -> None:
    does = "print('password=hunter2'); 1 / 0"
    done = tune(
        script=FAILS_BUT.format(does), space={"x": {"choices": [0, 1]}}, metrics=["score"], method="grid", trials=2
    )
    log = done.attempt.kept["trial-0.log"].read_text()
    assert "ZeroDivisionError" in log
    assert "hunter2" not in log + json.dumps(done.result) + capsys.readouterr().out


def test_a_script_that_never_gets_through_is_given_up_with_the_end_of_its_log(tune) -> None:
    with pytest.raises(JobFailed, match="all of the first 10 trials failed") as failed:
        tune(
            script="print('here I am')\nimport nothing_of_this_name\n",
            space={"x": SPACE["x"]},
            metrics=["score"],
            trials=50,
        )
    assert "nothing_of_this_name" in failed.value.detail
    assert "here I am" in (failed.value.hint or "")
    assert left_behind() == []


def test_a_study_that_was_killed_goes_on_where_it_stood(tune, tmp_path) -> None:
    """A process like that of a job is killed in the middle; the second attempt has the trials of the first."""
    (tmp_path / "train.py").write_text(BOWL + "import time; time.sleep(0.2)\n")
    wish = {"space": {"x": {"low": 0, "high": 11, "whole": True}}, "metrics": ["score"], "method": "grid", "trials": 12}
    code = (
        "import json, sys\nfrom pathlib import Path\n"
        "from modelyard.domain.job_kinds import check_job, find_kind\n"
        "from modelyard.integrations.tuning.tune import Tune\n"
        "from modelyard.testing.attempts import RecordedAttempt\n"
        "root, script, wish = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])\n"
        "inputs = {'script': script}\n"
        "filled = check_job(find_kind('tune'), wish, inputs)\n"
        "Tune().run(RecordedAttempt(root, filled, inputs, kind='tune'))\n"
    )
    first, second = tmp_path / "first", tmp_path / "second"
    command = [sys.executable, "-c", code, str(first), str(tmp_path / "train.py"), json.dumps(wish)]
    with subprocess.Popen(command, start_new_session=True) as running:
        lines = first / "checkpoint" / "trials.jsonl"
        wait_until(lambda: lines.is_file() and lines.read_text().count("\n") >= 3, what="three trials")
        children = psutil.Process(running.pid).children(recursive=True)
        os.kill(running.pid, signal.SIGKILL)
    wait_until(lambda: not any(_lives(child) for child in children), what="no trial without its study")
    before = lines.read_text().splitlines()
    second.mkdir()
    (first / "checkpoint").rename(second / "checkpoint")
    with (second / "checkpoint" / "trials.jsonl").open("a") as torn:
        torn.write('{"number": 99, "para')  # what a power cut leaves
    done = tune(script=BOWL, root=second, **wish)
    after = (second / "checkpoint" / "trials.jsonl").read_text().splitlines()
    assert after[: len(before)] == before
    assert sorted(json.loads(line)["parameters"]["x"] for line in after) == list(range(12))
    assert done.result["best"]["parameters"] == {"x": 2}


def left_behind() -> list[psutil.Process]:
    """Processes of studies that still run below this one."""
    children = psutil.Process().children(recursive=True)
    return [each for each in children if _lives(each) and "modelyard.integrations.tuning" in " ".join(each.cmdline())]


def _lives(process: psutil.Process) -> bool:
    return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)


@pytest.fixture(scope="module")
def cancer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "cancer.csv"
    load_breast_cancer(as_frame=True).frame.to_csv(path, index=False)
    return path


def test_a_recipe_is_searched_on_folds_and_the_best_is_judged_on_rows_that_no_trial_saw(tune, cancer) -> None:
    done = tune(
        data=cancer,
        recipe={"target": "target", "estimator": "tree"},
        space={
            "parameters.max_depth": {"low": 1, "high": 6, "whole": True},
            "imbalance.method": {"choices": ["none", "weights"]},
        },
        metrics=["balanced_accuracy"],
        trials=8,
        parallel=2,
        name="lumps",
    )
    document = done.result["version"]["recipe"]["document"]
    assert document["parameters"]["max_depth"] == done.result["best"]["parameters"]["parameters.max_depth"]
    assert done.result["version"]["held_out"]["value"] > 0.85
    assert done.result["version"]["folds"]["mean"] > 0.85
    [offered] = done.attempt.offered
    assert offered.name == "lumps"
    assert offered.config["training_data"]["recipe"] == document
    assert {"trials.jsonl", "study.svg", "report.svg"} <= done.attempt.kept.keys()


def test_estimators_compete_and_size_counts_where_it_is_asked_for(tune, cancer) -> None:
    done = tune(
        data=cancer,
        recipe={"target": "target", "estimator": "tree"},
        space={"estimator": {"choices": ["tree", "forest", "ridge"]}},
        metrics=["accuracy", "size_bytes"],
        method="grid",
        trials=3,
    )
    assert [each["parameters"]["estimator"] for each in done.result["front"]] == ["forest", "tree"]
    [failure] = done.result["failures"]
    assert "ridge is not for classification" in failure["reason"]
    assert done.attempt.offered == []
