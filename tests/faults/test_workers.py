"""Workers die, freeze and are told to go: the same bits come out, and nothing is lost."""

import os
import signal
import time
from typing import Any

import pytest

from client.local import processes
from tests import conftest, material
from tests.faults import breakpoints
from tests.faults.conftest import Faulted, frozen, until

_STEP = "job_step", "INSERT"
_TOLD = "forget_request", "UPDATE"
_STEPS = ("computing_saliency", "unlearning", "verifying")

# Where the worker dies: inside the statement that would commit a step (its artifact is stored, its
# row is not), or inside the first statement after a step.
DEATHS = {
    "in the claim": ("event", "INSERT", "NEW.type = 'claimed'"),
    "before its inputs are pinned": ("job", "UPDATE", "NEW.inputs IS DISTINCT FROM OLD.inputs"),
    "before its first stage": (*_TOLD, "NEW.stage = 'computing_saliency'"),
    "before the mask": (*_STEP, "NEW.name = 'computing_saliency'"),
    "after the mask": (*_TOLD, "NEW.stage = 'unlearning'"),
    "before the first checkpoint": (*_STEP, "NEW.name = 'unlearning/checkpoint'"),
    "before a later checkpoint": ("job_step", "UPDATE", "NEW.name = 'unlearning/checkpoint'"),
    "before the weights": (*_STEP, "NEW.name = 'unlearning'"),
    "after the weights": (*_TOLD, "NEW.stage = 'verifying'"),
    "before the report": (*_STEP, "NEW.name = 'verifying'"),
    "after the report": (*_TOLD, "NEW.stage = 'publishing'"),
    "in the publication": ("job", "UPDATE", "NEW.status = 'succeeded'"),
}  # fmt: skip
PLACES = DEATHS | {
    "in a heartbeat": ("job", "UPDATE", "NEW.step >= 10 AND OLD.step < NEW.step"),
    "as a file comes into the store": ("content", "INSERT", "true"),
}
_QUICK = {"before a later checkpoint", "in the publication"}
_WITH_ITS_PARENT = {"before the mask", "in the publication"}


@pytest.mark.parametrize(
    "death",
    [
        name if name in _QUICK else pytest.param(name, marks=pytest.mark.faults_full)
        for name in DEATHS
    ],
)
def test_a_worker_killed_around_any_step_changes_no_bit(faulted: Faulted, death: str) -> None:
    model = faulted.model()
    with breakpoints.at(faulted.api.running.database_url, *DEATHS[death]) as place:
        request = faulted.submit(model)
        place.reached()
        if death == "in the claim":  # nobody has the job yet: it was one of these
            processes.end(faulted.fleet.working().values(), [(signal.SIGKILL, 5.0)])
        else:
            faulted.kill_worker(request, whole=death in _WITH_ITS_PARENT)
        place.release()
        faulted.completes(model, request)
    job = faulted.job(request)
    assert job["attempts"] == (1 if death == "in the claim" else 2)


@pytest.mark.faults_full
def test_a_worker_killed_right_after_publication_leaves_one_version(faulted: Faulted) -> None:
    model = faulted.model()
    request = faulted.submit(model)
    _, child = owner(faulted, request)
    faulted.api.ended(request["id"])
    processes.end([child], [(signal.SIGKILL, 5.0)])
    faulted.completes(model, request)
    assert faulted.job(request)["attempts"] == 1


@pytest.mark.faults_full
def test_a_worker_that_dies_every_time_is_counted_and_a_person_decides(faulted: Faulted) -> None:
    """Whatever kills the process kills it again: bounded, and the duty stays."""
    model = faulted.model()
    request = faulted.submit(model)
    job_id = faulted.job(request)["id"]
    for attempt in (1, 2, 3):
        with breakpoints.at(
            faulted.api.running.database_url, *DEATHS["before a later checkpoint"]
        ) as place:
            if faulted.claims(job_id) > attempt:
                pytest.fail("it ran further than the place where it dies")
            place.reached()
            faulted.kill_worker(request)
    done = faulted.api.ended(request["id"])
    assert (done["status"], done["reason"]) == ("action_required", "job_failed")
    job = faulted.job(request)
    assert (job["status"], job["error"]["code"]) == ("failed", "worker_died")
    assert faulted.versions(model) == [1]
    faulted.approve(request)
    faulted.completes(model, request)


