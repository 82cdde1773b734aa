"""Connections are cut, the database is restarted, killed, frozen and changed while a job runs."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest

from client import settings
from client.local import processes
from tests import conftest
from tests.faults import breakpoints
from tests.faults.conftest import Faulted, frozen
from tests.faults.test_workers import DEATHS, until_step

_FULL = pytest.mark.faults_full


def terminate(faulted: Faulted, pid: int) -> None:
    assert faulted.rows("SELECT pg_terminate_backend(%s)", pid) == [(True,)]


@pytest.mark.parametrize(
    "place_name",
    [
        "in the publication",
        pytest.param("in the claim", marks=_FULL),
        pytest.param("before its inputs are pinned", marks=_FULL),
        pytest.param("before the mask", marks=_FULL),
        pytest.param("before a later checkpoint", marks=_FULL),
        pytest.param("after the report", marks=_FULL),
    ],
)
def test_a_connection_cut_inside_a_transaction_leaves_nothing_of_it(
    faulted: Faulted, place_name: str
) -> None:
    """The server process that holds the transaction's locks is ended; the job is tried again."""
    model = faulted.model()
    with breakpoints.at(faulted.api.running.database_url, *DEATHS[place_name]) as place:
        request = faulted.submit(model)
        terminate(faulted, place.reached())
        place.release()
        faulted.completes(model, request)
    assert faulted.job(request)["attempts"] == (1 if place_name == "in the claim" else 2)


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=_FULL)])
def test_a_database_restarted_while_a_job_runs_costs_an_attempt_at_most(
    faulted: Faulted, number: signal.Signals
) -> None:
    model = faulted.model()
    request = faulted.submit(model)
    until_step(faulted.api, request["id"], 10)
    pid = faulted.api.running.kill("postgres", number)
    faulted.api.running.wait_restarted("postgres", pid, patience=30)
    conftest.until_ready(faulted.api)
    faulted.completes(model, request)
    assert faulted.job(request)["attempts"] in {1, 2}


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=_FULL), signal.SIGKILL])
def test_a_database_restarted_inside_the_publication_publishes_once(
    faulted: Faulted, number: signal.Signals
) -> None:
    model = faulted.model()
    place_name = "in the publication"
    with breakpoints.at(faulted.api.running.database_url, *DEATHS[place_name]) as place:
        request = faulted.submit(model)
        place.reached()
        pid = faulted.api.running.kill("postgres", number)
        faulted.api.running.wait_restarted("postgres", pid, patience=30)
        conftest.until_ready(faulted.api)
    faulted.completes(model, request)
    # A server that shuts down and ends the lock's holder first lets the publication commit.
    possible = {1, 2} if number == signal.SIGINT else {2}
    assert faulted.job(request)["attempts"] in possible


@_FULL
def test_every_connection_cut_at_once_is_made_again(faulted: Faulted) -> None:
    model = faulted.model()
    request = faulted.submit(model)
    until_step(faulted.api, request["id"], 10)
    for _ in range(5):
        faulted.rows(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            " AND backend_type = 'client backend'"
        )
        time.sleep(0.3)
    faulted.completes(model, request)
    assert faulted.job(request)["attempts"] in {1, 2, 3}


@_FULL
def test_a_database_frozen_past_the_lease_publishes_once(faulted: Faulted) -> None:
    model = faulted.model()
    request = faulted.submit(model)
    until_step(faulted.api, request["id"], 10)
    parent = faulted.api.running.pids()["postgres"]
    assert parent is not None
    with frozen(parent, *processes.children_of(parent)):
        time.sleep(conftest.LEASE_SECONDS + 2)
    faulted.completes(model, request)


def test_a_migration_while_a_job_runs_does_not_end_it(faulted: Faulted) -> None:
    """``python -m migrations``, and what a migration does: a table is altered under a full lock."""
    model = faulted.model()
    running = faulted.api.running
    request = faulted.submit(model)
    until_step(faulted.api, request["id"], 5)
    done = subprocess.run(
        [sys.executable, "-m", "migrations"],
        cwd=Path(__file__).parents[2],
        env=settings.child_environment(
            DATABASE_URL=running.database_url, BROKER_URL=running.broker_url
        ),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    try:
        with psycopg.connect(running.database_url) as connection:
            for table in ("job", "job_step", "forget_request", "version"):
                connection.execute(f"ALTER TABLE {table} ADD COLUMN of_a_migration integer")
            time.sleep(1)
        faulted.completes(model, request)
        assert faulted.job(request)["attempts"] == 1
    finally:
        with psycopg.connect(running.database_url) as connection:
            for table in ("job", "job_step", "forget_request", "version"):
                connection.execute(f"ALTER TABLE {table} DROP COLUMN IF EXISTS of_a_migration")
