"""What the parts of an audit say together, without a worker."""

from pathlib import Path
from typing import Any

import pytest

from salun_core import controls, errors, specs
from service import plans, tables
from worker import audit_results

NAMES = ("unlearning_accuracy", "retain_accuracy", "test_accuracy", "mia_efficacy")
SPEC = specs.UnlearningSpec()


def crossfitted(surest: float, mean: float) -> specs.Measurement:
    """A figure that stands for one fold, with that of both beside it."""
    return specs.Measurement(value=surest, detail={"mean": mean})


def metrics(surest: float, mean: float) -> dict[str, specs.Measurement]:
    return dict.fromkeys(NAMES, crossfitted(surest, mean))


def rendered(**parts: Any) -> dict[str, Any]:
    values = dict.fromkeys(NAMES, 0.5)
    evidence = {"original": values, "mask": None, "pools": {}}
    version = parts.pop("version", None) or tables.Version(
        number=2, report={"metrics": {}, "evidence": evidence}
    )
    plan = plans.Plan(
        model="digits", dataset="digits", kind="samples", base_version=1, recipes=[],
        forget_ids=["a"], previous_ids=[], withheld_ids=["b", "c"], excluded_labels=[],
        target_digest="",
    )  # fmt: skip
    given: dict[str, Any] = {
        "training": None,
        "reference": {},
        "compared": [],
        "runs": [],
        "ulira": None,
    }
    return audit_results.render(
        version, plan, SPEC, seconds={}, versions={}, run={}, **{**given, **parts}
    )


def test_controls_are_as_far_from_retraining_as_all_samples_say(tmp_path: Path) -> None:
    audit_results.write_metrics(tmp_path / "kept", metrics(0.9, 0.5))
    reference = audit_results.read_metrics(tmp_path / "kept")
    runs = [controls.Run("no_mask", SPEC, 1.0, metrics(0.2, 0.6), 1.0)]
    result = rendered(reference=reference, runs=runs)
    assert result["nets"][-1]["name"] == "no_mask"
    assert result["nets"][-1]["metrics"]["average_gap"]["value"] == pytest.approx(0.1)
    assert result["evidence"]["left_out"] == 2


def test_a_version_is_told_as_its_controls_are_without_retrained_nets() -> None:
    metrics = {"test_accuracy": {"value": 0.2, "detail": {"mean": 0.6}}}
    evidence = {"original": dict.fromkeys(NAMES, 0.5), "mask": None, "pools": {}}
    version = tables.Version(number=2, report={"metrics": metrics, "evidence": evidence})
    found = {net["name"]: net for net in rendered(version=version)["nets"]}
    assert found["version"]["metrics"]["test_accuracy"] == {"value": 0.6, "sd": None}


def test_a_control_that_diverged_is_told_and_counts_in_no_mean() -> None:
    runs = [
        controls.Run("no_mask", SPEC, 1.0, metrics(0.2, 0.6), 1.0),
        controls.Run("no_mask", SPEC.model_copy(update={"seed": 1}), 1.0, {}, 1.0, "loss inf"),
    ]
    result = rendered(runs=runs, reference=metrics(0.2, 0.6))
    found = result["nets"][-1]
    assert (found["runs"], found["diverged"]) == (1, {"1": "loss inf"})
    assert found["metrics"]["test_accuracy"] == {"value": 0.6, "sd": None}
    assert "no_mask with seed 1 diverged: loss inf" in result["warnings"]
    nothing = rendered(runs=runs[1:])["nets"][-1]
    assert (nothing["name"], nothing["runs"], nothing["metrics"]) == ("no_mask", 0, {})


def test_shadow_nets_that_diverge_are_told() -> None:
    def attack() -> dict[str, specs.Measurement]:
        raise errors.NonFiniteLossError("loss inf at step 3")

    ulira = {"pairs": 3, "pairs_reused": 1, **audit_results.attacked(attack)}
    result = rendered(ulira=ulira)
    assert (result["ulira"]["metrics"], result["ulira"]["pairs"]) == ({}, 3)
    assert result["warnings"] == ["a shadow net diverged: loss inf at step 3"]
    assert audit_results.attacked(lambda: metrics(0.1, 0.2))["diverged"] is None