@pytest.mark.parametrize(
    "step", [30, pytest.param(2, marks=pytest.mark.faults_full)], ids=["midway", "at its start"]
)
def test_a_worker_told_to_go_gives_its_job_back(faulted: Faulted, step: int) -> None:
    model = faulted.model()
    request = faulted.submit(model)
    until_step(faulted.api, request["id"], step)
    parent, _ = faulted.worker_of(request)
    os.kill(parent, signal.SIGTERM)
    faulted.completes(model, request)
    assert faulted.job(request)["attempts"] == 1  # leaving on purpose does not count
    assert faulted.claims(faulted.job(request)["id"]) == 2


def test_a_frozen_worker_is_overtaken_and_publishes_nothing(faulted: Faulted) -> None:
    """SIGSTOP for longer than the lease: another worker takes over; the zombie wakes and stops."""
    model = faulted.model()
    request = faulted.submit(model)
    until_step(faulted.api, request["id"], 10)
    with frozen(faulted.worker_of(request)[1]):
        faulted.api.ended(request["id"])
    time.sleep(2)  # it would publish now
    faulted.completes(model, request)
    assert faulted.job(request)["attempts"] == 2


@pytest.mark.parametrize(
    "where",
    [
        pytest.param("in a heartbeat", marks=pytest.mark.faults_full),
        pytest.param("as a file comes into the store", marks=pytest.mark.faults_full),
        "before a later checkpoint",
        "in the publication",
    ],
)
def test_a_worker_frozen_in_a_transaction_is_overtaken_too(faulted: Faulted, where: str) -> None:
    """It holds the job's row, which nobody could claim for as long as it sleeps, or the row of what
    its successor will bring into the store too.
    """
    model = faulted.model()
    with breakpoints.at(faulted.api.running.database_url, *PLACES[where]) as place:
        request = faulted.submit(model)
        place.reached()
        with frozen(faulted.worker_of(request)[1]):
            place.let_pass()
            faulted.completes(model, request)
    time.sleep(2)  # what it had begun it would end now
    faulted.completes(model, request)
    assert faulted.job(request)["attempts"] == 2


def test_a_child_that_is_slow_to_start_is_waited_for(faulted: Faulted) -> None:
    """It loads before it says that it is up; a busy machine makes that long."""
    parent, killed = next(iter(faulted.fleet.working().items()))
    processes.end([killed], [(signal.SIGKILL, 5.0)])
    until(lambda: faulted.fleet.working().get(parent) not in {None, killed})
    child = faulted.fleet.working()[parent]
    with frozen(child):
        time.sleep(8)
    until(lambda: child in faulted.fleet.warm())
    assert faulted.fleet.working()[parent] == child


@pytest.mark.parametrize(
    "name",
    [
        "api",
        pytest.param("housekeeping", marks=pytest.mark.faults_full),
        pytest.param("sweeper", marks=pytest.mark.faults_full),
        "valkey",
        "postgres",
    ],
)
def test_whatever_is_killed_nothing_accepted_is_lost(faulted: Faulted, name: str) -> None:
    model = faulted.model()
    sample = {"kind": "sample", "ids": material.train_ids()[:5]}
    answer = faulted.api.forget(model, sample, method=conftest.QUICK)
    assert answer.status_code == 202, answer.text
    pid = faulted.api.running.kill(name, signal.SIGKILL)
    faulted.api.running.wait_restarted(name, pid, patience=30)
    conftest.until_ready(faulted.api)
    assert faulted.api.ended(answer.json()["id"])["status"] == "completed"
    assert faulted.versions(model) == [1, 2]


def owner(faulted: Faulted, request: dict[str, Any]) -> tuple[int, int]:
    until(lambda: faulted.job(request)["status"] == "running")
    return faulted.worker_of(request)


def until_step(api: conftest.Api, request_id: str, step: int) -> None:
    def reached(body: dict[str, object]) -> bool:
        progress = body["progress"]
        at = progress["step"] if isinstance(progress, dict) else 0
        return body["stage"] == "unlearning" and at >= step

    api.until(f"/v1/forget-requests/{request_id}", reached)
