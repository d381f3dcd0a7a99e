"""How a job asks its service: as every caller does, and again while the service is busy or away."""

import time
from typing import Any, Final

from modelyard.client.documents import ServiceInfo
from modelyard.domain.errors.base import quote
from modelyard.domain.errors.platform import InvalidRequest, JobFailed
from modelyard.ports.job_runner import JobContext

_PATIENCE_S: Final = 120.0
_KEY_PATIENCE_S: Final = 15.0
"""A key that was just made is not known to every server at once."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 3.0
_REQUEST_S: Final = 120.0
_LATER: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_UNKNOWN_KEY: Final = frozenset({401, 403})


class Asking:
    """The service of a job; safe to share between threads."""

    def __init__(self, job: JobContext) -> None:
        import httpx

        self.address = job.service()
        headers = {"authorization": f"Bearer {self.address.key}"} if self.address.key else {}
        self._http = httpx.Client(headers=headers, timeout=_REQUEST_S, trust_env=False, verify=False)  # noqa: S501  (this machine's own listener)
        document = {"name": job.parameters["service"], "phase": "serving", "url": self.address.url}
        self.info = ServiceInfo.read(document)
        self._began = time.monotonic()

    def metadata(self, version: str | None = None) -> dict[str, Any]:
        """The V2 description of what the service takes and gives."""
        from modelyard.client.predicting import metadata_url

        found: dict[str, Any] = self.send("GET", metadata_url(self.info, version), "the service's description").json()
        return found

    def send(self, method: str, url: str, what: str, **options: Any) -> Any:  # noqa: ANN401  (httpx's own)
        """The answer, asked for again while the service is busy, away or does not know the key yet.

        Raises:
            InvalidRequest: the service refuses `what`.
            JobFailed: it did not answer for long.
        """
        import httpx

        end, pause = time.monotonic() + _PATIENCE_S, _FIRST_PAUSE_S
        while True:
            try:
                answer = self._http.request(method, url, **options)
                status, said = answer.status_code, answer.text[:300] if not answer.is_success else ""
            except httpx.TransportError as error:
                status, said = 503, str(error)
            if status == httpx.codes.OK:
                return answer
            young = time.monotonic() - self._began < _KEY_PATIENCE_S
            if not (status in _LATER or (status in _UNKNOWN_KEY and young)):
                raise InvalidRequest(f"the service refuses {what}: {quote(said, limit=300)}")
            if time.monotonic() > end:
                raise JobFailed(f"the service did not answer {what} for {_PATIENCE_S:g} s: {quote(said, limit=200)}")
            time.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_PAUSE_S)
