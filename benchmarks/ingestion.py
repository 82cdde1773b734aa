"""How near ingestion comes to what its parts cost, and how long 100,000 ids take to be accepted.

It writes a Parquet file of small PNGs (the Hugging Face image convention), starts a stack of its
own in a temporary folder, and ingests the file over HTTP. The parts are measured beside it, in
turn: COPY of the same ledger rows into a bare table with the ledger's indexes on the same server,
and reading the file and decoding every image in one process. One run is all of it, over a dataset
of its own.
"""

import contextlib
import hashlib
import io
import json
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pyarrow.parquet as pq
import rich.console
import rich.progress
import torch
from PIL import Image

from benchmarks import figures, memory, served, stacks
from client import http
from client.local import processes, stack

_FORGET = 100_000  # ids in one demand: as many as a target may have
_TRAINED_ON = 900  # digits the net is trained on; what it can do does not matter here
_WARM_UP = served.TrainingSet(5_000)
_BARE_TABLE = "CREATE TABLE bare_sample (LIKE sample INCLUDING ALL)"
_COLUMN_TYPES = ("uuid", "text", "text", "int4", "text", "text", "bytea", "int4", "int4", "int4")
_INGESTED = """
SELECT extract(epoch FROM j.finished_at - j.created_at)::float8
FROM job j JOIN dataset d ON d.id = j.subject_id
WHERE d.name = %s AND j.kind = 'ingestion'
"""


