"""Write the configuration of a supervised program, and name what it listens to: shared by `up`, `serve` and jobs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from modelyard.domain.routing import RoutingTable, ServiceRoute
from modelyard.foundation.documents import to_json
from modelyard.foundation.supervision import ChildSpec
from modelyard.processes.edge_rules import Exposure

_WILDCARDS: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104  (a comparison, not a bind)


def edge_config(exposure: Exposure) -> dict[str, Any]:
    """The part of a listener's configuration that says who may reach it, and how."""
    own = [] if exposure.host in _WILDCARDS else [exposure.host]
    config: dict[str, Any] = {
        "hosts": [*exposure.allowed_hosts, *own],
        "trusted_proxies": list(exposure.trusted_proxies),
    }
    if exposure.tls_cert:
        config["tls"] = {"certificate": exposure.tls_cert, "key": exposure.tls_key}
    return config


def child(  # noqa: PLR0913  (one parameter a fact of the child)
    name: str,
    module: str,
    config: Mapping[str, Any],
    *,
    place: Path,
    fds: tuple[int, ...] = (),
    log: Path | None = None,
    tied: bool = True,
    own_session: bool = True,
    facts: Mapping[str, str] | None = None,
    memory_bytes: int | None = None,
) -> ChildSpec:
    """A child that runs `modelyard.processes.<module>` with `config`, which is written to `place`/`name`.json."""
    path = place / f"{name}.json"
    draft = path.with_suffix(".new")
    draft.touch(mode=0o600)
    draft.write_bytes(msgspec.json.encode(config))
    draft.replace(path)
    return ChildSpec(
        name=name,
        module=f"modelyard.processes.{module}",
        arguments=("--config", str(path)),
        fds=fds,
        log=log,
        tied=tied,
        own_session=own_session,
        facts=facts or {},
        memory_bytes=memory_bytes,
    )


def static_servers(
    services: Sequence[ServiceRoute], *, servers: int, fds: tuple[int, ...], place: Path, config: Mapping[str, Any]
) -> list[ChildSpec]:
    """Model servers that hold these services and follow nobody; their table, figures and settings lie in `place`.

    `fds` are the sockets that they inherit; `config` is the rest of a `ServerConfig`.
    """
    table, metrics = place / "table.json", place / "metrics"
    metrics.mkdir(parents=True, exist_ok=True)
    table.write_bytes(to_json(RoutingTable(revision=1, services=tuple(services))))
    shared: dict[str, Any] = {
        "table": {"static": str(table)},
        "metrics": str(metrics),
        "log_level": "warning",
        **config,
    }
    configs = [{"id": f"model-server-{index}", "index": index, **shared} for index in range(servers)]
    return [child(each["id"], "model_server", each, place=place, fds=fds) for each in configs]
