"""A request over HTTP, from submission to the pulled version, on a real worker."""

import json
import threading
import time
import uuid
from typing import Any

import httpx
import psycopg
import pytest

from api import waiting
from api.schemas import forget_requests as api_schemas
from tests import conftest, material


@pytest.fixture(scope="module")
def model(api: conftest.Api) -> str:
    return api.model({"acceptance": conftest.WIDE})


def test_a_sample_request_ends_completed_with_a_new_version(api: conftest.Api, model: str) -> None:
    ids = material.train_ids()[:20]
    answer = api.forget(model, {"kind": "sample", "ids": ids}, method=conftest.QUICK)
    assert answer.status_code == 202
    assert answer.headers["Location"] == f"/v1/forget-requests/{answer.json()['id']}"
    assert int(answer.headers["Retry-After"]) >= 1
    assert answer.json()["targets_summary"]["matched"] == 20

    done = api.ended(answer.json()["id"])
    assert (done["status"], done["stage"], done["reason"]) == ("completed", "done", None)
    assert api.http.get(f"/v1/models/{model}").json()["aliases"] == {
        "production": done["result_version"]
    }

    report = api.http.get(f"{answer.headers['Location']}/report").json()
    assert report["verdict"]["passed"] is True
    assert report["metrics"]["frozen_weights_unchanged"]["value"] == 1.0
    assert set(report["seconds"]) == {"mask", "unlearn", "verify"}
    assert report["evidence"]["forget_count"] == 20

    again = api.forget(model, {"kind": "sample", "ids": ids[:5]}).json()
    assert (again["status"], again["result_version"]) == ("completed", done["result_version"])
    assert again["targets_summary"]["already_erased"] == 5


def test_a_job_tells_its_stages_steps_and_artifacts(api: conftest.Api, model: str) -> None:
    sample = {"kind": "sample", "ids": material.train_ids()[30:40]}
    done = api.ended(api.forget(model, sample, method=conftest.QUICK).json()["id"])
    job = api.http.get(done["links"]["job"]).json()
    assert job["status"] == "succeeded"
    names = [step["name"] for step in job["steps"]]
    assert [name for name in names if "/" not in name] == [
        "computing_saliency",
        "unlearning",
        "verifying",
    ]
    assert all(len(step["artifact_digest"]) == 64 for step in job["steps"])
    assert job["attempts"] == 1


def test_subject_and_whole_class_are_resolved_by_the_ledger(api: conftest.Api, model: str) -> None:
    named = [row for row in material.rows() if row["subject_id"] == "person-20"]
    trained_on = [row for row in named if row["split"] == "train"]
    body = {"model": model, "targets": [{"kind": "subject", "subject_id": "person-20"}]}
    preview = api.http.post("/v1/forget-requests:validate", json=body).json()
    assert preview["targets_summary"]["matched"] == len(trained_on) > 0
    assert preview["jobs"] == ["samples"]

    # Every sample of a class, named one by one, is a class: it is judged as one.
    ids = material.train_ids("zero")
    body = {"model": model, "targets": [{"kind": "sample", "ids": ids}]}
    assert api.http.post("/v1/forget-requests:validate", json=body).json()["jobs"] == ["class"]

    # All but one are not, even where the count reaches what was left before.
    body = {"model": model, "targets": [{"kind": "sample", "ids": ids[:-1]}]}
    assert api.http.post("/v1/forget-requests:validate", json=body).json()["jobs"] == ["samples"]


def test_validate_changes_nothing(api: conftest.Api, model: str) -> None:
    before = api.http.get("/v1/forget-requests", params={"model": model}).json()
    ids = [material.train_ids()[50], "no-such-image"]
    body = {"model": model, "targets": [{"kind": "sample", "ids": ids}]}
    preview = api.http.post("/v1/forget-requests:validate", json=body).json()
    assert preview["targets_summary"] == {
        "matched": 1,
        "already_erased": 0,
        "pending": 0,
        "unknown": 1,
    }
    assert preview["unknown_targets"][0]["pointer"] == "/targets/0/ids/1"
    assert 0 < preview["share"] < 0.01
    assert api.http.get("/v1/forget-requests", params={"model": model}).json() == before


