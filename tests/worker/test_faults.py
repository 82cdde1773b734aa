"""Workers die, freeze and are told to go: the same bits come out, and nothing is lost."""

import os
import signal
import time
from typing import Any

import pytest

from tests import conftest, material

LONG = {"epochs": 12, "line_search": False}


def weights_of(api: conftest.Api, model: str, version: int) -> str:
    files = api.http.get(f"/v1/models/{model}/versions/{version}").json()["files"]
    return next(str(file["digest"]) for file in files if file["path"] == "model.safetensors")


def submit(api: conftest.Api, model: str) -> dict[str, Any]:
    sample = {"kind": "sample", "ids": material.train_ids()[200:230]}
    body: dict[str, Any] = api.forget(model, sample, method=LONG).json()
    return body


def until_stage(api: conftest.Api, request_id: str, stage: str, step: int = 0) -> dict[str, Any]:
    def reached(body: dict[str, Any]) -> bool:
        progress = body["progress"] or {"step": 0}
        return bool(body["stage"] == stage and progress["step"] >= step)

    return api.until(f"/v1/forget-requests/{request_id}", reached)


@pytest.fixture(scope="module")
def undisturbed(api: conftest.Api) -> str:
    """The digest that the job ends in when nothing happens to it."""
    model = api.model({"acceptance": conftest.WIDE})
    done = api.ended(submit(api, model)["id"])
    assert done["status"] == "completed"
    return weights_of(api, model, done["result_version"])


@pytest.mark.parametrize(
    ("stage", "step"), [("computing_saliency", 0), ("unlearning", 50), ("verifying", 0)]
)
def test_a_killed_worker_costs_a_lease_and_changes_no_bit(
    api: conftest.Api, undisturbed: str, stage: str, step: int
) -> None:
    model = api.model({"acceptance": conftest.WIDE})
    request = submit(api, model)
    until_stage(api, request["id"], stage, step)
    pid = api.running.kill("worker", signal.SIGKILL)
    api.running.wait_restarted("worker", pid)
    done = api.ended(request["id"])
    assert done["status"] == "completed"
    assert weights_of(api, model, done["result_version"]) == undisturbed
    job = api.http.get(f"/v1/jobs/{done['job_id']}").json()
    assert job["attempts"] in {1, 2}  # 1: the stage was over before the kill


def test_a_worker_told_to_go_gives_its_job_back(api: conftest.Api, undisturbed: str) -> None:
    model = api.model({"acceptance": conftest.WIDE})
    request = submit(api, model)
    until_stage(api, request["id"], "unlearning", 30)
    began = time.monotonic()
    pid = api.running.kill("worker", signal.SIGTERM)
    api.running.wait_restarted("worker", pid, patience=30)
    done = api.ended(request["id"])
    assert done["status"] == "completed"
    assert weights_of(api, model, done["result_version"]) == undisturbed
    assert time.monotonic() - began < 60
    job = api.http.get(f"/v1/jobs/{done['job_id']}").json()
    assert job["attempts"] == 1  # leaving on purpose does not count


def test_a_frozen_worker_is_overtaken_and_publishes_nothing(
    api: conftest.Api, undisturbed: str
) -> None:
    """SIGSTOP for longer than the lease: another worker takes over; the zombie wakes and stops."""
    model = api.model({"acceptance": conftest.WIDE})
    request = submit(api, model)
    until_stage(api, request["id"], "unlearning", 30)
    parent = api.running.pids()["worker"]
    children = conftest.children(parent)
    for pid in children:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(conftest.LEASE_SECONDS + 1)
    with conftest.second_worker(api.running):
        done = api.ended(request["id"])
        for pid in children:
            os.kill(pid, signal.SIGCONT)
        assert done["status"] == "completed"
        assert weights_of(api, model, done["result_version"]) == undisturbed
        time.sleep(2)
    versions = api.http.get(f"/v1/models/{model}/versions").json()["items"]
    assert [item["version"] for item in versions] == [2, 1]
    job = api.http.get(f"/v1/jobs/{done['job_id']}").json()
    assert (job["attempts"], job["status"]) == (2, "succeeded")


@pytest.mark.parametrize("name", ["api", "housekeeping", "beat", "valkey", "postgres"])
def test_whatever_is_killed_nothing_accepted_is_lost(api: conftest.Api, name: str) -> None:
    model = api.model({"acceptance": conftest.WIDE})
    sample = {"kind": "sample", "ids": material.train_ids()[:5]}
    answer = api.forget(model, sample, method=conftest.QUICK)
    assert answer.status_code == 202, answer.text
    pid = api.running.kill(name, signal.SIGKILL)
    api.running.wait_restarted(name, pid)
    conftest.until_ready(api)
    assert api.ended(answer.json()["id"])["status"] == "completed"
