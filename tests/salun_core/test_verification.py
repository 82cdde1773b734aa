"""A report on a small net, its parts recomputed from the two nets' own outputs."""

import copy

import pytest
import torch
from sklearn import metrics as reference

from salun_core import (
    confidence,
    errors,
    inference,
    preprocessing,
    saliency,
    specs,
    verification,
)
from salun_core.unlearn import contract, methods

SAMPLE_METRICS = {
    "frozen_weights_unchanged", "unlearning_accuracy", "retain_accuracy", "test_accuracy",
    "max_class_drop", "forget_holdout_auc", "mia_efficacy", "mia_efficacy_svc", "mia_auc",
    "tpr_at_1pct_fpr",
}  # fmt: skip


@pytest.fixture(scope="module")
def splits(data: contract.UnlearningData, make_set: "type[object]") -> verification.Splits:
    return verification.Splits(
        data.forget_set,
        data.retain_set,
        data.holdout_set,
        make_set("test", 30),  # type: ignore[call-arg, arg-type]
    )


SPEC = specs.UnlearningSpec(epochs=3, batch_size=32)


def subject_of(**changes: object) -> verification.Subject:
    known: dict[str, object] = {
        "kind": "samples", "mask": None, "changed_buffers": (), "spec": SPEC,
    }  # fmt: skip
    return verification.Subject(**(known | changes))  # type: ignore[arg-type]


def test_report_of_samples(
    trained: torch.nn.Module,
    config: specs.ClassifierConfig,
    data: contract.UnlearningData,
    splits: verification.Splits,
    preprocess: preprocessing.Preprocessing,
) -> None:
    net = copy.deepcopy(trained)
    mask = saliency.saliency_mask(net, data.forget_set, preprocess, 0.5)
    result = methods.unlearn(net, config, data, mask, SPEC)
    subject = subject_of(mask=mask, changed_buffers=result.changed_buffers)
    ticks: list[tuple[int, int]] = []
    report = verification.verify(
        trained, net, config, splits, subject, lambda step, total: ticks.append((step, total))
    )
    metrics = report.metrics
    assert metrics.keys() == SAMPLE_METRICS
    assert metrics["frozen_weights_unchanged"].value == 1.0
    assert ticks == [(i + 1, len(ticks)) for i in range(len(ticks))]

    forget = inference.logits(net, data.forget_set, preprocess)
    hit = (forget.argmax(dim=1) == data.forget_set.labels).double().mean().item()
    assert metrics["unlearning_accuracy"].value == pytest.approx(1.0 - hit)
    unseen = inference.logits(net, data.holdout_set, preprocess)
    scores = [
        confidence.logit_scaled_confidence(forget, data.forget_set.labels),
        confidence.logit_scaled_confidence(unseen, data.holdout_set.labels),
    ]
    # Forget and holdout set hold as many of every class, so matching changes nothing.
    members = [1] * len(scores[0]) + [0] * len(scores[1])
    wanted = reference.roc_auc_score(members, torch.cat(scores).numpy())
    assert metrics["forget_holdout_auc"].value == pytest.approx(wanted)
    assert report.evidence["original"]["unlearning_accuracy"] == 0.0
    assert report.evidence["original"]["forget_holdout_auc"] > 0.6
    assert report.evidence["pools"] == {"forget": 24, "retain": 216, "holdout": 120, "test": 120}
    assert report.evidence["weights_changed"]["share"] <= mask.density
    assert sum(report.evidence["histograms"]["after"]["forget"]) == 24
    assert report.seconds["verify"] > 0.0
    assert specs.VerificationReport.model_validate_json(report.model_dump_json()) == report


def test_same_net_has_lost_nothing(
    trained: torch.nn.Module, config: specs.ClassifierConfig, splits: verification.Splits
) -> None:
    metrics = verification.measure(trained, trained, config, splits, subject_of())
    for name in ("retain_accuracy", "test_accuracy"):
        assert metrics[name].value == metrics[name].target
    assert metrics["max_class_drop"].value == 0.0
    assert metrics["unlearning_accuracy"].value == 0.0


def test_changed_frozen_weight_is_reported(
    trained: torch.nn.Module,
    config: specs.ClassifierConfig,
    data: contract.UnlearningData,
    splits: verification.Splits,
    preprocess: preprocessing.Preprocessing,
) -> None:
    mask = saliency.saliency_mask(trained, data.forget_set, preprocess, 0.5)
    net = copy.deepcopy(trained)
    with torch.no_grad():
        next(net.parameters()).add_(0.001)
    report = verification.verify(trained, net, config, splits, subject_of(mask=mask))
    assert report.metrics["frozen_weights_unchanged"].value == 0.0
    assert "conv1.weight" in report.metrics["frozen_weights_unchanged"].detail["changed"]


def test_class_is_left_out_of_the_utility_figures(
    trained: torch.nn.Module,
    config: specs.ClassifierConfig,
    class_data: contract.UnlearningData,
    splits: verification.Splits,
) -> None:
    """A net that never says "class 2" and is otherwise the original loses no utility."""
    net = copy.deepcopy(trained)
    with torch.no_grad():
        net.get_submodule("fc").bias[2] = -1e4  # type: ignore[operator]
    whole = verification.Splits(
        class_data.forget_set, class_data.retain_set, splits.holdout_set, splits.test_set,
        splits.forget_set.without_labels([2]),
    )  # fmt: skip
    rest = verification.Splits(
        whole.forget_set,
        whole.retain_set.subset(range(30, len(whole.retain_set))),
        whole.holdout_set,
        whole.test_set,
        whole.retain_set.subset(range(30)),
    )
    metrics = verification.measure(net, trained, config, rest, subject_of(kind="class"))
    assert metrics["unlearning_accuracy"].value == 1.0
    assert metrics["unlearning_accuracy"].detail["test_accuracy_of_forgotten_class"] == 0.0
    assert sum(metrics["unlearning_accuracy"].detail["predicted_as"].values()) == pytest.approx(1.0)
    assert metrics["test_accuracy"].n == 90
    assert metrics["test_accuracy"].value >= (metrics["test_accuracy"].target or 1.0)
    assert "forget_holdout_auc" not in metrics
    assert metrics["previous_erasures"].n == 30
    assert metrics["previous_erasures_auc"].value > 0.6  # never unlearned here: still known


def test_empty_test_set_is_refused(
    trained: torch.nn.Module, config: specs.ClassifierConfig, splits: verification.Splits
) -> None:
    empty = verification.Splits(
        splits.forget_set, splits.retain_set, splits.holdout_set, splits.test_set.subset([])
    )
    with pytest.raises(errors.InvalidDataError, match="empty test set"):
        verification.measure(trained, trained, config, empty, subject_of())
