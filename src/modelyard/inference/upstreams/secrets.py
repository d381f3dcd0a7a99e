"""The sealed secrets of the present table, opened in memory when a connection needs one, and kept nowhere."""

from collections.abc import Iterable
from pathlib import Path

from modelyard.domain.errors.base import ModelyardError
from modelyard.domain.errors.inference import UpstreamUnreachable
from modelyard.domain.routing import SealedSecret
from modelyard.foundation.sealing import SealingKey


class SecretBook:
    """Secrets by project and name. `key_file` is read when the first one is opened."""

    def __init__(self, key_file: Path | None) -> None:
        self._key_file = key_file
        self._sealed: dict[tuple[str, str], str] = {}
        self._opened: dict[tuple[str, str], str] = {}

    def take(self, secrets: Iterable[SealedSecret]) -> None:
        """Hold these and no others."""
        sealed = {(one.project, one.name): one.sealed for one in secrets}
        self._opened = {place: text for place, text in self._opened.items() if sealed.get(place) == self._sealed[place]}
        self._sealed = sealed

    def open(self, project: str, name: str) -> str:
        """The secret's text.

        Raises:
            UpstreamUnreachable: it is not there, or cannot be opened here; the text says why without a value.
        """
        place = (project, name)
        known = self._opened.get(place)
        if known is not None:
            return known
        sealed = self._sealed.get(place)
        if sealed is None or self._key_file is None:
            raise UpstreamUnreachable(f"the secret {name} is not set", hint=f"modelyard secrets set {name}")
        try:
            text = SealingKey.open(self._key_file).unseal(sealed, about=f"{project}/{name}")
        except ModelyardError as error:
            raise UpstreamUnreachable(f"the secret {name} cannot be opened: {error.detail}", hint=error.hint) from error
        self._opened[place] = text
        return text
