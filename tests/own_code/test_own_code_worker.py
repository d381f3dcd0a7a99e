"""Own code in its worker: what it answers, what it may not do, and that nothing it does reaches beyond the worker."""

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from own_code_kit import DOUBLE, X, running_worker

from modelyard.foundation.environments import CodePolicy
from modelyard.inference.routing.frames import Kind, pack_tensors, run_frame

TEXTS = {
    "inputs": [{"name": "x", "datatype": "BYTES", "shape": [-1, 1]}],
    "outputs": [{"name": "y", "datatype": "BYTES", "shape": [-1, 1]}],
}


def code(body: str, *, before: str = "") -> str:
    """A source whose predict has this body; rows of zeros (as in the warm-up) are answered with zeros."""
    lines = "\n    ".join(body.strip().splitlines())
    return f"""
import os, socket, subprocess, sys, threading, time
import numpy as np
{before}

def load(path):
    pass

def predict(inputs):
    x = inputs["x"]
    if (x == 0.5).all():
        return np.zeros((len(x), 1), "f4")
    {lines}
"""


class TestAnswers:
    def test_arrays_go_in_by_name_and_come_out_by_name(self, tmp_path: Path) -> None:
        with running_worker(tmp_path, DOUBLE) as worker:
            kind, answer = worker.connect().ask(x=X)
        assert kind is Kind.ANSWER
        assert answer["y"].dtype == np.float32
        np.testing.assert_array_equal(answer["y"], X.sum(axis=1, keepdims=True) * 2)
        assert worker.hello["digest"].startswith("sha256:")
        assert worker.hello["run_s"] > 0

    def test_an_array_a_mapping_or_a_list_is_an_answer(self, tmp_path: Path) -> None:
        body = """s = x.sum(axis=1)
if len(x) == 1: return s.tolist()
if len(x) == 2: return s
if len(x) == 3: return {"y": s[:, None].astype("f8")}
return [[v] for v in s.tolist()]"""
        with running_worker(tmp_path, code(body)) as worker:
            worker.connect()
            for rows in range(1, 5):
                asked = np.arange(4 * rows, dtype="f4").reshape(rows, 4)
                _, answer = worker.ask(x=asked)
                assert answer["y"].dtype == np.float32
                np.testing.assert_array_equal(answer["y"], asked.sum(axis=1, keepdims=True))

    def test_texts_are_bytes_in_arrays(self, tmp_path: Path) -> None:
        source = "def load(path): pass\ndef predict(inputs): return [[v.upper()] for v in inputs['x'].ravel()]"
        with running_worker(tmp_path, source, config=TEXTS) as worker:
            _, answer = worker.connect().ask(x=np.array([[b"a"], ["ü".encode()]], dtype=object))
        assert answer["y"].tolist() == [[b"A"], ["ü".encode().upper()]]

    def test_columns_become_a_frame_with_texts_as_str(self, tmp_path: Path) -> None:
        source = """
def load(path):
    return {"a": 1.0, "b": 2.0}

def predict(frame):
    frame["y"] = frame["n"] + frame["kind"].map(model)
    return frame
"""
        config = {
            "inputs_as": "frame",
            "inputs": [
                {"name": "n", "datatype": "FP64", "shape": [-1, 1]},
                {"name": "kind", "datatype": "BYTES", "shape": [-1, 1], "categories": ["a", "b"]},
            ],
            "outputs": [{"name": "y", "datatype": "FP64", "shape": [-1, 1]}],
        }
        with running_worker(tmp_path, source, config=config) as worker:
            _, answer = worker.connect().ask(n=np.array([[1.0], [2.0]]), kind=np.array([[b"a"], [b"b"]], dtype=object))
        assert answer["y"].tolist() == [[2.0], [4.0]]

    def test_what_load_gives_is_the_global_model_and_files_lie_at_path(self, tmp_path: Path) -> None:
        source = """
import json, pathlib
import helper

def load(path):
    return helper.read(pathlib.Path(path) / "factors.json")

def predict(inputs):
    return inputs["x"] @ model
"""
        files = {
            "factors__json": json.dumps([[1.0], [10.0], [100.0], [1000.0]]).encode(),
            "helper__py": b"import json, numpy\ndef read(path): return numpy.array(json.loads(path.read_text()), 'f4')",
        }
        with running_worker(tmp_path, source, **files) as worker:
            _, answer = worker.connect().ask(x=X)
        assert answer["y"].ravel().tolist() == [3210.0, 7654.0]

    def test_an_answer_that_is_not_the_promised_one_says_which(self, tmp_path: Path) -> None:
        with running_worker(tmp_path, code("return x")) as worker:
            assert "the shape [2, 4], promised is [-1, 1]" in worker.connect().failure(x=X)
        with running_worker(tmp_path / "b", code("return {'z': x}")) as worker:
            assert "no output 'y', only z" in worker.connect().failure(x=X)

    def test_the_process_has_the_worker_s_name(self, tmp_path: Path) -> None:
        with running_worker(tmp_path, DOUBLE) as worker:
            worker.connect()
            assert " ".join(psutil.Process(worker.process.pid).cmdline()).startswith("modelyard: model-worker own 0")


