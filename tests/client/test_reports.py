"""A report in the terminal, from JSON alone."""

from typing import Any

import pytest

from client import reports


@pytest.mark.parametrize(
    ("gate", "told"),
    [
        ({"value": 0.46, "target": 0.5, "allowed": 0.1159}, True),
        ({"value": 0.46, "target": 0.5, "allowed": None}, False),
        (None, False),
    ],
)
def test_the_leak_that_would_pass_is_told(
    gate: dict[str, Any] | None, told: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = {} if gate is None else {"forget_holdout_auc": gate}
    reports.show({"metrics": metrics, "evidence": {"unseen": {"pool": "test", "n": 9}}})
    shown = capsys.readouterr().out
    assert ("a leak within an AUC of 0.5 ± 0.12 passes" in shown) == told
    assert "pool test" in shown


def test_what_was_measured_and_what_not_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    claim = "Measured: one thing. Not measured: [another]."
    reports.show({"metrics": {}, "evidence": {"claim": claim}})
    shown = " ".join(capsys.readouterr().out.split())
    assert shown.count(claim) == 1
    assert "claim" not in shown


def test_the_learning_rate_in_force_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    method = {"learning_rate": 0.02, "rate_probe": {"learning_rate": 0.02, "tried": []}}
    reports.show({"metrics": {}, "evidence": {"method": method}})
    assert "learning_rate 0.02" in capsys.readouterr().out
