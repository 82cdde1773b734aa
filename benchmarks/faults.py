"""Faults at random moments on a whole running stack: what is lost, what is doubled, how long.

A stack with real workers serves small requests while a plan that the seed decides kills, stops and
restarts its processes, cuts its connections and empties its broker. After that every request must
be completed, by one version, and every version must have one job. The plan can be had again by its
seed; the moments in which its faults meet a job cannot.
"""

import dataclasses
import functools
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import rich.console
import rich.status
import rich.table
import torch

from benchmarks import (
    fault_fleet,
    fault_injector,
    fault_load,
    fault_plan,
    figures,
    served,
    stacks,
)
from client import http, settings
from client.local import processes, stack

# A pinned rate is not probed for: that would cost more than the epoch.
QUICK: Mapping[str, Any] = {"epochs": 1, "line_search": False, "learning_rate": 0.01}
_LONG: Mapping[str, Any] = {**QUICK, "epochs": 12}
_DIGITS = served.TrainingSet(1797, holdout=447, test=450)
_ALLOWANCE_SECONDS = 5.0  # beyond the lease, until somebody else has a dead worker's job
_SETTLE_SECONDS = 900.0


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What was injected, how often a job was at work then, and the account."""

    injected: Mapping[str, int]
    struck: Mapping[str, int]
    account: fault_load.Account
    seconds: float


def run(
    running: stack.Running,
    fleet: fault_fleet.Fleet,
    load: fault_load.Load,
    plan: Sequence[fault_plan.Injection],
    requests: int,
    lease: float,
    told: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Carry out the plan while requests come in evenly, wait for their end, and count."""
    began = time.monotonic()
    injector = fault_injector.Injector(
        running, fleet, fault_injector.resender(running.broker_url), lease
    )
    sent = 0
    for number, injection in enumerate(plan, 1):
        while sent * len(plan) < number * requests:
            load.send()
            sent += 1
        injector.inject(injection)
        told(f"{number} of {len(plan)} faults: {injection.kind}")
    injector.calm()
    load.settle(_SETTLE_SECONDS, lambda count: told(f"{count} requests are open"))
    return Outcome(
        injected=injector.injected,
        struck=injector.struck,
        account=load.account(),
        seconds=time.monotonic() - began,
    )


