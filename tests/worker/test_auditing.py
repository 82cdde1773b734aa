"""Audits by a real worker: whole results, shadow nets used again, parts made once."""

import math
import signal
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from service import audit_nets
from tests import conftest, material

# Nets for these tests need not be good: one epoch each.
TRAINING = {"epochs": 1, "batch_size": 100, "learning_rate": 0.1}
CONTROLS = [audit_nets.RANDOM_MASK, audit_nets.NO_MASK, f"{audit_nets.DENSITY_PREFIX}0.1"]


@pytest.fixture(scope="module")
def forgotten(api: conftest.Api) -> str:
    """The path of a version that lacks twenty samples."""
    model = api.model({"acceptance": conftest.WIDE})
    sample = {"kind": "sample", "ids": material.train_ids()[:20]}
    done = api.ended(api.forget(model, sample, method=conftest.QUICK).json()["id"])
    return f"/v1/models/{model}/versions/{done['result_version']}"


def request(api: conftest.Api, version: str, **options: Any) -> dict[str, Any]:
    answer = api.http.post(
        f"{version}/audits",
        json={"training": TRAINING, **options},
        headers={"Idempotency-Key": uuid.uuid4().hex},
    )
    assert answer.status_code == 202, answer.text
    body: dict[str, Any] = answer.json()
    assert answer.headers["Location"] == body["links"]["self"]
    return body


def ended(api: conftest.Api, audit: dict[str, Any]) -> dict[str, Any]:
    return api.until(
        audit["links"]["self"], lambda body: body["status"] not in {"queued", "running"}
    )


def numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        for item in value.values():
            yield from numbers(item)
    elif isinstance(value, list):
        for item in value:
            yield from numbers(item)
    elif isinstance(value, int | float):
        yield float(value)


def kept(api: conftest.Api, job: dict[str, Any]) -> set[str]:
    """The steps of a job whose artifacts are in the store."""
    blobs = {path.name for path in (api.running.folder.root / "blobs").glob("*/*")}
    return {step["name"] for step in job["steps"] if step["artifact_digest"] in blobs}


def retrained_nets(api: conftest.Api, job: dict[str, Any]) -> set[str]:
    """Weights that nobody will read again, of those that the job had made."""
    made = {step["name"] for step in job["steps"] if step["name"].startswith("retraining/")}
    assert made
    return made & kept(api, job)


@pytest.fixture(scope="module")
def whole(api: conftest.Api, forgotten: str) -> dict[str, Any]:
    """An audit with every part."""
    audit = request(api, forgotten, controls=True, densities=[0.1], seeds=[0, 1], shadow_pairs=3)
    return ended(api, audit)


def test_an_audit_compares_the_version_with_every_other_net(whole: dict[str, Any]) -> None:
    assert (whole["status"], whole["error"]) == ("completed", None)
    result = whole["result"]
    nets = {net["name"]: net for net in result["nets"]}
    assert list(nets) == ["original", "version", "retrained", "retrained_again", *CONTROLS]
    assert [nets[name]["runs"] for name in CONTROLS] == [2, 2, 2]
    assert [nets[name]["density"] for name in CONTROLS] == pytest.approx([0.5, 1, 0.1], abs=0.02)
    for net in nets.values():
        for name in ("unlearning_accuracy", "test_accuracy", "forget_holdout_auc"):
            spread = net["metrics"][name]["sd"]
            assert (spread is None) == (net["runs"] == 1)
    found = list(numbers(result))
    assert len(found) > 100
    assert all(map(math.isfinite, found))
    assert nets["version"]["metrics"]["average_gap"]["value"] == result["average_gap"]
    assert nets["retrained_again"]["metrics"]["average_gap"]["value"] == result["average_gap_floor"]
    assert nets["retrained"]["metrics"]["average_gap"]["value"] == 0
    # One epoch leaves no two retrained nets alike; equal seeds would.
    assert result["average_gap_floor"] > 0
    assert result["training"]["epochs"] == 1
    assert set(result["evidence"]["versions"]) == {"salun_core", "torch", "timm"}
    assert "retain_accuracy" in result["warnings"][0]  # one epoch makes no reference
    assert (result["ulira"]["pairs"], result["ulira"]["pairs_reused"]) == (3, 0)
    assert 0 <= result["ulira"]["metrics"]["ulira_auc"]["value"] <= 1


def test_the_version_is_measured_as_it_was_verified(
    api: conftest.Api, forgotten: str, whole: dict[str, Any]
) -> None:
    report = api.http.get(f"{forgotten}/report").json()
    measured = next(net for net in whole["result"]["nets"] if net["name"] == "version")["metrics"]
    for name, entry in report["metrics"].items():
        if name != "frozen_weights_unchanged":
            assert measured[name]["value"] == pytest.approx(entry["value"]), name