@dataclass(frozen=True)
class Run:
    """One run; times in seconds, memory in bytes."""

    ingesting: float
    peak: int
    growth: int
    copying: float
    decoding: float
    accepting: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Run everything and print it; 1 where a target is missed and ``--strict`` is given."""
    parser = figures.parser("benchmarks.ingestion", __doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the Parquet file")
    parser.add_argument("--runs", type=int, default=3, help="how often all of it is measured")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    console = figures.console()
    evidence = figures.surroundings()
    aside = options.rows // 100
    training_set = served.TrainingSet(options.rows, holdout=aside, test=aside)
    with (
        stacks.temporary(console) as (running, folder),
        http.Api(running.base_url, running.admin_key) as api,
    ):
        evidence |= figures.of_database(running.database_url)
        file = folder / "rows.parquet"
        with _bar(console, "writing the Parquet file", training_set.rows) as bar:
            training_set.write(file, bar)
        evidence["file"] = (
            f"{training_set.rows:,} rows, 8×8 PNGs, {file.stat().st_size / memory.MEBIBYTE:.0f} "
            f"MiB, row groups of {served.ROW_GROUP:,}"
        )
        _warm_up(api, folder, console)
        subject = _Subject(api, running, folder, file, training_set, console)
        runs = [subject.run(f"run-{turn}") for turn in range(options.runs)]
    found = _figures(runs, training_set)
    return figures.conclude(console, "ingestion", found, evidence, options)


def _warm_up(api: http.Api, folder: Path, console: rich.console.Console) -> None:
    """Have everything loaded that a worker loads once, and a net for the models."""
    with console.status("warming up"):
        served.train(folder / "net", _TRAINED_ON)
        file = folder / "warm-up.parquet"
        _WARM_UP.write(file)
    served.ingest(api, "warm-up", file)


@dataclass(frozen=True)
class _Subject:
    api: http.Api
    running: stack.Running
    folder: Path
    file: Path
    training_set: served.TrainingSet
    console: rich.console.Console

    def run(self, name: str) -> Run:
        """Ingest under that name, measure the parts, and post one large demand."""
        housekeeping = self.running.pids()["housekeeping"]
        if housekeeping is None:
            raise RuntimeError("the housekeeping worker is not running")
        held = memory.Growth(processes.descendants_of(housekeeping))
        served.ingest(self.api, name, self.file)
        peak, growth = held.peak(), held.growth()
        return Run(
            ingesting=self._ingested(name),
            peak=peak,
            growth=growth,
            copying=self._copy(),
            decoding=self._decode(),
            accepting=self._accept(name),
        )

    def _ingested(self, name: str) -> float:
        """Seconds from the POST to the end of the job, by the database's clock."""
        with psycopg.connect(self.running.database_url, autocommit=True) as connection:
            row = connection.execute(_INGESTED, [name]).fetchone()
        if row is None:
            raise RuntimeError(f"dataset {name} left no job")
        return float(row[0])

    def _copy(self) -> float:
        """Seconds to COPY the ledger's rows into a bare table of the same shape."""
        with psycopg.connect(self.running.database_url, autocommit=True) as connection:
            connection.execute("DROP TABLE IF EXISTS bare_sample")
            connection.execute(_BARE_TABLE)
            began = time.perf_counter()
            with (
                _bar(self.console, "COPY into a bare table", self.training_set.rows) as advance,
                connection.cursor() as cursor,
                cursor.copy("COPY bare_sample FROM STDIN (FORMAT BINARY)") as copy,
            ):
                copy.set_types(_COLUMN_TYPES)
                for row in _ledger_rows(self.training_set):
                    copy.write_row(row)
                    if row[-1] == served.ROW_GROUP - 1:
                        advance(served.ROW_GROUP)
            took = time.perf_counter() - began
            connection.execute("DROP TABLE bare_sample")
        return took

    def _decode(self) -> float:
        """Seconds to read the file and decode every image."""
        file = pq.ParquetFile(self.file)
        began = time.perf_counter()
        with _bar(self.console, "reading and decoding", self.training_set.rows) as advance:
            for batch in file.iter_batches(served.ROW_GROUP):
                contents = batch.column("image").field("bytes").to_pylist()
                for content in contents:
                    with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
                        image.load()
                advance(len(contents))
        return time.perf_counter() - began

    def _accept(self, name: str) -> float:
        """Seconds until one demand of many ids is accepted."""
        served.register(
            self.api, name, dataset=name, net=self.folder / "net", policy=served.lenient(3600.0)
        )
        count = min(_FORGET, self.training_set.trained // 2)
        envelope = json.dumps({"model": name, "targets": []})
        body = "\n".join([envelope, *map(served.sample_id, range(count))]).encode()
        began = time.perf_counter()
        with self.console.status(f"POST of {count:,} ids"):
            response = self.api.call(
                "POST",
                "/v1/forget-requests",
                content=lambda: [body],
                idempotency_key=uuid.uuid4().hex,
                headers={"Content-Type": "application/x-ndjson", "Content-Length": str(len(body))},
                timeout=120.0,
            )
        took = time.perf_counter() - began
        matched = response.json()["targets_summary"]["matched"]
        if response.status_code != 202 or matched != count:
            got = f"{response.status_code}, {matched} samples matched"
            raise RuntimeError(f"got {got}; expected 202, {count} samples")
        return took


def _ledger_rows(training_set: served.TrainingSet) -> Iterator[tuple[object, ...]]:
    """What ingestion writes to the ledger, row by row."""
    dataset_id = uuid.uuid4()
    pictures, _ = served.digits()
    hashes = [hashlib.sha256(picture).digest() for picture in pictures]
    for index in range(training_set.rows):
        yield (
            dataset_id,
            served.sample_id(index),
            training_set.split(index),
            served.label(index),
            None,
            served.subject_id(index),
            hashes[index % len(hashes)],
            0,
            *divmod(index, served.ROW_GROUP),
        )


def _figures(runs: Sequence[Run], training_set: served.TrainingSet) -> list[figures.Figure]:
    rows = training_set.rows
    ratios = [run.ingesting / (run.copying + run.decoding) for run in runs]
    peaks = [run.peak / memory.MEBIBYTE for run in runs]
    growths = [run.growth / memory.MEBIBYTE for run in runs]
    accepted = f"POST of {min(_FORGET, training_set.trained // 2):,} ids → 202"
    return [
        figures.summarise("ingestion", "s", [run.ingesting for run in runs]),
        figures.summarise("ingestion", "rows/s", [rows / run.ingesting for run in runs]),
        figures.summarise("ingestion / (COPY + decoding)", "times as long", ratios),
        figures.summarise("bare COPY, one client", "rows/s", [rows / run.copying for run in runs]),
        figures.summarise(
            "reading and decoding, one process", "rows/s", [rows / run.decoding for run in runs]
        ),
        figures.summarise("housekeeping child, peak resident memory", "MiB", peaks),
        figures.summarise("housekeeping child, growth during ingestion", "MiB", growths),
        figures.summarise(accepted, "s", [run.accepting for run in runs], at_most=5.0),
    ]


@contextlib.contextmanager
def _bar(console: rich.console.Console, title: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar; the yielded function hears how many more are done."""
    bar = rich.progress.Progress(console=console, transient=True, disable=not console.is_terminal)
    with bar as progress:
        task = progress.add_task(title, total=total)
        yield lambda more: progress.advance(task, more)


if __name__ == "__main__":
    raise SystemExit(main())
