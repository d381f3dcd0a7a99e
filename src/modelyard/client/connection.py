"""Where the platform is and who asks: the one place of the client that reads the environment."""

import os
import ssl
from dataclasses import dataclass
from typing import Final, Self

DEFAULT_URL: Final = "http://127.0.0.1:8700"


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """Address and key of a platform. `ca` is a PEM file that vouches for its certificate; times are in seconds."""

    url: str = DEFAULT_URL
    key: str | None = None
    project: str | None = None
    ca: str | None = None
    timeout_s: float = 60.0

    @classmethod
    def find(
        cls, *, url: str | None = None, key: str | None = None, project: str | None = None, ca: str | None = None
    ) -> Self:
        """What is given, else MODELYARD_URL, MODELYARD_KEY, MODELYARD_PROJECT, MODELYARD_CA, else the defaults."""
        return cls(
            url=(url or os.environ.get("MODELYARD_URL") or DEFAULT_URL).rstrip("/"),
            key=key or os.environ.get("MODELYARD_KEY") or None,
            project=project or os.environ.get("MODELYARD_PROJECT") or None,
            ca=ca or os.environ.get("MODELYARD_CA") or None,
        )

    @property
    def headers(self) -> dict[str, str]:
        """What every request carries."""
        return {"authorization": f"Bearer {self.key}"} if self.key else {}

    @property
    def verify(self) -> ssl.SSLContext | bool:
        """How httpx is to check certificates."""
        return ssl.create_default_context(cafile=self.ca) if self.ca else True
