"""What the platform's documents mean to a Python user: small values with a useful `repr` in notebooks."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from modelyard.client.tensors import Array

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """An immutable version of a model in the library. `document` is everything that the platform says of it."""

    name: str
    version: str
    digest: str
    state: str
    document: Mapping[str, Any] = field(repr=False)

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Self:
        """From the control API's document."""
        return cls(
            name=document["name"],
            version=str(document["version"]),
            digest=document["digest"],
            state=document["state"],
            document=document,
        )

    @property
    def audit(self) -> Mapping[str, Any]:
        """Verdict and checks with their evidence."""
        audit: Mapping[str, Any] = self.document.get("audit") or {}
        return audit

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{escape(str(c['outcome']))}</td><td>{escape(str(c['name']))}</td><td>{escape(str(c['summary']))}</td></tr>"
            for c in self.audit.get("checks", ())
        )
        head = (
            f"<b>{escape(self.name)}:{escape(self.version)}</b> {escape(self.state)} <code>{escape(self.digest)}</code>"
        )
        return f"{head}<table>{rows}</table>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """An upload under way or decided: its checks so far, and the version or the problem that came of it."""

    id: str
    state: str
    checks: tuple[Mapping[str, Any], ...] = ()
    version: Version | None = None
    problem: Mapping[str, Any] | None = None

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Self:
        """From the control API's document."""
        version = document.get("version")
        return cls(
            id=document["id"],
            state=document["state"],
            checks=tuple(document.get("checks") or ()),
            version=Version.read(version) if isinstance(version, Mapping) else None,
            problem=document.get("problem"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceInfo:
    """A service as the control plane describes it."""

    name: str
    project: str
    phase: str
    reason: str
    model: str
    version: str
    revision: int
    url: str
    document: Mapping[str, Any] = field(repr=False)

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Self:
        """From the control API's document."""
        return cls(
            name=document["name"],
            project=document.get("project", "default"),
            phase=document["phase"],
            reason=document.get("reason") or "",
            model=document.get("model", ""),
            version=str(document.get("version", "")),
            revision=int(document.get("revision") or 0),
            url=document.get("url") or "",
            document=document,
        )

    @property
    def is_settled(self) -> bool:
        """Whether it serves what was asked, with all of the traffic or a canary's share, or failed to."""
        return self.phase in {"serving", "canary", "failed", "deleted"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """Answers to one request: arrays by output name, and who answered."""

    outputs: Mapping[str, Array]
    service: str
    version: str
    digest: str
    request_id: str
    labels: tuple[str, ...] = ()

    def frame(self) -> "pd.DataFrame":
        """One row for each row asked; outputs of several values get a column each, named by label where it fits."""
        import pandas as pd

        columns: dict[str, Array] = {}
        for name in sorted(self.outputs, key=lambda item: item != "label"):
            values = self.outputs[name]
            flat = values.reshape(len(values), -1) if values.ndim else values.reshape(1, 1)
            if flat.shape[1] == 1:
                columns[name] = flat[:, 0]
                continue
            names = self.labels if len(self.labels) == flat.shape[1] else tuple(map(str, range(flat.shape[1])))
            columns.update({f"{name}_{names[i]}": flat[:, i] for i in range(flat.shape[1])})
        return pd.DataFrame(columns)

    def __array__(self, dtype: Any = None, copy: Any = None) -> Array:  # noqa: ANN401  (NumPy's own signature)
        """The labels, or the only output."""
        values = self.outputs.get("label", next(iter(self.outputs.values())))
        return np.asarray(values, dtype=dtype)

    def _repr_html_(self) -> str:
        html: str = self.frame().to_html(max_rows=20)
        return f"{html}<small>{escape(self.service)} {escape(self.version)}, request {escape(self.request_id)}</small>"
