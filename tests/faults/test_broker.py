"""The broker loses, delays and repeats hints, and the API dies before it sends one."""

import contextlib
import signal
import time
from typing import Any

import celery
import pytest
import redis

from client.local import processes
from service import queue
from tests import conftest, material
from tests.faults import breakpoints
from tests.faults.conftest import Faulted, frozen, until
from tests.faults.test_workers import DEATHS


def flush(faulted: Faulted) -> None:
    path = faulted.api.running.broker_url.removeprefix("redis+socket://").split("?")[0]
    with redis.Redis(unix_socket_path=path) as broker:
        broker.flushall()


def small(faulted: Faulted, model: str, index: int) -> str:
    """A request of one sample; its id."""
    sample = {"kind": "sample", "ids": [material.train_ids()[index]]}
    answer = faulted.api.forget(model, sample, method=conftest.QUICK)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def all_complete(faulted: Faulted, model: str, requests: list[str]) -> None:
    """Each in a version of its own, by one run."""
    results = []
    for request_id in requests:
        done = faulted.api.ended(request_id)
        assert done["status"] == "completed", done
        results.append(done["result_version"])
        assert faulted.job(done)["attempts"] == 1
    assert sorted(results) == list(range(2, 2 + len(requests)))
    assert faulted.versions(model) == list(range(1, 2 + len(requests)))


def test_an_api_that_dies_between_commit_and_hint_leaves_it_to_the_sweeper(
    faulted: Faulted,
) -> None:
    model = faulted.model()
    running = faulted.api.running
    with frozen(faulted.api.running.pids()["valkey"]):
        request = faulted.submit(model)
        parent = running.pids()["api"]
        assert parent is not None
        children = processes.children_of(parent)
        log = running.folder.logs / "api.log"
        running.kill("api", signal.SIGKILL)
        processes.end(children, [(signal.SIGKILL, 5.0)])
        said = log.read_text().count("the outbox stays for the next sweep")
        job_id, *_ = (row[0] for row in _hints(faulted, request))
        assert [row[1] for row in _hints(faulted, request)] == [None]
        # Its successor looks at the outbox once, in vain; from then on nothing makes it look again.
        until(lambda: log.read_text().count("the outbox stays for the next sweep") > said)
        until(lambda: _is_up(faulted))
    faulted.completes(model, request)
    assert faulted.job(request)["id"] == str(job_id)
    assert all(sent for _, sent in _hints(faulted, request))


def test_hints_that_the_broker_forgets_are_written_again(faulted: Faulted) -> None:
    """FLUSHALL while a job runs and others wait."""
    model = faulted.model()
    running = faulted.api.running
    with breakpoints.at(running.database_url, *DEATHS["after the mask"]) as place:
        requests = [small(faulted, model, index) for index in range(4)]
        place.reached()
        until(lambda: not faulted.rows("SELECT 1 FROM outbox_message WHERE sent_at IS NULL"))
        flush(faulted)
    all_complete(faulted, model, requests)


@pytest.mark.parametrize(
    "seconds", [3, pytest.param(60, marks=pytest.mark.faults_full)], ids="{}s".format
)
def test_requests_are_accepted_and_jobs_go_on_without_a_broker(
    faulted: Faulted, seconds: int
) -> None:
    model = faulted.model()
    with breakpoints.at(faulted.api.running.database_url, *DEATHS["after the mask"]) as place:
        requests = [small(faulted, model, 0)]
        place.reached()
        with frozen(faulted.api.running.pids()["valkey"]):
            end = time.monotonic() + seconds
            requests += [small(faulted, model, index) for index in range(1, 4)]
            place.release()
            first = faulted.api.ended(requests[0])  # what runs needs no broker
            assert first["status"] == "completed"
            time.sleep(max(0.0, end - time.monotonic()))
    all_complete(faulted, model, requests)


def test_batches_are_sealed_without_a_broker(faulted: Faulted) -> None:
    model = faulted.model(batch_window_seconds=2)
    with frozen(faulted.api.running.pids()["valkey"]):
        request = faulted.submit(model)
        until(lambda: _jobs(faulted, request))
    faulted.completes(model, request)


def test_batches_are_sealed_while_housekeeping_is_busy(faulted: Faulted) -> None:
    """An ingestion takes minutes; so may the judge of a generator."""
    model = faulted.model(batch_window_seconds=2)
    content = material.parquet(material.rows()[:40])
    ready = ("dataset", "UPDATE", "NEW.status = 'ready'")
    with breakpoints.at(faulted.api.running.database_url, *ready) as place:
        dataset = {"name": "slow", "files": [faulted.api.put(content)["digest"]]}
        faulted.api.http.post("/v1/datasets", json=dataset).raise_for_status()
        place.reached()
        faulted.completes(model, faulted.submit(model))


@pytest.mark.faults_full
def test_a_broker_that_is_killed_with_its_data_costs_no_job(faulted: Faulted) -> None:
    model = faulted.model()
    running = faulted.api.running
    with breakpoints.at(running.database_url, *DEATHS["after the mask"]) as place:
        requests = [small(faulted, model, index) for index in range(4)]
        place.reached()
        flush(faulted)
        pid = running.kill("valkey", signal.SIGKILL)
        running.wait_restarted("valkey", pid, patience=30)
    all_complete(faulted, model, requests)


def test_a_hint_that_is_delivered_a_hundred_times_starts_one_run(faulted: Faulted) -> None:
    model = faulted.model()
    running = faulted.api.running
    sender = celery.Celery(broker=running.broker_url)
    until(lambda: len(faulted.fleet.warm()) == 2)
    request = faulted.submit(model)
    job_id = faulted.job(request)["id"]
    with sender.connection_for_write() as connection:
        for _ in range(100):
            sender.send_task(queue.RUN_JOB, [job_id], queue=queue.UNLEARNING, connection=connection)
    faulted.completes(model, request)
    path = running.broker_url.removeprefix("redis+socket://").split("?")[0]
    with redis.Redis(unix_socket_path=path) as broker:
        until(lambda: broker.llen(queue.UNLEARNING) == 0)
    sender.close()
    assert faulted.claims(job_id) == 1
    assert faulted.job(request)["attempts"] == 1
    assert faulted.versions(model) == [1, 2]


def _hints(faulted: Faulted, request: dict[str, Any]) -> list[tuple[Any, ...]]:
    """(job, when its hint was sent), oldest first."""
    query = """
        SELECT j.id, o.sent_at FROM outbox_message o
        JOIN job j ON j.id::text = o.payload->>'job_id'
        JOIN batch_member m ON m.batch_id = j.subject_id
        WHERE m.request_id = %s ORDER BY o.id
    """
    return faulted.rows(query, request["id"])


def _jobs(faulted: Faulted, request: dict[str, Any]) -> list[tuple[Any, ...]]:
    query = """
        SELECT j.id FROM job j JOIN batch_member m ON m.batch_id = j.subject_id
        WHERE m.request_id = %s
    """
    return faulted.rows(query, request["id"])


def _is_up(faulted: Faulted) -> bool:
    with contextlib.suppress(Exception):
        return bool(faulted.api.http.get("/livez").status_code == 200)
    return False