def test_unknown_ids_beside_known_ones_are_counted_and_never_loaded(
    api: conftest.Api, model: str
) -> None:
    held_out = next(row["sample_id"] for row in material.rows() if row["split"] == "holdout")
    ids = [material.train_ids()[60], "no-such-image", held_out]
    answer = api.forget(model, {"kind": "sample", "ids": ids}, method=conftest.QUICK).json()
    assert answer["targets_summary"]["matched"] == 1
    assert answer["targets_summary"]["unknown"] == 2
    done = api.ended(answer["id"])
    report = api.http.get(f"/v1/forget-requests/{done['id']}/report").json()
    assert report["evidence"]["forget_count"] == 1


def test_the_same_key_and_body_replay_the_first_answer(api: conftest.Api, model: str) -> None:
    sample = {"kind": "sample", "ids": material.train_ids()[70:72]}
    key = uuid.uuid4().hex
    first = api.forget(model, sample, key=key, method=conftest.QUICK)
    second = api.forget(model, sample, key=key, method=conftest.QUICK)
    assert (second.status_code, second.json()) == (202, first.json())
    assert second.headers["Location"] == first.headers["Location"]
    other = api.forget(model, {"kind": "sample", "ids": material.train_ids()[72:73]}, key=key)
    assert other.status_code == 422
    assert other.json()["type"] == "/problems/idempotency-key-reused"
    api.ended(first.json()["id"])


