"""Settings: one tree of groups, built once by the process and handed on group by group.

Order: command line, environment (`MODELYARD_<GROUP>_<FIELD>`), file, defaults; the first that names a field wins. Every
field says what it does, its unit and its range, and is checked when it is read; the reference page is made from this
module. A name that is not known is refused, so that a typing error never passes as a default.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import Any, Final, cast, get_args, get_type_hints

import yaml

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.platform import InvalidRequest
from modelyard.domain.names import NAME_PATTERN

PREFIX: Final = "MODELYARD_"
_META: Final = "modelyard"
_YAML: Final = (".yaml", ".yml")
_TARGETS: Final = "targets."
Value = bool | int | float | str | tuple[str, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a person has to know of a field. `low` and `high` are inclusive; `choices` lists all that is allowed."""

    text: str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()

    @property
    def range_text(self) -> str:
        """The range as the reference shows it."""
        if self.choices:
            return ", ".join(self.choices)
        if self.low is None and self.high is None:
            return "any"
        return (
            f"{'' if self.low is None else f'{self.low:g}'} … {'' if self.high is None else f'{self.high:g}'}".strip()
        )


def setting(default: Any, text: str, **about: Any) -> Any:  # noqa: ANN401  (dataclass fields are typed by annotation)
    """A field of a settings group."""
    return field(default=default, metadata={_META: About(text=text, **about)})


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySettings:
    """Keys and the start of a platform that asks for them."""

    expires_days: int = setting(
        90, "How long a new key is valid when nothing else is asked.", unit="days", low=1, high=3650
    )
    bootstrap_minutes: int = setting(
        15, "How long the one-time token of the first start is valid.", unit="minutes", low=1, high=1440
    )
    free_tries: int = setting(
        20, "Wrong keys from one source before answers are delayed.", unit="tries", low=1, high=10_000
    )
    longest_delay_s: float = setting(
        30.0, "The longest delay after many wrong keys.", unit="seconds", low=0.1, high=3600
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSettings:
    """Tokens (JWT) of other issuers, accepted beside keys."""

    issuers: str = setting("", "A YAML file that lists whose tokens are accepted; empty accepts none.", unit="path")
    refresh_s: float = setting(
        300.0, "How often an issuer's address is asked for its keys.", unit="seconds", low=1, high=86_400
    )
    timeout_s: float = setting(5.0, "How long an issuer may take to answer.", unit="seconds", low=0.1, high=60)


@dataclass(frozen=True, slots=True, kw_only=True)
class HistorySettings:
    """The chain of history."""

    seal_every_s: float = setting(
        0.25, "How often new entries are sealed into the chain.", unit="seconds", low=0.01, high=1.0
    )
    anchor_every_s: float = setting(
        60.0, "How often the head of the chain is written to the anchor file.", unit="seconds", low=1, high=3600
    )
    events_kept_hours: int = setting(
        72, "How long events can be asked for after they happened.", unit="hours", low=1, high=8760
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordSettings:
    """The records database."""

    url: str = setting(
        "",
        "A PostgreSQL database for the records, as postgresql://USER@HOST:5432/DATABASE; empty means SQLite in the data"
        " directory.",
        unit="URL",
    )
    password_file: str = setting(
        "", "A file that holds the password for that database, readable by its owner only.", unit="path"
    )
    files: str = setting(
        "",
        "A folder that all control planes on one PostgreSQL database see at this path: artifacts, packages, secrets and"
        " anchors lie there. Empty means the data directory, which is right for one control plane.",
        unit="path",
    )
    backups_kept: int = setting(5, "Copies made before a migration that are kept.", unit="files", low=1, high=1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiSettings:
    """The control listener."""

    events_ping_s: float = setting(
        15.0,
        "How often an idle event stream gets a comment, so that proxies keep it.",
        unit="seconds",
        low=0.1,
        high=300,
    )
    max_body_bytes: int = setting(
        8 * 2**20, "The largest JSON body that a route of the control API takes.", unit="bytes", low=1024, high=2**30
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadSettings:
    """The upload centre."""

    total_bytes: int = setting(
        4 * 2**30, "The largest bundle that is received, all files together.", unit="bytes", low=1024, high=2**43
    )
    project_bytes: int = setting(
        0, "What all models of one project may take; 0 sets no limit.", unit="bytes", low=0, high=2**50
    )
    receive_s: float = setting(
        6 * 3600.0, "The longest time in which one upload may be received.", unit="seconds", low=10, high=7 * 86400
    )
    resumable_s: float = setting(
        24 * 3600.0, "How long an unfinished resumable upload is kept.", unit="seconds", low=60, high=30 * 86400
    )
    inspections: int = setting(2, "Uploads that are inspected side by side.", unit="uploads", low=1, high=64)
    waiting: int = setting(16, "Uploads that may wait to be inspected.", unit="uploads", low=1, high=10_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditSettings:
    """What the audit of an upload may cost, and whose signatures count."""

    cpu_s: int = setting(60, "Processor time of each child process.", unit="seconds", low=5, high=3600)
    wall_s: int = setting(60, "Time by the clock of each child process.", unit="seconds", low=5, high=3600)
    memory_bytes: int = setting(
        2 * 2**30, "Memory of a child process, before what the file's size adds.", unit="bytes", low=2**29, high=2**43
    )
    memory_max_bytes: int = setting(
        16 * 2**30, "Memory of a child process, whatever the file's size.", unit="bytes", low=2**29, high=2**43
    )
    require_signature: bool = setting(False, "Refuse a bundle without a model signature.")  # noqa: FBT003  (the value)
    trusted_keys: tuple[str, ...] = setting(
        (), "PEM files of public keys (EC P-256) whose model signatures count.", unit="paths"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentSettings:
    """Own code (`predict.py`): where its packages come from, and what its workers may use."""

    builder: str = setting("auto", "Which installer builds environments.", choices=("auto", "uv", "pip"))
    wheel_folder: str = setting("", "A folder of wheels that is asked first; with no index, nothing else is.")
    index: str = setting(
        "",
        'A package index; "default" is the one the installer is set up with on this machine, empty asks none.',
        unit="URL",
    )
    python: str = setting("", "The interpreter of own code; empty is the one that Modelyard stands on.")
    allow_sdists: bool = setting(
        default=False, text="Whether source distributions are installed, whose build runs code outside any wall."
    )
    build_timeout_s: float = setting(900.0, "How long one build may take.", unit="seconds", low=1, high=86_400)
    memory_mib: int = setting(4096, "Address space of one worker of own code.", unit="MiB", low=256, high=2**24)
    run_limit_s: float = setting(
        60.0, "How long one call of predict may take before its worker is ended.", unit="seconds", low=0.1, high=86_400
    )
    network: bool = setting(default=False, text="Whether own code may open network connections.")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentSettings:
    """How patient a deployment is, and what it keeps loaded."""

    patience_s: float = setting(
        120.0, "How long a new revision may take to become ready.", unit="seconds", low=1, high=86_400
    )
    grace_s: float = setting(30.0, "How long isolated workers may drain.", unit="seconds", low=0, high=3600)
    warm_s: float = setting(
        600.0,
        "How long a revision that was live stays loaded, so that going back loads nothing.",
        unit="seconds",
        low=0,
        high=7 * 86_400,
    )
    warm_revisions: int = setting(1, "How many such revisions a service keeps.", unit="revisions", low=0, high=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingSettings:
    """What model servers may hold."""

    model_memory_mib: int = setting(
        0,
        "Memory that models of services with a least number of 0 may take in each model server; those that were used"
        " longest ago are let go for others. 0 does not bound it.",
        unit="MiB",
        low=0,
        high=2**24,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DeferredSettings:
    """Requests that are answered later (`Prefer: respond-async`); the bounds are those of each model server."""

    at_once: int = setting(8, "Requests of one service that are run side by side.", unit="requests", low=1, high=4096)
    waiting: int = setting(10_000, "Requests that may wait; more are refused.", unit="requests", low=1, high=10_000_000)
    waiting_mib: int = setting(1024, "What those may take on the disk.", unit="MiB", low=1, high=2**24)
    patience_s: float = setting(
        3600.0, "How long a request may wait before it has failed.", unit="seconds", low=1, high=30 * 86_400
    )
    kept_hours: float = setting(24.0, "How long answers are kept.", unit="hours", low=0.01, high=8760)
    webhooks: bool = setting(default=False, text="Whether answers are sent to the address that a request names.")
    webhook_ports: tuple[str, ...] = setting(
        ("443", "80", "8443", "8080"), "Ports that such an address may have; any allows all.", unit="ports"
    )
    webhook_private: bool = setting(
        default=False,
        text="Whether such an address may be private or loopback; never those of the network's own services.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSettings:
    """Durable work: how many workers, and what one job may take. A worker does one job at a time."""

    workers: int = setting(1, "Workers of this machine; 0 leaves jobs waiting.", unit="processes", low=0, high=256)
    memory_mib: int = setting(4096, "Memory of a job with all its processes.", unit="MiB", low=64, high=2**24)
    disk_mib: int = setting(8192, "What a job may have on the disk.", unit="MiB", low=1, high=2**24)
    log_kib: int = setting(1024, "What is kept of an attempt's log: its end.", unit="KiB", low=1, high=2**20)
    limit_hours: float = setting(24.0, "The longest an attempt may take.", unit="hours", low=0.0001, high=8760)
    lease_s: float = setting(
        15.0, "A worker that was silent for so long has lost its job.", unit="seconds", low=1, high=3600
    )
    per_project: int = setting(1000, "Jobs of a project that are not over.", unit="jobs", low=1, high=1_000_000)
    input_mib: int = setting(4096, "The largest file that is given to a job.", unit="MiB", low=1, high=2**24)
    kept_days: float = setting(30.0, "How long jobs that are over are kept.", unit="days", low=0.01, high=3660)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamSettings:
    """Services that a server elsewhere answers."""

    allow_private: str = setting(
        "auto",
        "Whether upstreams may have private or loopback addresses; auto allows them where no keys are asked for, which"
        " is on a loopback address only.",
        choices=("auto", "always", "never"),
    )
    ca_file: str = setting(
        "", "A PEM file of certificate authorities for upstreams; empty takes those of the system.", unit="path"
    )
    max_answer_bytes: int = setting(
        64 * 2**20, "The largest answer of an upstream that is passed on.", unit="bytes", low=1024, high=2**40
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardSettings:
    """What the guard of a canary calls harm, what it wants excluded before it promotes, how often it may be wrong."""

    level: float = setting(
        0.05,
        "Greatest probability that a canary that is not worse is rolled back, over all it watches and all looks.",
        unit="probability",
        low=0.0001,
        high=0.5,
    )
    error_margin: float = setting(
        0.01, "Increase of the error ratio that has to be excluded.", unit="share", low=0.0001, high=1
    )
    latency_tolerance: float = setting(
        0.2, "How much slower a canary may be before that is harm.", unit="share", low=0, high=10
    )
    latency_floor_s: float = setting(0.001, "How much slower it may be in any case.", unit="seconds", low=0, high=60)
    latency_margin: float = setting(
        0.5, "Slowdown of the median and the 95th percentile that has to be excluded.", unit="share", low=0.01, high=10
    )
    prediction_tolerance: float = setting(
        0.02, "How far the share of a label, or of a part of the numbers, may move.", unit="share", low=0, high=0.5
    )
    prediction_margin: float = setting(
        0.05, "Move of such a share that has to be excluded.", unit="share", low=0.001, high=1
    )
    least_requests: int = setting(
        200, "Requests of the canary that every step takes.", unit="requests", low=20, high=10**9
    )
    most_requests: int = setting(
        20_000,
        "Requests of the canary at which it goes on without sign of harm, though the margins are not excluded.",
        unit="requests",
        low=20,
        high=10**9,
    )
    look_s: float = setting(1.0, "How often the guard looks.", unit="seconds", low=0.05, high=3600)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """What the processes say, one line of JSON an event, on their log."""

    level: str = setting(
        "info", "The least severe level that is written.", choices=("debug", "info", "warning", "error")
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All groups, and the named targets of deployments: `targets: {staging: {kind: local}}` in the settings file."""

    keys: KeySettings = field(default_factory=KeySettings)
    tokens: TokenSettings = field(default_factory=TokenSettings)
    history: HistorySettings = field(default_factory=HistorySettings)
    records: RecordSettings = field(default_factory=RecordSettings)
    api: ApiSettings = field(default_factory=ApiSettings)
    uploads: UploadSettings = field(default_factory=UploadSettings)
    audit: AuditSettings = field(default_factory=AuditSettings)
    deployments: DeploymentSettings = field(default_factory=DeploymentSettings)
    serving: ServingSettings = field(default_factory=ServingSettings)
    deferred: DeferredSettings = field(default_factory=DeferredSettings)
    jobs: JobSettings = field(default_factory=JobSettings)
    upstreams: UpstreamSettings = field(default_factory=UpstreamSettings)
    log: LogSettings = field(default_factory=LogSettings)
    environments: EnvironmentSettings = field(default_factory=EnvironmentSettings)
    guard: GuardSettings = field(default_factory=GuardSettings)
    targets: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """One field as the reference, `/api/v1/settings` and the environment know it."""

    group: str
    name: str
    kind: str
    default: Value
    about: About

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return f"{PREFIX}{self.group}_{self.name}".upper()


def load(
    *, file: Path | None = None, environment: Mapping[str, str] | None = None, given: Mapping[str, Value] | None = None
) -> Settings:
    """The settings. `given` (from the command line) names fields as `group.field`; a YAML or TOML file has groups.

    Raises:
        InvalidRequest: a name is unknown, or a value is not of its kind or range; says which and where from.
    """
    chosen: dict[str, tuple[Any, str]] = {}
    known = {f"{item.group}.{item.name}": item for item in describe()}
    written = _from_file(file)
    targets = _targets({name: written.pop(name) for name in list(written) if name.startswith(_TARGETS)})
    for name, value in written.items():
        chosen[name] = (value, f"in {file.name if file else ''}")
    for name, item in known.items():
        text = (environment or {}).get(item.variable)
        if text is not None:
            chosen[name] = (_parse(text, item), f"in {item.variable}")
    for variable in environment or {}:
        _require_no_slip(variable, known.values())
    for name, value in (given or {}).items():
        chosen[name] = (value, "on the command line")
    for name in chosen:
        if name not in known:
            raise InvalidRequest(
                f"there is no setting {quote(name)} ({chosen[name][1]})", hint="docs/reference/settings.md lists all"
            )
    return _build({name: _checked(value, known[name], source) for name, (value, source) in chosen.items()}, targets)


def describe() -> list[Described]:
    """Every field of every group, in the order of declaration."""
    found: list[Described] = []
    for group, kind in groups().items():
        hints = get_type_hints(kind)
        found.extend(
            Described(
                group=group,
                name=item.name,
                kind=_kind_name(hints[item.name]),
                default=cast("Value", item.default),
                about=item.metadata[_META],
            )
            for item in fields(kind)
        )
    return found


def shown(settings: Settings) -> dict[str, dict[str, Value]]:
    """All values, by group and field; a URL is shown without its password."""
    values: dict[str, dict[str, Value]] = {}
    for item in describe():
        value = getattr(getattr(settings, item.group), item.name)
        values.setdefault(item.group, {})[item.name] = _without_password(value) if item.about.unit == "URL" else value
    return values


def _require_no_slip(variable: str, known: Iterable[Described]) -> None:
    """Refuse a variable that is nearly a setting's; others with our prefix belong to the command line's options."""
    names = [item.variable for item in known]
    if variable.startswith(PREFIX) and variable not in names and (near := get_close_matches(variable, names, 1, 0.9)):
        raise InvalidRequest(f"{quote(variable)} is not a setting", hint=f"did you mean {near[0]}?")


def _from_file(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        text = file.read_text(encoding="utf-8")
        document = (yaml.safe_load(text) or {}) if file.suffix in _YAML else tomllib.loads(text)
    except OSError as error:
        raise InvalidRequest(
            f"the settings file {quote(file.name)} cannot be read", hint=error.strerror or ""
        ) from error
    except (tomllib.TOMLDecodeError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"the settings file {quote(file.name)} cannot be understood: {error}") from error
    if not isinstance(document, dict):
        raise InvalidRequest(
            f"the settings file {quote(file.name)} has no groups", hint="write the group above the fields"
        )
    flat: dict[str, Any] = {}
    for group, table in document.items():
        if not isinstance(table, dict):
            raise InvalidRequest(
                f"{quote(group)} in {quote(file.name)} is not a table", hint="write the group above the fields"
            )
        flat.update({f"{group}.{name}": value for name, value in table.items()})
    return flat


def _parse(text: str, item: Described) -> Any:  # noqa: ANN401
    try:
        match item.kind:
            case "bool":
                return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
            case "int":
                return int(text)
            case "float":
                return float(text)
            case "list":
                return tuple(part.strip() for part in text.split(",") if part.strip())
            case _:
                return text
    except (KeyError, ValueError) as error:
        raise _wrong(item, text, f"in {item.variable}") from error


def _checked(value: Any, item: Described, source: str) -> Value:  # noqa: ANN401
    expected: dict[str, tuple[type, ...]] = {
        "bool": (bool,),
        "int": (int,),
        "float": (int, float),
        "list": (list, tuple),
    }
    fits = isinstance(value, expected.get(item.kind, (str,))) and (item.kind == "bool" or not isinstance(value, bool))
    about = item.about
    if not fits or (about.choices and value not in about.choices):
        raise _wrong(item, value, source)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        low = about.low is None or value >= about.low
        high = about.high is None or value <= about.high
        if not (low and high):
            raise _wrong(item, value, source)
        return float(value) if item.kind == "float" else value
    return tuple(value) if item.kind == "list" else value


def _wrong(item: Described, value: object, source: str) -> InvalidRequest:
    unit = f" {item.about.unit}" if item.about.unit else ""
    return InvalidRequest(
        f"{item.group}.{item.name} ({source}) cannot be {quote(value)}",
        hint=f"{item.kind}{unit}, {item.about.range_text}; the default is {item.default}",
    )


def _build(values: Mapping[str, Value], targets: Mapping[str, str]) -> Settings:
    made: dict[str, Any] = {}
    for group, kind in groups().items():
        own = {name.partition(".")[2]: value for name, value in values.items() if name.startswith(f"{group}.")}
        made[group] = kind(**own)
    return Settings(**made, targets=targets)


def groups() -> dict[str, type[Any]]:
    """The groups of settings, by name, in the order of declaration."""
    hints: dict[str, type[Any]] = get_type_hints(Settings)
    return {name: kind for name, kind in hints.items() if hasattr(kind, "__dataclass_fields__")}


def _targets(written: Mapping[str, Any]) -> dict[str, str]:
    """Named targets with the kind of each."""
    found: dict[str, str] = {}
    for path, value in written.items():
        name = path.removeprefix(_TARGETS)
        if not re.fullmatch(NAME_PATTERN, name):
            raise InvalidRequest(f"{quote(name)} is no name for a target", hint="1 to 63 of a-z 0-9 . _ -")
        if not isinstance(value, dict) or set(value) != {"kind"} or not isinstance(value["kind"], str):
            raise InvalidRequest(f"targets.{name} needs a kind and nothing else", hint="write {kind: local}")
        found[name] = value["kind"]
    return found


def _kind_name(hint: Any) -> str:  # noqa: ANN401
    if isinstance(hint, UnionType):
        hint = next(part for part in get_args(hint) if part is not type(None))
    if getattr(hint, "__origin__", None) is tuple:
        return "list"
    return {bool: "bool", int: "int", float: "float", str: "text"}[hint]


def _without_password(value: Value) -> Value:
    if not isinstance(value, str) or "@" not in value:
        return value
    head, _, tail = value.rpartition("@")
    scheme, separator, user = head.partition("://")
    return f"{scheme}{separator}{user.partition(':')[0]}:***@{tail}"
