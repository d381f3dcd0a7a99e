"""Settings, logs and the reference pages made from them."""

import importlib.util
import io
import json
import logging
from dataclasses import fields
from pathlib import Path

import pytest

from modelyard.domain.errors.platform import InvalidRequest
from modelyard.foundation.settings import About, Settings, describe, groups, load, shown
from modelyard.foundation.telemetry import REQUEST_ID, JsonLines, redact, request_id

ROOT = Path(__file__).parents[2]


def reference():
    spec = importlib.util.spec_from_file_location("generate_reference", ROOT / "tools" / "generate_reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_is_what_the_code_says():
    assert reference().stale() == [], "run `python tools/generate_reference.py`"


def test_every_setting_says_what_it_does_in_which_unit_and_range():
    assert len(describe()) == sum(len(fields(kind)) for kind in groups().values())
    for item in describe():
        place = f"{item.group}.{item.name}"
        assert isinstance(item.about, About), place
        assert item.about.text.endswith("."), place
        if item.kind in ("int", "float"):
            assert item.about.unit, place
            assert item.about.low is not None, place
            assert item.about.high is not None, place
            assert item.about.low <= item.default <= item.about.high, place


def test_the_first_source_that_names_a_field_wins(tmp_path):
    file = tmp_path / "s.toml"
    file.write_text("[keys]\nexpires_days = 1\nbootstrap_minutes = 1\nfree_tries = 1\n")
    environment = {"MODELYARD_KEYS_BOOTSTRAP_MINUTES": "2", "MODELYARD_KEYS_FREE_TRIES": "2"}
    keys = load(file=file, environment=environment, given={"keys.free_tries": 3}).keys
    assert (keys.expires_days, keys.bootstrap_minutes, keys.free_tries) == (1, 2, 3)
    assert keys.longest_delay_s == Settings().keys.longest_delay_s


def test_a_yaml_file_is_read_too(tmp_path):
    (tmp_path / "s.yaml").write_text("log: {level: debug}\nhistory:\n  anchor_every_s: 5\n")
    settings = load(file=tmp_path / "s.yaml")
    assert (settings.log.level, settings.history.anchor_every_s) == ("debug", 5.0)


def test_named_targets_have_a_kind(tmp_path):
    (tmp_path / "s.yaml").write_text("targets: {staging: {kind: local}, prod: {kind: local}}\n")
    assert load(file=tmp_path / "s.yaml").targets == {"staging": "local", "prod": "local"}
    assert load().targets == {}


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("[targets]\nstaging = 'local'\n", "targets.staging"),
        ("[targets.staging]\nkind = 'local'\nsize = 3\n", "targets.staging"),
        ("[targets.Staging]\nkind = 'local'\n", "Staging"),
        ("[keys]\nexpires_day = 1\n", "keys.expires_day"),
        ("[keys]\nexpires_days = 0\n", "keys.expires_days"),
        ("[keys]\nexpires_days = true\n", "keys.expires_days"),
        ('[keys]\nexpires_days = "9"\n', "keys.expires_days"),
        ("[keys]\nlongest_delay_s = nan\n", "keys.longest_delay_s"),
        ('[log]\nlevel = "loud"\n', "log.level"),
        ("keys = 1\n", "keys"),
        ("[keys\n", "s.toml"),
    ],
)
def test_a_mistake_is_refused_by_name(tmp_path, content, named):
    (tmp_path / "s.toml").write_text(content)
    with pytest.raises(InvalidRequest, match=named.replace(".", r"\.")):
        load(file=tmp_path / "s.toml")


def test_a_mistake_in_the_environment_names_its_variable():
    for variable in ("MODELYARD_KEYS_FREE_TRIES", "MODELYARD_KEYS_FREE_TRYS"):
        with pytest.raises(InvalidRequest, match=variable):
            load(environment={variable: "many"})
    assert (
        load(environment={"MODELYARD_KEY": "mdy_live_x", "MODELYARD_HISTORY_LIMIT": "9", "PATH": "/bin"}) == Settings()
    )


def test_a_password_in_an_address_is_not_shown():
    settings = load(given={"records.url": "postgresql://me:hunter2@host/db"})
    assert shown(settings)["records"]["url"] == "postgresql://me:***@host/db"


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("key mdy_live_" + "A" * 40 + " was sent", "A" * 12),
        ("Authorization: Bearer abcdefghijkl.mnop", "abcdefghijkl"),
        ("postgresql://me:hunter2@host/db", "hunter2"),
        ("token=hunter2&x=1", "hunter2"),
        ('{"password": "hunter2"}', "hunter2"),
    ],
)
def test_secrets_never_reach_the_log(text, secret):
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(JsonLines())
    logger = logging.getLogger("modelyard.test_of_secrets")
    logger.propagate = False
    logger.handlers[:] = [handler]
    try:
        int(text)
    except ValueError:
        logger.exception("failed with %s", text, extra={"header": text})
    assert secret not in out.getvalue()
    assert "***" in redact(text)


def test_a_log_line_is_json_and_names_its_request():
    token = REQUEST_ID.set("req-1")
    try:
        record = logging.LogRecord("a.b", logging.INFO, "", 0, "done\nreally", (), None)
        line = JsonLines().format(record)
    finally:
        REQUEST_ID.reset(token)
    assert "\n" not in line
    document = json.loads(line)
    assert (document["request_id"], document["level"], document["text"]) == ("req-1", "info", "done\nreally")


@pytest.mark.parametrize("given", [None, "", "a b", "x" * 65, "a\r\nset-cookie: b", "é"])
def test_an_id_that_is_none_is_replaced(given):
    assert request_id(given) != given
    assert request_id("ok-1") == "ok-1"
