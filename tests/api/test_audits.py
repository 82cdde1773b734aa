"""Audits over HTTP: who may ask, for what, of which version, and what is answered."""

import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests import conftest, material

BROWSER = "text/html,application/xhtml+xml,*/*;q=0.8"
LONG = {"training": {"epochs": 1000, "learning_rate": 0.01}}  # it is still at work when looked at


@pytest.fixture(scope="module")
def forgotten(api: conftest.Api) -> str:
    """The path of a model whose version 2 lacks ten samples of version 1."""
    model = api.model({"acceptance": conftest.WIDE})
    sample = {"kind": "sample", "ids": material.train_ids()[:10]}
    done = api.ended(api.forget(model, sample, method=conftest.QUICK).json()["id"])
    assert done["result_version"] == 2
    return f"/v1/models/{model}"


def ask(
    http: httpx.Client, version: str, body: dict[str, Any], key: str | None = None
) -> httpx.Response:
    headers = {"Idempotency-Key": key or uuid.uuid4().hex}
    return http.post(f"{version}/audits", json=body, headers=headers)


@pytest.fixture
def asked(api: conftest.Api, forgotten: str) -> Iterator[dict[str, Any]]:
    """An audit under way, cancelled afterwards."""
    answer = ask(api.http, f"{forgotten}/versions/2", LONG)
    assert answer.status_code == 202, answer.text
    yield answer.json()
    api.http.post(f"{answer.json()['links']['job']}/cancel")


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["type"] == f"/problems/{code}"
    return body


def test_an_audit_is_accepted_with_its_options_settled(
    api: conftest.Api, forgotten: str, asked: dict[str, Any]
) -> None:
    assert asked["status"] == "queued"
    assert asked["options"] == {
        "retrained": True,
        "controls": True,
        "densities": [],
        "seeds": [0, 1],
        "shadow_pairs": 0,
        "training": {"epochs": 1000, "learning_rate": 0.01, "batch_size": None},
    }
    path = asked["links"]["self"]
    assert path == f"{forgotten}/versions/2/audits/{asked['id']}"
    answer = api.http.get(path)
    shown = answer.json()
    assert (shown["id"], shown["result"], shown["error"]) == (asked["id"], None, None)
    assert set(shown["progress"]) == {"stage", "step", "total_steps", "fraction", "eta_seconds"}
    held = api.http.get(path, headers={"If-None-Match": "*"})
    assert held.status_code == 304
    assert answer.headers["Vary"] == "Accept"
    listed = api.http.get(f"{forgotten}/versions/2/audits").json()["items"]
    assert listed[0]["id"] == asked["id"]
    assert shown.keys() - listed[0].keys() == {"result"}
    problem(api.http.get(path, headers={"Accept": BROWSER}), 409, "audit-unfinished")
    job = api.http.get(asked["links"]["job"]).json()
    assert job["kind"] == "audit"


def test_a_repeated_call_is_one_audit(api: conftest.Api, forgotten: str) -> None:
    version, key = f"{forgotten}/versions/2", uuid.uuid4().hex
    first, second = (ask(api.http, version, LONG, key) for _ in range(2))
    assert first.json() == second.json()
    assert first.headers["Location"] == second.headers["Location"]
    other = ask(api.http, version, {**LONG, "controls": False}, key)
    problem(other, 422, "idempotency-key-reused")
    problem(api.http.post(f"{version}/audits", json={}), 400, "idempotency-key-required")
    cancelled = api.http.post(f"{first.json()['links']['job']}/cancel")
    assert cancelled.status_code == 200
    done = api.until(first.json()["links"]["self"], lambda body: body["status"] == "failed")
    assert done["error"] == {"code": "job_cancelled"}
    page = api.http.get(done["links"]["self"], headers={"Accept": BROWSER})
    assert "job_cancelled" in problem(page, 409, "audit-failed")["detail"]
    assert done["finished_at"] is not None


def test_an_uploaded_version_has_nothing_to_audit(api: conftest.Api, forgotten: str) -> None:
    problem(ask(api.http, f"{forgotten}/versions/1", {}), 409, "version-not-unlearned")
    problem(ask(api.http, f"{forgotten}/versions/9", {}), 404, "version-not-found")
    problem(ask(api.http, "/v1/models/none/versions/1", {}), 404, "model-not-found")
    unknown = f"{forgotten}/versions/2/audits/{uuid.uuid4()}"
    problem(api.http.get(unknown), 404, "audit-not-found")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"shadow_pairs": 2}, ""),
        ({"shadow_pairs": 10_000}, "/shadow_pairs"),
        ({"retrained": False, "controls": False}, ""),
        ({"densities": [0.1, 2]}, "/densities/1"),
        ({"seeds": list(range(11))}, "/seeds"),
        ({"training": {"epochs": 0}}, "/training/epochs"),
        ({"colour": "red"}, "/colour"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(
    api: conftest.Api, forgotten: str, body: dict[str, Any], pointer: str
) -> None:
    refused = problem(ask(api.http, f"{forgotten}/versions/2", body), 422, "invalid-request")
    assert [item["pointer"] for item in refused["errors"]] == [pointer]


def test_controls_want_a_recipe_with_a_saliency_mask(api: conftest.Api) -> None:
    model = api.model({"acceptance": conftest.WIDE})
    sample = {"kind": "sample", "ids": material.train_ids()[:10]}
    bare = {"method": "finetune", "epochs": 1}
    done = api.ended(api.forget(model, sample, method=bare).json()["id"])
    version = f"/v1/models/{model}/versions/{done['result_version']}"
    for body in ({"controls": True}, {"densities": [0.1]}):
        refused = problem(ask(api.http, version, body), 422, "invalid-audit")
        assert refused["errors"][0]["code"] == "no-saliency-mask"
    problem(ask(api.http, version, {"retrained": False}), 422, "invalid-audit")
    accepted = ask(api.http, version, LONG)
    assert accepted.json()["options"]["controls"] is False
    api.http.post(f"{accepted.json()['links']['job']}/cancel")


def test_asking_takes_the_scope_of_decisions_and_reading_that_of_requests(
    api: conftest.Api, forgotten: str, asked: dict[str, Any]
) -> None:
    version = f"{forgotten}/versions/2"
    with api.with_scopes("requests:submit", "requests:read", "models:write") as other:
        problem(ask(other, version, LONG), 403, "insufficient-scope")
        assert other.get(asked["links"]["self"]).status_code == 200
    with api.with_scopes("models:pull") as other:
        problem(other.get(asked["links"]["self"]), 403, "insufficient-scope")
        problem(other.get(f"{version}/audits"), 403, "insufficient-scope")
    with api.with_scopes("requests:approve") as other:
        accepted = ask(other, version, LONG)
        assert accepted.status_code == 202
    api.http.post(f"{accepted.json()['links']['job']}/cancel")
