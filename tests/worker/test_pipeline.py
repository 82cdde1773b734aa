"""What became of each rung of the ladder stands in the report."""

import pytest

from client import reports
from tests import conftest, material


def test_a_recipe_that_diverged_is_told_beside_the_one_that_was_taken(
    api: conftest.Api, capsys: pytest.CaptureFixture[str]
) -> None:
    """A penalty that makes every step ten times as long as the last, then retraining."""
    model = api.model({"acceptance": conftest.WIDE})
    wild = {"epochs": 40, "learning_rate": 10.0, "weight_decay": 1.0, "line_search": False}
    sample = {"kind": "sample", "ids": material.train_ids()[:20]}
    request = api.forget(model, sample, method=wild).json()["id"]
    assert api.ended(request)["status"] == "completed"
    path = f"/v1/forget-requests/{request}/report"
    report = api.http.get(path).json()
    diverged, taken = report["evidence"]["recipes_tried"]
    assert diverged["spec"].items() >= wild.items()
    assert (diverged["spec"]["method"], diverged["passed"]) == ("salun", False)
    assert "expected a finite number" in diverged["diverged"]
    assert (taken["spec"]["method"], taken["passed"]) == ("retrain", True)
    assert report["method"] == taken["spec"]
    assert report["seconds"] == taken["seconds"]

    page = api.http.get(path, headers={"Accept": "text/html"})
    assert page.status_code == 200
    assert "expected a finite number" in page.text
    reports.show(report)
    assert "expected a finite number" in " ".join(capsys.readouterr().out.split())
