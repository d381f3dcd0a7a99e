"""Batch inference: every row of a file asked of a service, through the address that every caller uses.

Rows go in chunks, several at once. The answer to each is made durable in the checkpoint under the chunk's number before
it counts, so that an attempt goes on where the one before was killed: a chunk under way then may be asked twice, and
stands in the result once. The result has one row for each row asked, in their order.
"""

import json
import os
import time
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from modelyard.domain.errors.base import quote
from modelyard.domain.errors.platform import InvalidRequest, JobFailed, MissingExtra, NotSupported
from modelyard.domain.job_kinds import KINDS
from modelyard.foundation.durable import sync
from modelyard.ports.job_runner import JobContext

_FORMATS: Final = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".npy": "npy", ".parquet": "parquet"}
_PATIENCE_S: Final = 120.0
_KEY_PATIENCE_S: Final = 15.0
"""A key that was just made is not known to every server at once."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 3.0
_REQUEST_S: Final = 120.0
_LATER: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_UNKNOWN_KEY: Final = frozenset({401, 403})
_BLOCK: Final = 1 << 20


class BatchInference:
    """The runner."""

    def check(self, parameters: Mapping[str, Any]) -> None:
        """As the kind says; the service is looked up when it is asked."""
        KINDS["batch-inference"].check(parameters, {"data": {}})

    def run(self, job: JobContext) -> Mapping[str, Any]:
        """Ask for everything, then put the parts together."""
        data = job.input("data")
        source = Rows(data, form=job.parameters.get("format") or _form(data), chunk=int(job.parameters["chunk_rows"]))
        total = source.count()
        asking = _Asking(job)
        parts = job.checkpoint() / "parts"
        parts.mkdir(exist_ok=True)
        done = again = 0
        with ThreadPoolExecutor(int(job.parameters["at_once"])) as pool:
            waiting: deque[tuple[int, Future[None]]] = deque()

            def take() -> None:
                nonlocal done
                rows, future = waiting.popleft()
                future.result()
                done += rows
                job.report(done=done / total if total else None, text=f"{done} of {total} rows")

            try:
                for number, (first, rows, chunk) in enumerate(source):
                    if job.is_cancelled():
                        raise JobFailed("it was ended before it was done")  # noqa: TRY301  (the pool has to be left)
                    part = parts / f"{number:09d}"
                    if part.exists():
                        done, again = done + rows, again + rows
                        continue
                    waiting.append((rows, pool.submit(asking.ask, chunk, part, first)))
                    if len(waiting) > int(job.parameters["at_once"]):
                        take()
                while waiting:
                    take()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        if done == 0:
            raise InvalidRequest(f"{quote(data.name)} has no rows", hint="send a file with at least one row")
        out = job.directory / f"predictions.{job.parameters['output']}"
        join(sorted(parts.iterdir()), out, with_head=job.parameters["output"] == "csv")
        job.keep(out.name, out)
        job.report(done=1.0, text=f"{done} rows")
        return {"rows": done, "rows_from_before": again, "chunks": len(list(parts.iterdir())), "file": out.name}


class Rows:
    """The rows of a file, chunk by chunk, always cut at the same places."""

    def __init__(self, path: Path, *, form: str, chunk: int) -> None:
        self._path = path
        self._form = form
        self._chunk = chunk

    def __iter__(self) -> Iterator[tuple[int, int, Any]]:
        """Number of the first row, how many, and the rows as the client takes them."""
        first = 0
        try:
            for rows in self._chunks():
                yield first, len(rows), rows
                first += len(rows)
        except (ValueError, UnicodeDecodeError) as error:
            raise InvalidRequest(
                f"{quote(self._path.name)} cannot be read as {self._form}: {quote(error, limit=200)}",
                hint="look at the file, or say its format",
            ) from error

    def count(self) -> int:
        """How many rows there are, nearly: lines of a text, without its head."""
        if self._form == "npy":
            return len(self._array())
        if self._form == "parquet":
            return int(self._parquet().metadata.num_rows)
        with self._path.open("rb") as stream:
            lines = sum(block.count(b"\n") for block in iter(lambda: stream.read(_BLOCK), b""))
            if lines or stream.tell():
                stream.seek(-1, os.SEEK_END)
                lines += stream.read(1) != b"\n"
        return max(lines - (self._form == "csv"), 0)

    def _chunks(self) -> Iterator[Any]:
        if self._form == "csv":
            import pandas as pd

            yield from pd.read_csv(self._path, chunksize=self._chunk)
        elif self._form == "jsonl":
            yield from self._lines()
        elif self._form == "npy":
            array = self._array()
            for first in range(0, len(array), self._chunk):
                yield array[first : first + self._chunk]
        else:
            for batch in self._parquet().iter_batches(self._chunk):
                yield batch.to_pandas()

    def _lines(self) -> Iterator[list[Any]]:
        rows: list[Any] = []
        with self._path.open(encoding="utf-8") as stream:
            for line in stream:
                if line.strip():
                    rows.append(json.loads(line))
                if len(rows) == self._chunk:
                    yield rows
                    rows = []
        if rows:
            yield rows

    def _array(self) -> Any:  # noqa: ANN401  (an array of any type)
        import numpy as np

        array = np.load(self._path, mmap_mode="r", allow_pickle=False)
        if not array.ndim:
            raise ValueError("a single value has no rows")
        return array

    def _parquet(self) -> Any:  # noqa: ANN401  (an optional library's object)
        try:
            from pyarrow import parquet
        except ImportError as error:
            raise MissingExtra(
                "Parquet files need pyarrow", hint="install pyarrow beside Modelyard, or send CSV or JSON lines"
            ) from error
        return parquet.ParquetFile(self._path)


class _Asking:
    """Asks the service, again where that may help."""

    def __init__(self, job: JobContext) -> None:
        import httpx

        from modelyard.client.documents import ServiceInfo

        address = job.service()
        headers = {"authorization": f"Bearer {address.key}"} if address.key else {}
        self._http = httpx.Client(headers=headers, timeout=_REQUEST_S, trust_env=False, verify=False)  # noqa: S501  (this machine's own listener)
        self._version = job.parameters.get("version")
        self._output = job.parameters["output"]
        document = {"name": job.parameters["service"], "phase": "serving", "url": address.url}
        self._info = ServiceInfo.read(document)
        self._began = time.monotonic()
        self._metadata: dict[str, Any] | None = None

    def ask(self, rows: object, part: Path, first: int) -> None:
        """One chunk, and its answer on the disk."""
        from modelyard.client.predicting import infer_request, read_prediction

        if self._metadata is None:
            from modelyard.client.predicting import metadata_url

            url = metadata_url(self._info, self._version)
            self._metadata = self._send("GET", url, "the service's description").json()
        request = infer_request(self._info, self._metadata, rows, version=self._version)
        what = f"rows from {first + 1} on"
        answer = self._send("POST", request.url, what, content=request.body, headers=dict(request.headers))
        frame = read_prediction(answer, self._info).frame()
        draft = part.with_name(f".{part.name}")
        if self._output == "csv":
            frame.to_csv(draft, index=False)
        else:
            frame.to_json(draft, orient="records", lines=True)
        sync(draft)
        draft.rename(part)
        sync(part.parent)

    def _send(self, method: str, url: str, what: str, **options: Any) -> Any:  # noqa: ANN401  (httpx's own)
        """The answer, asked for again while the service is busy, away or does not know the key yet.

        Raises:
            InvalidRequest: the service refuses these rows.
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


def join(parts: list[Path], out: Path, *, with_head: bool) -> None:
    """One file of all parts, in their order; a head line is taken from the first alone."""
    with out.open("wb") as target:
        for number, part in enumerate(path for path in parts if not path.name.startswith(".")):
            with part.open("rb") as source:
                if with_head and number:
                    source.readline()
                while block := source.read(_BLOCK):
                    target.write(block)


def _form(path: Path) -> str:
    form = _FORMATS.get(path.suffix.lower())
    if form is None:
        raise NotSupported(
            f"{quote(path.name)} does not say what it is", hint="name it .csv, .jsonl, .npy or .parquet, or give format"
        )
    return form
