"""A report on a small net, its parts recomputed from the two nets' own outputs."""

import copy
import dataclasses
import math

import pytest
import torch
from sklearn import metrics as reference

from salun_core import (
    confidence,
    errors,
    inference,
    preprocessing,
    recovery,
    saliency,
    specs,
    traces,
    verification,
)
from salun_core.unlearn import contract, methods

SAMPLE_METRICS = {
    "frozen_weights_unchanged", "unlearning_accuracy", "retain_accuracy", "test_accuracy",
    "max_class_drop", "forget_holdout_auc", "mia_efficacy", "mia_efficacy_svc",
    "mia_efficacy_threshold", "mia_auc", "tpr_at_1pct_fpr", "relearn_delay", "resurfacing",
}  # fmt: skip
CLASS_METRICS = {
    "frozen_weights_unchanged", "unlearning_accuracy", "retain_accuracy", "test_accuracy",
    "max_class_drop", "mia_efficacy", "mia_efficacy_svc", "mia_efficacy_threshold",
    "relearn_delay", "resurfacing", "head_bias_shortcut",
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


@pytest.fixture(scope="module")
def class_splits(
    class_data: contract.UnlearningData, splits: verification.Splits
) -> verification.Splits:
    return verification.Splits(
        class_data.forget_set, class_data.retain_set, splits.holdout_set, splits.test_set
    )


@pytest.fixture(scope="module")
def without_class(
    trained: torch.nn.Module, config: specs.ClassifierConfig, class_data: contract.UnlearningData
) -> torch.nn.Module:
    """Retrained: the forgotten class was never there."""
    net = copy.deepcopy(trained)
    spec = specs.UnlearningSpec(
        method="retrain", mask="none", epochs=12, batch_size=32, learning_rate=0.05, seed=3
    )
    methods.unlearn(net, config, class_data, None, spec)
    return net


def class_cut(net: torch.nn.Module) -> torch.nn.Module:
    """A copy that only lost its bias for class 2."""
    cut = copy.deepcopy(net)
    with torch.no_grad():
        cut.get_parameter("fc.bias")[2] -= 10.0
    return cut


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
    tensors = net.state_dict()
    free = mask.salient_count + sum(tensors[name].numel() for name in result.changed_buffers)
    whole = sum(tensor.numel() for tensor in tensors.values())
    assert metrics["frozen_weights_unchanged"].n == whole - free
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
    assert report.evidence["not_measured"] == {}
    assert report.evidence["original"]["unlearning_accuracy"] == 0.0
    assert report.evidence["original"]["relearn_delay"] == 0.0
    assert "resurfacing" not in report.evidence["original"]  # the original is not trained further
    assert report.evidence["original"]["forget_holdout_auc"] > 0.6
    assert report.evidence["pools"] == {"forget": 24, "retain": 216, "holdout": 120, "test": 120}
    assert report.evidence["threads"] == torch.get_num_threads()
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


@pytest.mark.parametrize("cross_fitted", [False, True])
def test_what_was_erased_is_measured_of_any_net_as_of_an_unlearned_one(
    trained: torch.nn.Module,
    config: specs.ClassifierConfig,
    splits: verification.Splits,
    *,
    cross_fitted: bool,
) -> None:
    """Without what was there before it: an uploaded net has none. Class 2 was erased as a whole."""
    net = copy.deepcopy(trained)
    with torch.no_grad():
        net.get_submodule("fc").bias[2] -= 1.0  # type: ignore[operator, index]
    erased = splits.retain_set.subset(range(60))
    whole = dataclasses.replace(
        splits,
        retain_set=splits.retain_set.subset(range(60, len(splits.retain_set))),
        previous_set=erased,
        previous_groups=torch.arange(60) // 30,
        cross_fitted=cross_fitted,
    )
    gone = (2,)
    never_saw = specs.default_spec("samples", method="retrain")
    subject = dataclasses.replace(subject_of(), excluded_labels=gone, spec=never_saw)
    beside = verification.measure(net, trained, config, whole, subject)
    alone = verification.measure_erased(net, config, whole, gone)
    assert alone.keys() == {"previous_erasures", "previous_erasures_auc"}
    assert alone == {name: beside[name] for name in alone}
    assert alone["previous_erasures"].n == int((erased.labels == 2).sum())

    steps: list[tuple[int, int]] = []
    verification.measure_erased(net, config, whole, gone, lambda *step: steps.append(step))
    assert steps[-1][0] == steps[-1][1] == len(steps)
    with pytest.raises(errors.InvalidDataError, match="nothing that was erased"):
        verification.measure_erased(net, config, splits, gone)


def test_an_original_that_knows_nothing_is_warned_of(
    trained: torch.nn.Module, config: specs.ClassifierConfig, splits: verification.Splits
) -> None:
    """Its classes are in another order than its names, say."""
    wrong = copy.deepcopy(trained)
    layer = wrong.get_submodule("fc")
    with torch.no_grad():
        for tensor in (layer.weight, layer.bias):
            tensor.copy_(tensor.roll(1, dims=0))  # type: ignore[operator]
    found = verification.verify(wrong, wrong, config, splits, subject_of()).evidence["warnings"]
    assert len(found) == 1
    assert "label_names" in found[0]
    known = verification.verify(trained, trained, config, splits, subject_of())
    assert known.evidence["warnings"] == []


def test_empty_test_set_is_refused(
    trained: torch.nn.Module, config: specs.ClassifierConfig, splits: verification.Splits
) -> None:
    empty = verification.Splits(
        splits.forget_set, splits.retain_set, splits.holdout_set, splits.test_set.subset([])
    )
    with pytest.raises(errors.InvalidDataError, match="empty test set"):
        verification.measure(trained, trained, config, empty, subject_of())


def test_class_retrained_without_passes_for_its_own_reference(
    trained: torch.nn.Module,
    without_class: torch.nn.Module,
    config: specs.ClassifierConfig,
    class_splits: verification.Splits,
) -> None:
    """Against itself every gap is 0. It never regains the class, does not find it again when its
    head gets the original's bias, and has no trace of it after more training on the rest.
    """
    ticks: list[tuple[int, int]] = []
    report = verification.verify(
        trained, without_class, config, class_splits, subject_of(kind="class"),
        lambda step, total: ticks.append((step, total)), retrained=without_class,
    )  # fmt: skip
    assert ticks == [(i + 1, len(ticks)) for i in range(len(ticks))]
    metrics = report.metrics
    assert metrics.keys() == CLASS_METRICS | {"average_gap"}
    assert metrics["average_gap"].value == 0.0
    assert set(metrics["average_gap"].detail["gap_to_retrained"].values()) == {0.0}
    assert metrics["relearn_delay"].value == recovery.RELEARN_STEPS
    assert metrics["relearn_delay"].target == traces.LEAST_DELAY
    assert metrics["relearn_delay"].detail["ratio_to_retrained"] == 1.0
    assert metrics["resurfacing"].value == 0.0
    assert metrics["resurfacing"].detail["retrained"] == 0.0
    shortcut = metrics["head_bias_shortcut"]
    assert shortcut.value == 0.0
    assert (shortcut.n, shortcut.detail["measured_on"]) == (30, "test")
    assert shortcut.detail["classes"] == [2]
    assert shortcut.detail["retrained"] == {
        name: shortcut.detail[name] for name in shortcut.detail["retrained"]
    }
    assert 0.5 < shortcut.detail["probe_balanced_accuracy"] < 1.0
    assert shortcut.detail["original"]["restored_bias"] > 0.5
    assert report.evidence["retrained"]["unlearning_accuracy"] == 1.0
    assert report.evidence["group_shift"]["top_receiver"] in config.labels
    assert report.evidence["group_shift"]["change_per_class"].keys() == {
        "digit 1", "digit 3", "digit 9",
    }  # fmt: skip


def test_bias_alone_is_found_out(
    trained: torch.nn.Module, config: specs.ClassifierConfig, class_splits: verification.Splits
) -> None:
    """By every ordinary figure the class is gone. With the bias back, recall on unseen samples is
    the original's to the last one, and its standard error is sqrt(p (1 − p)/30).
    """
    metrics = verification.measure(
        class_cut(trained), trained, config, class_splits, subject_of(kind="class")
    )
    assert metrics["unlearning_accuracy"].value == 1.0
    assert metrics["retain_accuracy"].value == metrics["retain_accuracy"].target
    shortcut = metrics["head_bias_shortcut"]
    logits = inference.logits(
        trained, class_splits.test_set, preprocessing.Preprocessing(config.pretrained_cfg)
    )
    of_class = class_splits.test_set.labels == 2
    known = (logits.argmax(dim=1) == 2)[of_class].double().mean().item()
    assert shortcut.value == pytest.approx(known)
    assert known > 0.5
    assert shortcut.detail["original"]["restored_bias"] == pytest.approx(known)
    smoothed = (known * 30 + 0.5) / 31
    assert shortcut.standard_error == pytest.approx(math.sqrt(smoothed * (1 - smoothed) / 30))


def test_hidden_memory_resurfaces(
    trained: torch.nn.Module, config: specs.ClassifierConfig, splits: verification.Splits
) -> None:
    """Shifted batch statistics hide the forget set among unseen samples: both are missed as often.
    Two epochs on retain data bring back what only the weights of a trained net can know.
    """
    net = copy.deepcopy(trained)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean += 0.5 * module.running_var.sqrt()
    metrics = verification.measure(net, trained, config, splits, subject_of())
    missed = metrics["unlearning_accuracy"]
    assert missed.target is not None
    assert missed.standard_error is not None
    assert missed.value > missed.target - 1.64 * missed.standard_error
    found = metrics["resurfacing"]
    assert found.standard_error is not None
    assert found.value > 0.03 + 1.64 * found.standard_error
    assert found.value == pytest.approx(
        found.detail["forget_accuracy"] - found.detail["holdout_accuracy"]
    )


def test_forgotten_class_comes_back_as_a_whole(
    trained: torch.nn.Module, config: specs.ClassifierConfig, class_splits: verification.Splits
) -> None:
    """Its unseen samples come back with it, so a class is held against 0, not against holdout."""
    metrics = verification.measure(trained, trained, config, class_splits, subject_of(kind="class"))
    found = metrics["resurfacing"]
    assert found.value == found.detail["forget_accuracy"] == 1.0
    assert found.detail["holdout_accuracy"] > 0.4
    assert metrics["relearn_delay"].value == 0.0


def test_reading_of_the_original_is_enough(
    trained: torch.nn.Module, config: specs.ClassifierConfig, class_splits: verification.Splits
) -> None:
    """Nothing is read again, and nothing depends on what was measured before: bit for bit."""
    net, subject = class_cut(trained), subject_of(kind="class")
    counts: list[list[int]] = [[], [], []]
    before = verification.read_original(
        trained, config, class_splits, subject, lambda step, _: counts[0].append(step)
    )
    first = verification.measure(
        net, before, config, class_splits, subject, lambda step, _: counts[1].append(step)
    )
    second = verification.measure(
        net, trained, config, class_splits, subject, lambda step, _: counts[2].append(step)
    )
    assert first == second
    assert counts[2][-1] == counts[0][-1] + counts[1][-1]


def test_net_without_a_linear_head(
    trained: torch.nn.Module,
    config: specs.ClassifierConfig,
    class_splits: verification.Splits,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> torch.nn.Linear:
        raise errors.InvalidDataError("got a net that ends otherwise")

    monkeypatch.setattr("salun_core.heads.find", refuse)
    report = verification.verify(
        trained, class_cut(trained), config, class_splits, subject_of(kind="class")
    )
    assert "head_bias_shortcut" not in report.metrics
    assert "linear layer" in report.evidence["not_measured"]["head_bias_shortcut"]


def test_samples_without_holdout_cannot_resurface(
    trained: torch.nn.Module, config: specs.ClassifierConfig, splits: verification.Splits
) -> None:
    alone = verification.Splits(
        splits.forget_set, splits.retain_set, splits.holdout_set.subset([]), splits.test_set
    )
    report = verification.verify(trained, trained, config, alone, subject_of())
    assert "resurfacing" not in report.metrics
    assert "holdout" in report.evidence["not_measured"]["resurfacing"]
    assert "relearn_delay" in report.metrics


def test_class_without_unseen_samples_is_measured_on_its_own(
    trained: torch.nn.Module, config: specs.ClassifierConfig, class_splits: verification.Splits
) -> None:
    bare = dataclasses.replace(
        class_splits,
        holdout_set=class_splits.holdout_set.without_labels([2]),
        test_set=class_splits.test_set.without_labels([2]),
    )
    metrics = verification.measure(
        class_cut(trained), trained, config, bare, subject_of(kind="class")
    )
    found = metrics["head_bias_shortcut"]
    assert found.detail["measured_on"] == "forget"
    assert (found.value, found.n) == (1.0, len(bare.forget_set))
    assert found.detail["probe_recall"] > 0.9  # on what it learnt from
    assert metrics["resurfacing"].detail["holdout_accuracy"] is None


def test_delay_of_a_retrained_net_is_a_samples_target(
    trained: torch.nn.Module,
    without_class: torch.nn.Module,
    config: specs.ClassifierConfig,
    splits: verification.Splits,
) -> None:
    """Only the reference decides for samples: the original is back at once, the other never."""
    report = verification.verify(
        trained, trained, config, splits, subject_of(), retrained=without_class
    )
    found = report.metrics["relearn_delay"]
    assert (found.value, found.target) == (0.0, float(found.detail["retrained"]))
    assert found.detail["ratio_to_retrained"] == 0.0
    assert found.detail["retrained"] > 10
    gaps = report.metrics["average_gap"].detail["gap_to_retrained"]
    assert report.metrics["average_gap"].value == pytest.approx(
        sum(abs(gaps[name]) for name in
            ("unlearning_accuracy", "retain_accuracy", "test_accuracy", "mia_efficacy")) / 4
    )  # fmt: skip
