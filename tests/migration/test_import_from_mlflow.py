"""From a real MLflow server, and from a folder of its models, to uploads in order with their names and aliases."""

import hashlib
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from modelyard.client.mlflow import Fate, ModelFolder, carry_out, open_source, plan
from modelyard.domain.errors.platform import InvalidRequest, Unavailable
from modelyard.domain.errors.uploads import WeightsUnsafe


class Library:
    """Takes uploads the way the platform does, and keeps what it was given."""

    def __init__(self, refused=()):
        self.uploads = []
        self.refused = refused

    def upload(self, name, files, *, aliases, tags, source):
        if name in self.refused:
            raise WeightsUnsafe("no")
        digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
        self.uploads.append((name, digests, tuple(aliases), dict(tags), dict(source)))
        return str(sum(upload[0] == name for upload in self.uploads))


@pytest.mark.slow
def test_a_real_registry_and_its_folder_are_planned_and_imported_whole(mlflow_server):
    address, artifacts = mlflow_server
    source = open_source(address)
    lines = plan(source)
    fates = [(line.origin.name, line.origin.version, line.name, line.fate) for line in lines]
    assert fates == [
        ("Iris flowers", 1, "iris-flowers", Fate.CONVERTS),
        ("Iris flowers", 2, "iris-flowers", Fate.CONVERTS),
        ("boosted", 1, "boosted", Fate.CONVERTS),
        ("graph", 1, "graph", Fate.CONVERTS),
        ("own", 1, "own", Fate.NEEDS_CODE),
    ], [(line.reason, line.fate) for line in lines]
    library = Library()
    done = list(carry_out(source, lines, library))
    source.close()
    assert [one.version for one in done] == ["1", "2", "1", "1"]
    first, second, _, _ = library.uploads
    assert first[3]["team"] == "a"
    assert (first[2], second[2]) == ((), ("champion",))
    assert first[4]["run"] == first[3]["mlflow.run_id"] == lines[0].origin.run_id != ""
    on_disk = {hashlib.sha256(path.read_bytes()).hexdigest() for path in artifacts.rglob("*") if path.is_file()}
    assert all(set(upload[1].values()) <= on_disk for upload in library.uploads)
    assert all("MLmodel" in upload[1] and len(upload[1]) >= 2 for upload in library.uploads)
    # the server's artifacts, read as a folder, meet the same fates; one server a run is enough for both
    folder = ModelFolder(artifacts)
    assert sorted(line.fate for line in plan(folder)) == [Fate.CONVERTS] * 4 + [Fate.NEEDS_CODE]
    assert len(list(carry_out(folder, plan(folder), Library()))) == 4


SKLEARN = "flavors:\n  sklearn:\n    pickled_model: model.pkl\nrun_id: abc123\n"


def model_dir(path, text=SKLEARN, **files):
    path.mkdir(parents=True)
    (path / "MLmodel").write_text(text)
    for name, content in ({"model.pkl": b"\x80\x04."} | files).items():
        (path / name).write_bytes(content)


def test_numbered_directories_are_versions_in_their_order(tmp_path):
    for number in (10, 2, 1):
        model_dir(tmp_path / "Price Model" / str(number))
    lines = plan(open_source(str(tmp_path)))
    assert [(line.name, line.origin.version) for line in lines] == [("price-model", n) for n in (1, 2, 10)]
    assert lines[0].origin.run_id == "abc123"


def test_two_names_that_become_alike_stay_apart(tmp_path):
    model_dir(tmp_path / "a b")
    model_dir(tmp_path / "a-b")
    assert len({line.name for line in plan(ModelFolder(tmp_path))}) == 2


@pytest.mark.parametrize(
    "text",
    [
        "flavors: [",
        "a: &a [*a]",
        "flavors: {}",
        "flavors:\n  sklearn:\n    pickled_model: ../x.pkl\n",
        "\x00",
        "x: !!python/name:os.system",
    ],
)
def test_an_mlmodel_that_cannot_be_read_does_not_convert_and_says_why(tmp_path, text):
    model_dir(tmp_path / "m", text)
    (line,) = plan(ModelFolder(tmp_path))
    assert line.fate is not Fate.CONVERTS
    assert line.reason


def test_a_refused_version_does_not_stop_the_others(tmp_path):
    model_dir(tmp_path / "a")
    model_dir(tmp_path / "b")
    source = ModelFolder(tmp_path)
    done = list(carry_out(source, plan(source), Library(refused={"a"})))
    assert [one.version for one in done] == [None, "1"]
    assert done[0].error.code == "weights_unsafe"


def test_links_out_of_the_folder_are_not_followed(tmp_path):
    model_dir(tmp_path / "outside" / "m")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link").symlink_to(tmp_path / "outside")
    assert plan(ModelFolder(tmp_path / "in")) == []


class Hostile(BaseHTTPRequestHandler):
    location = "file:///etc"
    files = ({"path": "MLmodel", "is_dir": False},)

    def do_GET(self):
        if "search" in self.path:
            key = "registered_models" if "registered" in self.path else "model_versions"
            answer = {key: [{"name": "m", "version": "1"}]}
        elif "download-uri" in self.path:
            answer = {"artifact_uri": self.location}
        else:
            answer = {"files": list(self.files)}
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.mark.parametrize("location", ["file:///etc", "/etc", "s3://bucket/m", "mlflow-artifacts:/../../etc", ""])
def test_a_server_cannot_point_at_files_of_this_machine(location):
    handler = type("Handler", (Hostile,), {"location": location})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            source = open_source(f"http://127.0.0.1:{server.server_port}")
            (line,) = plan(source)
            source.close()
        finally:
            server.shutdown()
            thread.join()
    assert line.fate is Fate.REFUSED
    assert "not behind the server" in line.reason


def test_an_address_where_no_server_listens_is_named():
    source = open_source("http://127.0.0.1:9")
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:9"):
        plan(source)
    source.close()


def test_a_path_that_is_no_folder_is_named(tmp_path):
    with pytest.raises(InvalidRequest, match="no directory"):
        open_source(str(tmp_path / "nothing"))