def recoveries(
    running: stack.Running, fleet: fault_fleet.Fleet, model: str, tries: int
) -> list[float]:
    """Seconds from SIGKILL of the worker at work until another claims its job."""
    found = []
    with (
        http.Api(running.base_url, running.admin_key) as api,
        psycopg.connect(running.database_url, autocommit=True) as connection,
    ):
        for turn in range(tries):
            _until(lambda: len(fleet.warm()) > 1)
            ids = [served.sample_id(_DIGITS.trained - 1 - turn)]
            body = {"model": model, "targets": [{"kind": "sample", "ids": ids}], "method": _LONG}
            request = api.post("/v1/forget-requests", body, idempotency_key=f"recovery-{turn}")
            _until(functools.partial(_is_in, api, request, "unlearning"))
            job_id = api.get(f"/v1/forget-requests/{request['id']}")["job_id"]
            row = connection.execute("SELECT owner FROM job WHERE id = %s", [job_id]).fetchone()
            child = int(str((row or ("0:0",))[0]).rpartition(":")[2])
            (parent,) = (one for one, worker in fleet.working().items() if worker == child)
            (killed,) = connection.execute("SELECT clock_timestamp()").fetchone() or (None,)
            processes.end([child, parent], [(signal.SIGKILL, 5.0)])
            query = (
                "SELECT extract(epoch FROM created_at - %s)::float8 FROM event "
                "WHERE subject_id = %s AND type = 'claimed' AND created_at > %s"
            )
            values = [killed, job_id, killed]
            _until(functools.partial(_any_row, connection, query, values))
            (seconds,) = connection.execute(query, values).fetchone() or (float("inf"),)
            found.append(float(seconds))
            _until(functools.partial(_is_in, api, request, "done"))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run everything and print it; 1 where a target is missed and ``--strict`` is given."""
    options = _options(arguments)
    torch.set_num_threads(1)
    console = figures.console()
    evidence = figures.surroundings()
    environment = {
        "SALUN_LEASE_SECONDS": str(options.lease),
        "SALUN_SWEEP_SECONDS": str(options.sweep),
        "SALUN_TORCH_THREADS": "1",
    }
    plan = fault_plan.plan(
        options.seed,
        options.injections,
        longest_wait=options.longest_wait,
        longest_pause=options.lease + 2,
    )
    with stacks.temporary(console, environment) as (running, folder):
        evidence |= figures.of_database(running.database_url)
        races = _races(running, options, console) if options.races else {}
        models = _serve(running, folder, options.models)
        fleet = fault_fleet.Fleet(running, options.workers - 1, environment)
        with fleet.up(), console.status("workers start") as status:
            status.update("recovery after SIGKILL")
            times = recoveries(running, fleet, models.pop(), options.recoveries)
            load = fault_load.Load(
                running, models, [served.sample_id(n) for n in range(_DIGITS.trained - 100)], QUICK
            )
            told = functools.partial(_tell, console, status)
            outcome = run(running, fleet, load, plan, options.requests, options.lease, told)
    evidence |= _told(outcome, options)
    found = _figures(outcome, times, options.lease)
    if races:
        found += _racing_figures(races)
    console.print(_table(outcome))
    return figures.conclude(console, "faults", found, evidence, options)


def _options(arguments: Sequence[str] | None) -> Any:  # noqa: ANN401 - argparse has no better
    parser = figures.parser("benchmarks.faults", __doc__)
    parser.add_argument("--injections", type=int, default=500)
    parser.add_argument("--requests", type=int, default=500, help="sent meanwhile")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--recoveries", type=int, default=10, help="workers killed for their time")
    parser.add_argument("--races", type=int, default=1000, help="races of either kind; 0: none")
    parser.add_argument("--queued", type=int, default=100_000, help="jobs in front of the claims")
    parser.add_argument("--workers", type=int, default=2, help="GPU workers")
    parser.add_argument("--models", type=int, default=6)
    parser.add_argument("--lease", type=float, default=5.0, help="seconds")
    parser.add_argument("--sweep", type=float, default=2.0, help="seconds")
    parser.add_argument("--longest-wait", type=float, default=3.0, help="seconds between faults")
    return parser.parse_args(arguments)


def _serve(running: stack.Running, folder: Path, count: int) -> list[str]:
    """So many models over the digits, and one more for the recoveries."""
    names = [f"net-{number}" for number in range(count + 1)]
    served.train(folder / "net", _DIGITS.trained)
    _DIGITS.write(folder / "digits.parquet")
    with http.Api(running.base_url, running.admin_key) as api:
        served.ingest(api, "digits", folder / "digits.parquet")
        for name in names:
            served.register(
                api, name, dataset="digits", net=folder / "net", policy=served.lenient(0.0)
            )
    return names


def _races(running: stack.Running, options: Any, console: rich.console.Console) -> dict[str, Any]:  # noqa: ANN401
    """``benchmarks.racing`` on a database of its own beside the stack's."""
    with psycopg.connect(running.database_url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE races")
    environment = settings.child_environment(
        DATABASE_URL=running.database_url.replace("/salun?", "/races?"),
        BROKER_URL=running.broker_url,
        SALUN_DATA_DIR=str(running.folder.root / "races"),
    )
    arguments = ["--tries", str(options.races), "--queued", str(options.queued)]
    with console.status("races and claims"):
        for command in (["migrations"], ["benchmarks.racing", *arguments]):
            done = subprocess.run(
                [sys.executable, "-m", *command],
                env=environment,
                cwd=Path(__file__).parents[1],
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode != 0:
                raise RuntimeError(f"{command[0]} failed: {done.stderr.strip()[-500:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _figures(outcome: Outcome, times: Sequence[float], lease: float) -> list[figures.Figure]:
    account = outcome.account
    bound = lease + _ALLOWANCE_SECONDS
    return [
        figures.summarise("lost", "requests, samples, jobs", [account.lost], at_most=0),
        figures.summarise("doubled", "requests, versions", [account.doubled], at_most=0),
        figures.summarise("recovery after SIGKILL of a worker", "s", times, at_most=bound),
        figures.summarise("the slowest recovery", "s", [max(times)], at_most=bound),
    ]


def _racing_figures(races: Mapping[str, Any]) -> list[figures.Figure]:
    found = []
    for kind in races["races"]:
        tries = kind["cancelled"] + kind["carried_out"] + kind["undecided"]
        name = f"{kind['name']}: without exactly one winner, of {tries}"
        found.append(figures.summarise(name, "races", [kind["undecided"]], at_most=0))
        name = f"{kind['name']}: won by who cancelled"
        found.append(figures.summarise(name, "races", [kind["cancelled"]]))
    for kind, times in races["claims"].items():
        found.append(figures.summarise(f"claim, {kind}", "ms", times, at_most=20.0))
    one = races["one_job"]
    name = f"jobs for {one['pending']:,} pending requests on one model"
    found.append(figures.summarise(name, "jobs", [one["jobs"]], at_most=1))
    acts = ("sealing", "publishing")
    return found + [figures.summarise(f"{act} it", "s", [one[act]]) for act in acts]


def _told(outcome: Outcome, options: Any) -> dict[str, str]:  # noqa: ANN401
    account = outcome.account
    counts = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in account.found.items())
    return {
        "plan": f"seed {options.seed}, {sum(outcome.injected.values())} faults and "
        f"{options.requests} requests on {options.models} models, {options.workers} GPU workers, "
        f"lease {options.lease:g} s, sweep {options.sweep:g} s, {outcome.seconds:.0f} s in all",
        "account": f"{counts}; approved by a person {account.approved}",
    }


def _table(outcome: Outcome) -> rich.table.Table:
    table = rich.table.Table(title="faults injected")
    table.add_column("fault")
    table.add_column("injected", justify="right")
    table.add_column("while a job ran", justify="right")
    for kind, count in outcome.injected.items():
        table.add_row(kind, str(count), str(outcome.struck[kind]))
    return table


def _tell(console: rich.console.Console, status: rich.status.Status, words: str) -> None:
    status.update(words)
    if not console.is_terminal and words.split()[0].endswith("0"):
        console.print(words)


def _is_in(api: http.Api, request: Mapping[str, Any], stage: str) -> bool:
    return bool(api.get(f"/v1/forget-requests/{request['id']}")["stage"] == stage)


def _any_row(
    connection: psycopg.Connection[tuple[Any, ...]], query: LiteralString, values: Sequence[object]
) -> bool:
    return bool(connection.execute(query, values).fetchall())


def _until(met: Callable[[], object], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not met():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {seconds} s")
        time.sleep(0.05)


if __name__ == "__main__":
    raise SystemExit(main())