def test_sixteen_calls_at_once_with_one_key_make_one_request(api: conftest.Api, model: str) -> None:
    sample = {"kind": "sample", "ids": material.train_ids()[80:82]}
    key, answers = uuid.uuid4().hex, []
    threads = [
        threading.Thread(
            target=lambda: answers.append(
                api.forget(model, sample, key=key, method=conftest.QUICK).json()["id"]
            )
        )
        for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 16
    assert len(set(answers)) == 1
    api.ended(answers[0])


def test_one_subject_request_id_is_one_request(api: conftest.Api, model: str) -> None:
    sample = {"kind": "sample", "ids": material.train_ids()[90:92]}
    more: dict[str, Any] = {"subject_request_id": str(uuid.uuid4()), "method": conftest.QUICK}
    first = api.forget(model, sample, **more)
    assert api.forget(model, sample, **more).json()["id"] == first.json()["id"]
    other = {"kind": "sample", "ids": material.train_ids()[92:93]}
    conflict = api.forget(model, other, **more)
    assert conflict.status_code == 409
    assert conflict.json()["type"] == "/problems/subject-request-conflict"
    api.ended(first.json()["id"])


def test_polling_honours_etag_and_prefer_wait(api: conftest.Api, model: str) -> None:
    sample = {"kind": "sample", "ids": material.train_ids()[100:102]}
    done = api.ended(api.forget(model, sample, method=conftest.QUICK).json()["id"])
    path = f"/v1/forget-requests/{done['id']}"
    etag = api.http.get(path).headers["ETag"]
    assert api.http.get(path, headers={"If-None-Match": etag}).status_code == 304
    began = time.monotonic()
    held = api.http.get(path, headers={"If-None-Match": etag, "Prefer": "wait=1"})
    assert held.status_code == 304
    assert held.headers["Preference-Applied"] == "wait=1"
    assert time.monotonic() - began >= 1


def test_events_stream_in_order_and_resume(api: conftest.Api, model: str) -> None:
    sample = {"kind": "sample", "ids": material.train_ids()[110:112]}
    request_id = api.forget(model, sample, method=conftest.QUICK).json()["id"]
    events = _events(api.http, request_id)
    kinds = [event["event"] for event in events]
    assert kinds[0] == "received"
    assert kinds[-1] == "completed" or "completed" in kinds
    stages = [json.loads(event["data"])["stage"] for event in events if event["event"] == "stage"]
    assert stages == ["computing_saliency", "unlearning", "verifying", "publishing"]
    assert any(kind == "progress" for kind in kinds)
    stored = [event for event in events if "id" in event]
    resumed = _events(api.http, request_id, stored[2]["id"])
    assert [event["id"] for event in resumed if "id" in event] == [
        event["id"] for event in stored[3:]
    ]


def test_an_event_that_is_committed_late_is_sent_too(api: conftest.Api) -> None:
    """Of two transactions the one that drew its number first commits last."""
    model = api.model({"acceptance": conftest.WIDE, "batch_window_seconds": 3600})
    sample = {"kind": "sample", "ids": material.train_ids()[:1]}
    request_id = api.forget(model, sample).json()["id"]
    insert = "INSERT INTO event (subject_id, type, data) VALUES (%s, %s, '{}')"
    url = api.running.database_url
    with (
        psycopg.connect(url) as first,
        psycopg.connect(url, autocommit=True) as second,
        api.http.stream("GET", f"/v1/forget-requests/{request_id}/events") as stream,
    ):
        first.execute(insert, (request_id, "first"))
        second.execute(insert, (request_id, "second"))
        kinds = (line[7:] for line in stream.iter_lines() if line.startswith("event: "))
        seen = []
        for kind in kinds:
            seen.append(kind)
            if kind == "second":
                first.commit()
            if kind == "first":
                break
    assert seen[-2:] == ["second", "first"]
    assert seen.count("second") == 1


def test_listing_pages_through_everything_once(api: conftest.Api, model: str) -> None:
    seen: list[str] = []
    cursor: str | None = None
    while True:
        params = {"model": model, "limit": "2", **({"cursor": cursor} if cursor else {})}
        page = api.http.get("/v1/forget-requests", params=params).json()
        seen += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    whole = api.http.get("/v1/forget-requests", params={"model": model}).json()["items"]
    assert seen == [item["id"] for item in whole] == sorted(seen)
    completed = api.http.get(
        "/v1/forget-requests", params={"model": model, "status": "denied"}
    ).json()
    assert completed["items"] == []


def test_ndjson_takes_one_id_a_line(api: conftest.Api, model: str) -> None:
    ids = material.train_ids()[120:160]
    envelope = json.dumps({"model": model, "targets": [], "method": conftest.QUICK})
    lines = [envelope, json.dumps(ids[0]), *ids[1:]]
    answer = api.http.post(
        "/v1/forget-requests",
        content="\n".join(lines),
        headers={"Content-Type": "application/x-ndjson", "Idempotency-Key": uuid.uuid4().hex},
    )
    assert answer.status_code == 202, answer.text
    assert answer.json()["targets_summary"]["matched"] == 40
    api.ended(answer.json()["id"])


def test_an_open_batch_can_be_left_until_it_is_sealed(api: conftest.Api) -> None:
    model = api.model({"acceptance": conftest.WIDE, "batch_window_seconds": 3600})
    first, second, third = (
        api.forget(model, {"kind": "sample", "ids": [sample_id]}, method=conftest.QUICK).json()
        for sample_id in material.train_ids()[:3]
    )
    assert first["batch_id"] == second["batch_id"] == third["batch_id"]
    assert (first["stage"], first["job_id"]) == ("queued", None)
    gone = api.http.delete(f"/v1/forget-requests/{first['id']}")
    assert (gone.status_code, gone.json()["status"]) == (202, "cancelled")
    assert api.http.get(f"/v1/batches/{second['batch_id']}").json()["samples"] == 2

    flushed = api.http.post(f"/v1/models/{model}/batches:flush")
    assert flushed.status_code == 202
    assert [item["id"] for item in flushed.json()["items"]] == [second["batch_id"]]
    late = api.http.delete(f"/v1/forget-requests/{second['id']}")
    assert (late.status_code, late.json()["type"]) == (409, "/problems/batch-sealed")
    done = [api.ended(item["id"]) for item in (second, third)]
    assert {item["status"] for item in done} == {"completed"}
    assert done[0]["result_version"] == done[1]["result_version"] == 2


def _is_told_of_and_not_served(api: conftest.Api, model: str, version: dict[str, Any]) -> None:
    """What failed still knows what it should have forgotten: nobody pulls it by its number."""
    weights = next(f["digest"] for f in version["files"] if f["path"] == "model.safetensors")
    sha = version["manifest_digest"][:40]
    with api.with_scopes("models:pull") as puller:
        assert puller.get(f"/v1/models/{model}/versions/2").status_code == 200
        for path in (
            f"/v1/models/{model}/versions/2/manifest",
            f"/v1/blobs/sha256/{weights}",
            f"/api/models/{model}/revision/2",
            f"/api/models/{model}/tree/{sha}",
            f"/{model}/resolve/2/model.safetensors",
        ):
            assert puller.get(path).status_code == 404, path
        answer = puller.head(f"/{model}/resolve/2/model.safetensors")
        assert answer.headers["X-Error-Code"] == "RevisionNotFound"


def test_a_failed_gate_keeps_the_version_staged_and_says_why(api: conftest.Api) -> None:
    """Steps too small to forget anything: the default gates must refuse the result."""
    model = api.model()
    idle = {**conftest.QUICK, "method": "salun", "learning_rate": 1e-7}
    answer = api.forget(model, {"kind": "class", "label": "zero"}, method=idle).json()
    ended = api.ended(answer["id"])
    job = api.http.get(f"/v1/jobs/{ended['job_id']}").json()
    assert ended["reason"] == "verification_failed", job["error"]
    assert ended["status"] == "action_required"
    assert api.http.get(f"/v1/models/{model}").json()["aliases"] == {"production": 1}
    version = api.http.get(f"/v1/models/{model}/versions/2").json()
    assert version["state"] == "staged"
    _is_told_of_and_not_served(api, model, version)
    report = api.http.get(f"/v1/forget-requests/{answer['id']}/report").json()
    assert report["verdict"]["passed"] is False
    assert report["verdict"]["failures"]
    moved = api.http.put(
        f"/v1/models/{model}/aliases/production", json={"version": 2}, headers={"If-Match": "*"}
    )
    assert (moved.status_code, moved.json()["type"]) == (409, "/problems/version-not-servable")

    etag = api.http.get(f"/v1/forget-requests/{answer['id']}").headers["ETag"]
    path = f"/v1/forget-requests/{answer['id']}"
    body = {"reason": "not a lawful demand"}
    assert api.http.post(f"{path}/deny", json=body).status_code == 428
    stale = api.http.post(f"{path}/deny", json=body, headers={"If-Match": '"old"'})
    assert stale.status_code == 412
    denied = api.http.post(f"{path}/deny", json=body, headers={"If-Match": etag})
    assert (denied.status_code, denied.json()["status"]) == (200, "denied")


def test_the_next_recipe_is_tried_when_the_first_fails(api: conftest.Api) -> None:
    """Steps too small to forget anything, then retraining, which forgets by construction."""
    erased = {"tolerance": 0.01, "side": "not_below", "target": 1.0, "use_standard_error": False}
    gates = {"samples": {}, "whole_class": {"unlearning_accuracy": erased}, "previous": {}}
    model = api.model({"acceptance": gates})
    idle = {**conftest.QUICK, "learning_rate": 1e-7}
    ended = api.ended(
        api.forget(model, {"kind": "class", "label": "zero"}, method=idle).json()["id"]
    )
    assert ended["status"] == "completed"
    report = api.http.get(f"/v1/forget-requests/{ended['id']}/report").json()
    tried = report["evidence"]["recipes_tried"]
    assert [one["spec"]["method"] for one in tried] == ["salun", "retrain"]
    assert [one["passed"] for one in tried] == [False, True]
    assert "unlearning_accuracy" in tried[0]["failures"][0]
    assert report["method"]["method"] == "retrain"
    steps = [step["name"] for step in api.http.get(f"/v1/jobs/{ended['job_id']}").json()["steps"]]
    assert {"unlearning", "unlearning/1", "verifying/1"} <= set(steps)


def test_a_report_says_by_how_much_the_budget_cut_pinned_epochs(api: conftest.Api) -> None:
    model = api.model({"acceptance": conftest.WIDE, "max_job_steps": 1})
    sample = {"kind": "sample", "ids": material.train_ids()[:20]}
    asked = api.forget(model, sample, method={**conftest.QUICK, "epochs": 3}).json()
    assert api.ended(asked["id"])["status"] == "completed"
    report = api.http.get(f"/v1/forget-requests/{asked['id']}/report").json()
    assert report["evidence"]["shortened"] == {"epochs": 1, "epochs_wanted": 3}
    assert report["method"]["epochs"] == 1
    assert report["evidence"]["method"]["learning_rate"] <= report["method"]["learning_rate"]


def test_a_cancelled_job_leaves_the_duty(api: conftest.Api) -> None:
    model = api.model({"acceptance": conftest.WIDE})
    long = {"epochs": 500, "line_search": False}
    sample = {"kind": "sample", "ids": material.train_ids()[:20]}
    request_id = api.forget(model, sample, method=long).json()["id"]
    running = api.until(
        f"/v1/forget-requests/{request_id}",
        lambda body: body["stage"] == "unlearning" and body["progress"]["step"] > 0,
    )
    assert running["progress"]["total_steps"] > running["progress"]["step"]
    assert running["progress"]["eta_seconds"] > 0
    assert api.http.post(f"/v1/jobs/{running['job_id']}/cancel").status_code == 200
    ended = api.ended(request_id)
    assert (ended["status"], ended["reason"]) == ("action_required", "job_cancelled")
    assert api.http.get(f"/v1/jobs/{running['job_id']}").json()["status"] == "cancelled"
    again = api.http.post(f"/v1/jobs/{running['job_id']}/cancel")
    assert (again.status_code, again.json()["type"]) == (409, "/problems/job-finished")
    assert api.http.get(f"/v1/models/{model}").json()["aliases"] == {"production": 1}


def _events(
    http: httpx.Client, request_id: str, last_event_id: str | None = None
) -> list[dict[str, str]]:
    headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
    path = f"/v1/forget-requests/{request_id}/events"
    events: list[dict[str, str]] = []
    current: dict[str, str] = {}
    with http.stream("GET", path, headers=headers) as response:
        assert response.headers["Content-Type"].startswith("text/event-stream")
        for line in response.iter_lines():
            if not line:
                if "event" in current:
                    events.append(current)
                current = {}
            elif not line.startswith(":"):
                name, _, value = line.partition(": ")
                current[name] = value
    return events


def test_a_decision_holds_while_a_job_moves_on(api: conftest.Api) -> None:
    """The ETag tells progress too; whoever decides has not seen anything else change."""
    shown = api_schemas.ForgetRequestOut.model_validate(
        api.http.get("/v1/forget-requests").json()["items"][0]
    )
    moving = frozenset({"progress", "expected_completion_at"})
    seen = waiting.represent(shown, moving=moving)
    step = api_schemas.Progress(
        stage="unlearning", step=3, total_steps=9, fraction=0.3, eta_seconds=5
    )
    later = waiting.represent(shown.model_copy(update={"progress": step}), moving=moving)
    assert later.etag != seen.etag
    assert waiting.names(seen.etag, later)
    assert waiting.names("*", later)
    assert waiting.names(f'"other", {seen.etag}', later)
    assert not waiting.names('"other"', later)
    other = waiting.represent(shown.model_copy(update={"status": "denied"}), moving=moving)
    assert not waiting.names(seen.etag, other)


def test_the_newest_can_be_listed_first(api: conftest.Api) -> None:
    oldest = api.http.get("/v1/forget-requests?limit=500").json()["items"]
    page = api.http.get("/v1/forget-requests?order=newest&limit=1").json()
    assert page["items"][0]["id"] == oldest[-1]["id"]
    follows = {"order": "newest", "limit": 1, "cursor": page["next_cursor"]}
    second = api.http.get("/v1/forget-requests", params=follows).json()["items"]
    assert second[0]["id"] == oldest[-2]["id"]
    assert api.http.get("/v1/forget-requests?order=odd").status_code == 422


def test_who_approves_sees_what_there_is_to_approve(api: conftest.Api) -> None:
    model = api.model({"budget": {"daily_share": 0.001}})
    held = api.forget(model, {"kind": "sample", "ids": material.train_ids()[:20]}).json()
    assert held["stage"] == "awaiting_approval"
    assert held["targets_summary"]["matched"] == 20
    with api.with_scopes("requests:approve") as other:
        path = f"/v1/forget-requests/{held['id']}"
        etag = other.get(path).headers["ETag"]
        assert held["id"] in {
            one["id"] for one in other.get("/v1/forget-requests?order=newest").json()["items"]
        }
        denied = other.post(f"{path}/deny", json={"reason": "r"}, headers={"If-Match": etag})
        assert denied.json()["status"] == "denied"


def test_a_dry_run_refuses_what_would_be_refused(api: conftest.Api) -> None:
    model = api.model()
    body = {"model": model, "targets": [{"kind": "sample", "ids": material.train_ids()}]}
    answer = api.http.post("/v1/forget-requests:validate", json=body)
    assert answer.status_code == 422
    assert answer.json()["type"] == "/problems/forget-budget-exceeded"
