"""Batch inference: every row of a file asked of a service, through the address that every caller uses.

Rows go in chunks, several at once. The answer to each is made durable in the checkpoint under the chunk's number before
it counts, so that an attempt goes on where the one before was killed: a chunk under way then may be asked twice, and
stands in the result once. The result has one row for each row asked, in their order.
"""

import json
import os
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
from modelyard.processes.jobs.asking import Asking

_FORMATS: Final = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".npy": "npy", ".parquet": "parquet"}
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
        asking = _Chunks(job)
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


class _Chunks(Asking):
    """Asks for chunks of rows and keeps the answers."""

    def __init__(self, job: JobContext) -> None:
        super().__init__(job)
        self._version = job.parameters.get("version")
        self._output = job.parameters["output"]
        self._description: dict[str, Any] | None = None

    def ask(self, rows: object, part: Path, first: int) -> None:
        """One chunk, and its answer on the disk."""
        from modelyard.client.predicting import infer_request, read_prediction

        if self._description is None:
            self._description = self.metadata(self._version)
        request = infer_request(self.info, self._description, rows, version=self._version)
        what = f"rows from {first + 1} on"
        answer = self.send("POST", request.url, what, content=request.body, headers=dict(request.headers))
        frame = read_prediction(answer, self.info).frame()
        draft = part.with_name(f".{part.name}")
        if self._output == "csv":
            frame.to_csv(draft, index=False)
        else:
            frame.to_json(draft, orient="records", lines=True)
        sync(draft)
        draft.rename(part)
        sync(part.parent)


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