class TestContainment:
    def test_code_that_raises_fails_its_request_only(self, tmp_path: Path) -> None:
        with running_worker(tmp_path, code("if x[0, 0] == 7: raise KeyError('seven')\nreturn x[:, :1]")) as worker:
            worker.connect()
            assert worker.failure(x=np.full((1, 4), 7, "f4")) == "KeyError: 'seven'"
            assert worker.ask(x=X)[0] is Kind.ANSWER
        assert "in predict" in worker.log.read_text()

    def test_exit_calls_end_the_worker_and_nothing_else(self, tmp_path: Path) -> None:
        with running_worker(tmp_path, code("os._exit(3)")) as worker:
            with pytest.raises(EOFError):
                worker.connect().ask(x=X)
            assert worker.process.wait(10) == 3

    def test_a_run_that_does_not_end_is_ended_and_its_request_fails(self, tmp_path: Path) -> None:
        policy = CodePolicy(run_limit_s=1.5)
        with running_worker(tmp_path, code("time.sleep(600)"), policy=policy) as worker:
            assert worker.connect().failure(x=X) == "predict() did not return within 1.5 s"
            assert worker.process.wait(10) == 70
        assert "time.sleep(600)" in worker.log.read_text()

    def test_a_run_that_holds_the_interpreter_is_ended_by_the_kernel(self, tmp_path: Path) -> None:
        policy = CodePolicy(run_limit_s=0.5)
        hold = "import re; re.match(r'(a|aa)+$', 'a' * 60 + 'b')"
        with running_worker(tmp_path, code(hold), policy=policy) as worker:
            with pytest.raises(EOFError):
                worker.connect().ask(x=X)
            assert worker.process.wait(20) == -signal.SIGALRM

    def test_a_long_run_gives_signs_of_life(self, tmp_path: Path) -> None:
        with running_worker(tmp_path, code("time.sleep(2.5)\nreturn x[:, :1]")) as worker:
            worker.connect()
            assert worker.channel is not None
            worker.channel.sendall(run_frame(1, pack_tensors({"x": X}), left_ms=60_000))
            kinds = [worker.next()[0]]
            while kinds[-1] is not Kind.ANSWER:
                kinds.append(worker.next()[0])
        assert kinds.count(Kind.PONG) >= 1

    def test_memory_beyond_the_limit_is_refused_and_the_worker_goes_on(self, tmp_path: Path) -> None:
        policy = CodePolicy(memory_bytes=1 << 30)
        body = "if x[0, 0] == 7: np.ones(1 << 31, 'u1')\nreturn x[:, :1]"
        with running_worker(tmp_path, code(body), policy=policy) as worker:
            worker.connect()
            assert "MemoryError" in worker.failure(x=np.full((1, 4), 7, "f4"))
            assert worker.ask(x=X)[0] is Kind.ANSWER

    def test_what_reaches_beyond_the_worker_is_refused(self, tmp_path: Path) -> None:
        reaches = [
            "os.fork()",
            "subprocess.run(['/bin/true'])",
            "socket.socket(socket.AF_INET)",
            "socket.socket(socket.AF_UNIX)",
            "os.kill(os.getppid(), 0)",
            "open('/etc/passwd').read()",
            "open('/proc/1/environ').read()",
            "open(__file__, 'a')",
            "open('/tmp/own-code-was-here', 'w')",
            "os.listdir('/')",
            f"os.listdir({str(tmp_path)!r})",
        ]
        body = f"eval({reaches!r}[int(x[0, 0])])\nreturn x[:, :1]"
        with running_worker(tmp_path, code(body)) as worker:
            worker.connect()
            for number, reach in enumerate(reaches):
                assert "PermissionError" in worker.failure(x=np.full((1, 4), number, "f4")), reach
            assert worker.process.poll() is None

    def test_imports_stand_behind_the_same_walls(self, tmp_path: Path) -> None:
        source = code("return x[:, :1]", before="socket.create_connection(('127.0.0.1', 9))")
        with running_worker(tmp_path, source) as worker:
            assert worker.process.wait(20) == 78
        assert "PermissionError" in worker.log.read_text().strip().splitlines()[-1]

    def test_a_temporary_directory_of_its_own_can_be_written(self, tmp_path: Path) -> None:
        body = "import tempfile\nwith tempfile.TemporaryFile() as f: f.write(b'1')\nreturn x[:, :1]"
        with running_worker(tmp_path, code(body)) as worker:
            assert worker.connect().ask(x=X)[0] is Kind.ANSWER

    def test_threads_are_allowed(self, tmp_path: Path) -> None:
        body = "t = threading.Thread(target=x.sum); t.start(); t.join()\nreturn x[:, :1]"
        with running_worker(tmp_path, code(body)) as worker:
            assert worker.connect().ask(x=X)[0] is Kind.ANSWER

    def test_the_network_opens_where_the_policy_allows_it(self, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            body = f"socket.create_connection(('127.0.0.1', {port}), 5).close()\nreturn x[:, :1]"
            with running_worker(tmp_path, code(body), policy=CodePolicy(network=True)) as worker:
                assert worker.connect().ask(x=X)[0] is Kind.ANSWER

    def test_sigterm_ends_it_after_what_it_has_in_hand(self, tmp_path: Path) -> None:
        with running_worker(tmp_path, code("time.sleep(0.5)\nreturn x[:, :1]")) as worker:
            worker.connect()
            assert worker.channel is not None
            worker.channel.sendall(run_frame(1, pack_tensors({"x": X}), left_ms=60_000))
            time.sleep(0.1)
            worker.process.send_signal(signal.SIGTERM)
            kind = worker.next()[0]
            assert kind is Kind.ANSWER
            assert worker.process.wait(10) == 0


class TestLoading:
    def test_a_module_that_the_lock_does_not_name_is_said(self, tmp_path: Path) -> None:
        source = DOUBLE + "\nimport not_in_the_lock\n"
        with running_worker(tmp_path, source) as worker:
            assert worker.process.wait(20) == 78
        last = worker.log.read_text().strip().splitlines()[-1]
        assert last == "the code imports not_in_the_lock, which requirements.lock does not name"

    def test_load_that_raises_is_said(self, tmp_path: Path) -> None:
        source = "def load(path): raise ValueError('no weights')\ndef predict(inputs): pass"
        with running_worker(tmp_path, source) as worker:
            assert worker.process.wait(20) == 78
        assert worker.log.read_text().strip().endswith("the code cannot be loaded: ValueError: no weights")

    def test_an_environment_that_is_not_built_is_said(self, tmp_path: Path) -> None:
        with running_worker(tmp_path, DOUBLE) as worker:
            worker.connect()
        config = json.loads((tmp_path / "worker.json").read_text())
        config["environments"] = str(tmp_path / "none")
        (tmp_path / "other.json").write_text(json.dumps(config))
        ended = subprocess.run(
            [sys.executable, "-m", "modelyard.processes.model_worker", "--config", str(tmp_path / "other.json")],
            capture_output=True,
            timeout=30,
            check=False,
        )
        assert ended.returncode == 78
        assert b"environment of this code is not built" in ended.stderr