def test_the_audit_is_a_job_and_changes_no_version(
    api: conftest.Api, forgotten: str, whole: dict[str, Any]
) -> None:
    job = api.http.get(whole["links"]["job"]).json()
    assert (job["kind"], job["status"], job["stage"]) == ("audit", "succeeded", "done")
    assert job["batch_id"] is None
    names = {step["name"] for step in job["steps"]}
    assert {"comparing/version", "running_controls/0", "running_controls/1"} <= names
    assert "comparing/version" in kept(api, job)
    assert not retrained_nets(api, job)
    model = forgotten.split("/")[3]
    assert api.http.get(f"/v1/models/{model}").json()["versions"] == 2
    listed = api.http.get(f"{forgotten}/audits").json()["items"]
    assert whole["id"] in {item["id"] for item in listed}


def test_the_next_audit_trains_no_shadow_net_again(
    api: conftest.Api, forgotten: str, whole: dict[str, Any]
) -> None:
    audit = request(api, forgotten, retrained=False, controls=False, shadow_pairs=4)
    again = ended(api, audit)["result"]["ulira"]
    assert (again["pairs"], again["pairs_reused"]) == (4, 3)
    same = request(api, forgotten, retrained=False, controls=False, shadow_pairs=3)
    assert ended(api, same)["result"]["ulira"] == {**whole["result"]["ulira"], "pairs_reused": 3}
    other = {"training": {**TRAINING, "batch_size": 90}}
    changed = request(api, forgotten, retrained=False, controls=False, shadow_pairs=3, **other)
    assert ended(api, changed)["result"]["ulira"]["pairs_reused"] == 0


def test_a_killed_worker_makes_no_part_twice(
    api: conftest.Api, forgotten: str, whole: dict[str, Any]
) -> None:
    audit = request(api, forgotten, controls=True, densities=[0.1], seeds=[0, 1])
    path = audit["links"]["job"]
    api.until(path, lambda job: "comparing/version" in {step["name"] for step in job["steps"]})
    before = {step["name"]: step for step in api.http.get(path).json()["steps"]}
    pid = api.running.kill("worker", signal.SIGKILL)
    api.running.wait_restarted("worker", pid)
    done = ended(api, audit)
    assert done["status"] == "completed"
    job = api.http.get(path).json()
    after = {step["name"]: step for step in job["steps"]}
    assert {name: after[name] for name in before} == before
    assert done["result"]["nets"] == whole["result"]["nets"]


def test_a_cancelled_audit_fails_and_says_so(api: conftest.Api, forgotten: str) -> None:
    long = {"training": {**TRAINING, "epochs": 500}}
    audit = request(api, forgotten, controls=False, **long)
    path = audit["links"]["job"]
    job = api.until(path, lambda job: bool(job["steps"]))
    assert [step["name"] for step in job["steps"]] == ["retraining/retrained/checkpoint"]
    assert api.http.post(f"{path}/cancel").status_code == 200
    done = ended(api, audit)
    assert (done["status"], done["result"]) == ("failed", None)
    assert done["error"]["code"] == "job_cancelled"
    assert not retrained_nets(api, api.http.get(path).json())


def test_unlearning_comes_before_an_audit_that_runs(api: conftest.Api, forgotten: str) -> None:
    """One worker: the audit gives it back at the end of an epoch, and later goes on."""
    long = {"training": {**TRAINING, "epochs": 12}}
    audit = request(api, forgotten, controls=False, **long)
    api.until(audit["links"]["self"], lambda body: body["stage"] == "retraining")
    model = forgotten.split("/")[3]
    sample = {"kind": "sample", "ids": material.train_ids()[100:105]}
    erased = api.ended(api.forget(model, sample, method=conftest.QUICK).json()["id"])
    assert erased["status"] == "completed"
    assert api.http.get(audit["links"]["self"]).json()["status"] in {"queued", "running"}
    done = ended(api, audit)
    assert done["status"] == "completed"
    assert api.http.get(audit["links"]["job"]).json()["attempts"] == 1
    # What was erased meanwhile is in none of its sets any more.
    evidence = done["result"]["evidence"]
    before = api.http.get(f"{forgotten}/report").json()["evidence"]["pools"]
    assert evidence["left_out"] == 5
    assert evidence["pools"] == {**before, "retain": before["retain"] - 5}


def test_an_audit_of_a_version_that_was_revoked_while_it_waited_fails(
    api: conftest.Api, forgotten: str
) -> None:
    model = forgotten.split("/")[3]
    sample = {"kind": "sample", "ids": material.train_ids()[105:110]}
    erased = api.ended(api.forget(model, sample, method=conftest.QUICK).json()["id"])
    assert erased["status"] == "completed"  # the alias moved on
    long = {"training": {**TRAINING, "epochs": 500}}
    running = request(api, forgotten, controls=False, **long)
    waiting = request(api, forgotten, controls=False)
    api.until(running["links"]["self"], lambda body: body["stage"] == "retraining")
    assert api.http.post(f"{forgotten}/revoke", json={"reason": "a test"}).status_code == 200
    assert api.http.post(f"{running['links']['job']}/cancel").status_code == 200
    done = ended(api, waiting)
    assert (done["status"], done["error"]["code"]) == ("failed", "Gone")
