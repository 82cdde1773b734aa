"""Gates of generators: chosen by family and kind, with their sampling error."""

from collections.abc import Mapping
from typing import Any

import pytest

from salun_core import specs
from service import acceptance

POLICY = acceptance.AcceptancePolicy()
GOOD = {
    "frozen_weights_unchanged": specs.Measurement(value=1.0),
    "unlearning_accuracy": specs.Measurement(value=0.99, target=1.0, standard_error=0.0),
    "recognised_before": specs.Measurement(value=0.9, target=1.0, standard_error=0.0),
    "retain_accuracy": specs.Measurement(value=0.97, target=0.98, standard_error=0.0),
    "max_group_drop": specs.Measurement(value=0.04, target=0.0, standard_error=0.0),
    "paraphrase_recall": specs.Measurement(value=0.01, target=0.0, standard_error=0.0),
    "composition_shift": specs.Measurement(value=-0.2, target=0.0, standard_error=0.0),
    "adversarial_recall": specs.Measurement(value=0.4, target=0.0, standard_error=0.0),
    "unconditional_recall": specs.Measurement(value=0.1, standard_error=0.0),
}


def report(
    changed: Mapping[str, specs.Measurement | None],
    kind: specs.ForgetKind = "concept",
    family: specs.Family = "text_to_image",
    **evidence: Any,
) -> specs.VerificationReport:
    metrics = {name: found for name, found in {**GOOD, **changed}.items() if found is not None}
    return specs.VerificationReport(
        kind=kind, family=family, metrics=metrics, evidence=evidence, seconds={}
    )


def measured(value: float, target: float = 0.0, error: float = 0.0) -> specs.Measurement:
    return specs.Measurement(value=value, target=target, standard_error=error)


def test_what_nobody_recognises_and_hurts_nothing_passes() -> None:
    verdict = acceptance.judge(report({}), POLICY)
    assert verdict.passed, verdict.failures
    assert verdict.metrics["adversarial_recall"].passed is None
    assert verdict.metrics["composition_shift"].passed  # better than before is no fault


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("frozen_weights_unchanged", measured(0.0, 1.0)),
        ("unlearning_accuracy", measured(0.97, 1.0)),
        ("recognised_before", measured(0.45, 1.0, error=0.1)),
        ("retain_accuracy", measured(0.95, 0.98)),
        ("max_group_drop", measured(0.06)),
        ("paraphrase_recall", measured(0.03)),
        ("composition_shift", measured(0.04)),
        ("previous_erasures", measured(0.97, 1.0)),
    ],
)
def test_every_gate_refuses(name: str, value: specs.Measurement) -> None:
    verdict = acceptance.judge(report({name: value}), POLICY)
    assert [failure.split(":")[0] for failure in verdict.failures] == [name]


def test_a_blind_judge_is_told_and_no_other_recipe_is_tried() -> None:
    blind = acceptance.judge(report({"recognised_before": measured(0.2, 1.0)}), POLICY)
    assert acceptance.is_blind(blind)
    (failure,) = blind.failures
    assert "does not recognise what shall be forgotten" in failure
    assert "upload a judge" in failure
    lost = acceptance.judge(report({"retain_accuracy": measured(0.5, 0.98)}), POLICY)
    assert not lost.passed
    assert not acceptance.is_blind(lost)


def test_a_gate_allows_for_its_sampling_error() -> None:
    """.03 is within .02 + 1.64 · .01, not within .02 + 1.64 · .005."""
    assert acceptance.judge(
        report({"paraphrase_recall": measured(0.03, error=0.01)}), POLICY
    ).passed
    found = report({"paraphrase_recall": measured(0.03, error=0.005)})
    assert not acceptance.judge(found, POLICY).passed


def test_what_cannot_be_asked_is_excused_only_with_a_reason() -> None:
    missing = dict.fromkeys(["paraphrase_recall", "composition_shift"])
    assert not acceptance.judge(report(missing), POLICY).passed
    excused = report(
        missing, "class", "class_conditional_diffusion",
        not_measured=dict.fromkeys(missing, "not asked in words"),
    )  # fmt: skip
    assert acceptance.judge(excused, POLICY).passed


def test_what_was_erased_before_must_be_measured() -> None:
    verdict = acceptance.judge(report({}, pools={"previous": 1}), POLICY)
    assert verdict.failures == ("previous_erasures: got nothing, expected a measurement",)


@pytest.mark.parametrize(("auc", "passes"), [(0.54, True), (0.44, False), (0.56, False)])
def test_samples_must_look_like_unseen_ones(auc: float, *, passes: bool) -> None:
    found = report(
        {"unlearning_accuracy": None, "forget_holdout_auc": measured(auc, 0.5)}, "samples"
    )
    assert acceptance.judge(found, POLICY).passed is passes


def test_a_strict_policy_gates_the_attack() -> None:
    assert not acceptance.judge(report({}), acceptance.STRICT).passed
    found = report({"adversarial_recall": measured(0.01)})
    assert acceptance.judge(found, acceptance.STRICT).passed
