"""Requests in a row on one model: what the next version is made from, and what it has forgotten."""

from typing import Any

import pytest

from tests import conftest, material


def lineages(api: conftest.Api, model: str) -> list[dict[str, Any]]:
    listed = api.http.get(f"/v1/models/{model}/versions").json()["items"]
    return [
        api.http.get(f"/v1/models/{model}/versions/{item['version']}/manifest").json()["lineage"]
        for item in sorted(listed, key=lambda item: item["version"])
    ]


def forget(api: conftest.Api, model: str, *targets: dict[str, Any]) -> dict[str, Any]:
    answer = api.forget(model, *targets, method=conftest.QUICK)
    done: dict[str, Any] = api.ended(answer.json()["id"])
    assert done["status"] == "completed", done
    return done


def in_a_row(api: conftest.Api, model: str) -> list[dict[str, Any]]:
    ids = material.train_ids()
    return [
        forget(api, model, {"kind": "sample", "ids": ids[:10]}),
        forget(api, model, {"kind": "class", "label": "zero"}),
        forget(api, model, {"kind": "sample", "ids": ids[10:20]}),
    ]


@pytest.mark.parametrize(
    ("policy", "parents", "lengths"),
    [
        ({}, [None, 1, 1, 1], [0, 1, 1, 1]),
        ({"composition": "chain", "max_chain": 2}, [None, 1, 2, 1], [0, 1, 2, 1]),
    ],
)
def test_versions_are_made_from_the_anchor_or_in_a_short_chain(
    api: conftest.Api, policy: dict[str, Any], parents: list[int | None], lengths: list[int]
) -> None:
    generous = {"acceptance": conftest.WIDE, "budget": {"daily_share": None}, "max_drift": 1.0}
    model = api.model({**generous, **policy})
    done = in_a_row(api, model)
    found = lineages(api, model)
    assert [lineage["parent"] for lineage in found] == parents
    assert [lineage["chain_length"] for lineage in found] == lengths
    assert {lineage["anchor"] for lineage in found} == {1}
    # Whatever its weights come from, a version has every erasure that came before it.
    assert [lineage["forgets"] for lineage in found] == [[], [1], [1, 2], [1, 2, 3]]
    report = api.http.get(f"/v1/forget-requests/{done[-1]['id']}/report").json()
    erased = len({*material.train_ids()[:10], *material.train_ids("zero")})
    assert report["evidence"]["previous_count"] == erased
    assert report["metrics"]["previous_erasures"]["detail"]["n_all"] == erased
    moved = api.http.put(
        f"/v1/models/{model}/aliases/production",
        json={"version": 3},
        headers={
            "If-Match": api.http.get(f"/v1/models/{model}/aliases/production").headers["ETag"]
        },
    )
    assert (moved.status_code, moved.json()["type"]) == (409, "/problems/erasure-regression")


def test_a_model_that_drifted_is_retrained_and_anchored_anew(api: conftest.Api) -> None:
    """No accuracy may be lost at all, so the first loss makes the next job retrain."""
    strict = {"acceptance": conftest.WIDE, "budget": {"daily_share": None}, "max_drift": 0.0}
    model = api.model(strict)
    # Half a class gone by a coarse recipe costs test accuracy.
    harsh = {"method": "gradient_ascent", "learning_rate": 0.05, "epochs": 3}
    ids = material.train_ids()
    answer = api.forget(model, {"kind": "sample", "ids": ids[:60]}, method=harsh)
    assert api.ended(answer.json()["id"])["status"] == "completed"
    assert lineages(api, model)[1]["drift"] > 0.0
    answer = api.forget(model, {"kind": "sample", "ids": ids[60:70]})
    assert api.ended(answer.json()["id"], seconds=240)["status"] == "completed"
    found = lineages(api, model)[2]
    assert (found["composition"], found["anchor"], found["chain_length"]) == ("retrain", 3, 0)
    assert found["forgets"] == [1, 2]
    assert found["drift"] == 0.0


def test_a_job_whose_model_got_another_net_meanwhile_is_planned_anew(api: conftest.Api) -> None:
    """The upload waits for no job, and the job makes its version from what is served then."""
    model = api.model({"acceptance": conftest.WIDE})
    sample = {"kind": "sample", "ids": material.train_ids()[:10]}
    request = api.forget(model, sample, method={**conftest.QUICK, "epochs": 30}).json()["id"]
    path = f"/v1/forget-requests/{request}"
    api.until(path, lambda found: found["stage"] == "unlearning")
    answer = api.version(model, material.config(), material.trained())
    api.until(answer.headers["Location"], lambda found: found["state"] == "published")
    assert api.http.get(path).json()["status"] == "in_progress"
    assert api.ended(request)["result_version"] == 3
    assert lineages(api, model)[2]["parent"] == 2
