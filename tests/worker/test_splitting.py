"""One bad request in a batch: the others are served, and it alone needs a person."""

from typing import Any

from tests import conftest, material

# Without nearly all of a class a retrained net misses that class: a tenth of the test set.
GATES = {
    **conftest.WIDE,
    "samples": {"test_accuracy": {"tolerance": 0.05, "side": "not_below"}},
}
RETRAIN = {"method": "retrain", "epochs": 12, "learning_rate": 0.1}


def submit(api: conftest.Api, model: str, ids: list[str]) -> dict[str, Any]:
    answer = api.forget(model, {"kind": "sample", "ids": ids}, method=RETRAIN)
    assert answer.status_code == 202, answer.text
    body: dict[str, Any] = answer.json()
    return body


def test_a_poison_request_is_found_and_the_rest_of_its_batch_is_served(api: conftest.Api) -> None:
    model = api.model({"acceptance": GATES, "batch_window_seconds": 3600})
    others = [name for name in material.train_ids() if name not in material.train_ids("zero")]
    good = [submit(api, model, others[10 * index : 10 * index + 10]) for index in range(3)]
    poison = submit(api, model, material.train_ids("zero")[2:])
    assert {one["batch_id"] for one in good} == {poison["batch_id"]}
    api.http.post(f"/v1/models/{model}/batches:flush")

    for one in good:
        done = api.ended(one["id"], seconds=240)
        report = api.http.get(f"/v1/forget-requests/{one['id']}/report").json()
        assert done["status"] == "completed", report["verdict"]
    ended = api.ended(poison["id"], seconds=240)
    assert (ended["status"], ended["reason"]) == ("action_required", "verification_failed")
    assert api.http.get(f"/v1/batches/{poison['batch_id']}").json()["state"] == "split"
    alone = api.http.get(f"/v1/batches/{ended['batch_id']}").json()
    assert (alone["state"], alone["requests"]) == ("blocked", 1)
    served = api.http.get(f"/v1/models/{model}").json()["aliases"]["production"]
    assert served == max(api.ended(one["id"])["result_version"] for one in good)


def test_samples_that_together_are_a_class_are_forgotten_as_one_and_the_rest_by_itself(
    api: conftest.Api,
) -> None:
    """Nobody names the class: two demands that wait together leave nothing of it."""
    policy = {"acceptance": conftest.WIDE, "batch_window_seconds": 3600}
    model = api.model({**policy, "budget": {"daily_share": None}})
    sevens, zeros = material.train_ids("seven"), material.train_ids("zero")[:5]
    named = [[*sevens[::2], *zeros], sevens[1::2]]
    submitted = [
        api.forget(model, {"kind": "sample", "ids": ids}, method=conftest.QUICK).json()
        for ids in named
    ]
    api.http.post(f"/v1/models/{model}/batches:flush")

    mixed, other = (api.ended(one["id"], seconds=240) for one in submitted)
    assert (mixed["status"], other["status"]) == ("completed", "completed")
    reports = [
        api.http.get(f"/v1/models/{model}/versions/{number}/report").json()
        for number in range(2, api.http.get(f"/v1/models/{model}").json()["versions"] + 1)
    ]
    forgotten = {"class": 0, "samples": 0}
    for report in reports:
        forgotten[report["kind"]] += report["evidence"]["forget_count"]
        if report["kind"] == "class":
            assert "predicted_as" in report["metrics"]["unlearning_accuracy"]["detail"]
    assert forgotten == {"class": len(sevens), "samples": len(zeros)}
    results = {mixed["result_version"], other["result_version"]}
    assert max(results) == len(reports) + 1
    served = api.http.get(f"/v1/models/{model}").json()["aliases"]["production"]
    assert served == len(reports) + 1


def test_a_person_lets_it_be_tried_by_another_recipe(api: conftest.Api) -> None:
    """Who names the same waits for the decision too; the recipe that failed is not run again."""
    model = api.model({"acceptance": GATES})
    target = {"kind": "sample", "ids": material.train_ids()[:20]}
    wrecking = {"method": "gradient_ascent", "epochs": 10, "learning_rate": 0.01}
    failed = api.ended(api.forget(model, target, method=wrecking).json()["id"])
    assert failed["status"] == "action_required"
    path = f"/v1/forget-requests/{failed['id']}"
    other = api.forget(model, target).json()
    assert other["status"] == "action_required"

    def approve(**body: Any) -> Any:
        match = {"If-Match": api.http.get(path).headers["ETag"]}
        return api.http.post(f"{path}/approve", json={"reason": "r", **body}, headers=match)

    refused = approve(method={"density": 7})
    assert (refused.status_code, refused.json()["type"]) == (422, "/problems/invalid-method")
    assert approve(method=RETRAIN).status_code == 200
    done = api.ended(failed["id"], seconds=240)
    report = api.http.get(f"{path}/report").json()
    assert done["status"] == "completed", report["verdict"]
    assert report["method"]["method"] == "retrain"
    assert api.http.get(f"/v1/batches/{done['batch_id']}").json()["method"] == RETRAIN
    assert api.ended(other["id"])["status"] == "completed"
