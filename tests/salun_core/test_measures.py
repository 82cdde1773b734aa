"""What is made of several metrics or of logits by hand; the rest is seen in test_verification."""

import pytest
import torch

from salun_core import comparison, confidence, controls, likeness, measures, specs


def measured(value: float) -> specs.Measurement:
    return specs.Measurement(value=value)


def test_average_gap_is_over_ua_ra_ta_and_mia() -> None:
    """(.04 + .01 + .02 + .05)/4 = .03; others are told, with their sign, and not averaged."""
    own = {"unlearning_accuracy": 0.10, "retain_accuracy": 0.99, "test_accuracy": 0.92,
           "mia_efficacy": 0.20, "resurfacing": 0.3, "mia_auc": 0.6}  # fmt: skip
    retrained = {"unlearning_accuracy": 0.06, "retain_accuracy": 1.0, "test_accuracy": 0.94,
                 "mia_efficacy": 0.15, "resurfacing": 0.1}  # fmt: skip
    found = measures.average_gap(
        {name: measured(value) for name, value in own.items()},
        {name: measured(value) for name, value in retrained.items()},
    )
    assert found.value == pytest.approx(0.03)
    assert found.target == 0.0
    gaps = found.detail["gap_to_retrained"]
    assert gaps.keys() == retrained.keys()
    assert gaps["resurfacing"] == pytest.approx(0.2)
    assert gaps["test_accuracy"] == pytest.approx(-0.02)


def outputs(labels: list[int], before: list[int], after: list[int]) -> likeness.Outputs:
    """Nets that are sure of these answers among three classes."""
    given, true = torch.tensor(after), torch.tensor(labels)
    scores = torch.where(given == true, 8.0, -9.0)
    return likeness.Outputs(torch.tensor(before), given, scores, true)


def shift_of(kind: specs.ForgetKind, forget: likeness.Outputs) -> dict[str, object]:
    """Test accuracy of class 1 falls from 1 to .75, of class 2 rises from .5 to 1."""
    of_class_1, of_class_2 = [1, 1, 1, 2] * 9, [2, 2, 1, 1] * 9
    kept = outputs([1] * 36 + [2] * 36, [1] * 36 + of_class_2, of_class_1 + [2] * 36)
    same = outputs([1] * 9 + [2] * 9, [1] * 9 + [2] * 9, [1] * 9 + [2] * 9)
    sets = {"forget": forget, "retain": same, "test": kept, "holdout": kept}
    metrics = measures.all_measurements(sets, kind, (), seed=0)
    return measures.group_shift(metrics, ("zero", "one", "two"))


def test_group_shift_names_whom_it_fell_on() -> None:
    """Of four forgotten "zero" three go to "two": share .75."""
    found = shift_of("class", outputs([0] * 4, [0] * 4, [2, 2, 2, 1]))
    assert found["top_receiver"] == "two"
    assert found["top_receiver_share"] == 0.75
    assert found["worst_class"] == "one"
    assert found["worst_split"] == "test"
    assert found["worst_change"] == -0.25
    assert found["change_per_class"] == {"one": -0.25, "two": 0.5}


def test_receiver_of_samples_is_counted_over_the_whole_set() -> None:
    """One of four is missed, and goes to class 2."""
    found = shift_of("samples", outputs([1, 1, 1, 2], [1, 1, 1, 2], [1, 1, 2, 2]))
    assert found["top_receiver"] == "two"
    assert found["top_receiver_share"] == 0.25


def test_nobody_receives_where_nothing_left() -> None:
    found = shift_of("samples", outputs([1, 2], [1, 2], [1, 2]))
    assert "top_receiver" not in found


def test_three_attacks_stand_in_the_table() -> None:
    """MIA three ways: each has its own feature of the same logits, and its target from holdout."""
    generator = torch.Generator().manual_seed(0)

    def some(boost: float, count: int) -> likeness.Outputs:
        labels = torch.arange(count) % 3
        logits = torch.randn(count, 3, generator=generator)
        logits[torch.arange(count), labels] += boost
        scores = confidence.logit_scaled_confidence(logits, labels)
        return likeness.Outputs(logits.argmax(1), logits.argmax(1), scores, labels)

    sets = {"forget": some(1.0, 60), "retain": some(6.0, 300), "test": some(1.0, 300)}
    metrics = measures.all_measurements({**sets, "holdout": some(1.0, 150)}, "samples", (), seed=0)
    known = {**sets, "forget": some(6.0, 60), "holdout": some(1.0, 150)}
    kept = measures.all_measurements(known, "samples", (), seed=0)
    for name in ("mia_efficacy", "mia_efficacy_svc", "mia_efficacy_threshold"):
        target, error = metrics[name].target, metrics[name].standard_error
        assert target is not None
        assert error is not None
        assert abs(metrics[name].value - target) < 3.0 * error  # looks unseen
        assert metrics[name].value > kept[name].value + 0.5  # a member does not


def test_nets_are_compared_over_all_samples_and_not_by_the_fold_that_stands_for_them() -> None:
    """Over both folds two nets have .5 each; fold 0 was surer of one, fold 1 of the other.

    The distances in UA and MIA are 0, those in RA and TA .1: .05 in the mean.
    """

    def found(value: float, utility: float) -> dict[str, specs.Measurement]:
        folded = specs.Measurement(value=value, detail={"mean": 0.5})
        plain = specs.Measurement(value=utility)
        return {
            "unlearning_accuracy": folded, "mia_efficacy": folded, "mia_auc": folded,
            "retain_accuracy": plain, "test_accuracy": plain,
        }  # fmt: skip

    gap = measures.average_gap(found(0.9, 0.8), found(0.1, 0.7))
    assert gap.value == pytest.approx(0.05)
    assert gap.detail["gap_to_retrained"] == pytest.approx(
        {"unlearning_accuracy": 0.0, "mia_efficacy": 0.0, "mia_auc": 0.0,
         "retain_accuracy": 0.1, "test_accuracy": 0.1}
    )  # fmt: skip
    bare = comparison.Found(found(0.9, 0.8), {}).values
    assert (bare["mia_auc"], bare["test_accuracy"]) == (0.5, 0.8)
    spec = specs.default_spec("samples")
    runs = [
        controls.Run("no_mask", spec, 1.0, found(value, 0.8), seconds=1.0) for value in (0.9, 0.1)
    ]
    assert controls.summary(runs)["no_mask"]["mia_auc"] == {"mean": 0.5, "sd": 0.0, "n": 2.0}


def test_a_class_that_is_not_gone_is_not_lost_among_those_that_are() -> None:
    """Of 100 samples of two classes 5 are known, which are all of one class."""
    forget = outputs([0] * 95 + [1] * 5, [0] * 95 + [1] * 5, [2] * 95 + [1] * 5)
    rest = outputs([2] * 9, [2] * 9, [2] * 9)
    sets = {"forget": forget, "retain": rest, "test": rest, "holdout": rest}
    found = measures.all_measurements(sets, "class", (), seed=0)["unlearning_accuracy"]
    assert (found.value, found.target, found.n, found.comparisons) == (0.0, 1.0, 5, 2)
    assert found.detail["class"] == 1
    assert found.whole == 0.95


def test_who_looks_at_many_classes_is_told_of_none_that_lost_by_chance() -> None:
    """Fifty classes of 60 samples, one in twenty of which changes sides: refused seldom."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(50).repeat_interleave(60)
    refused = 0
    for _ in range(40):
        flips = torch.rand(2, len(labels), generator=generator) < 0.05
        sides = [torch.where(flip, (labels + 1) % 50, labels).tolist() for flip in flips]
        rest = outputs(labels.tolist(), sides[0], sides[1])
        forget = outputs([0, 1], [0, 1], [0, 1])
        sets = {"forget": forget, "retain": rest, "test": rest, "holdout": rest}
        found = measures.all_measurements(sets, "samples", (), seed=0)["max_class_drop"]
        assert found.comparisons == 100
        assert found.standard_error is not None
        allowed = 0.03 + specs.widened(specs.Z, found.comparisons) * found.standard_error
        refused += found.value > allowed
    assert refused <= 4


def test_of_withheld_classes_nothing_is_asked_and_the_rest_of_them_is_still_looked_at() -> None:
    """Class 1 goes next: training kept none of it, the net lost it, and some of it went before."""
    rest = outputs(
        [0] * 20 + [1] * 20 + [2] * 20, [0] * 20 + [1] * 20 + [2] * 20, [0] * 40 + [2] * 20
    )
    forget = outputs([0] * 4, [0] * 4, [0] * 4)
    sets = {"forget": forget, "retain": rest, "test": rest, "holdout": rest}
    sets["previous"] = outputs([1] * 20, [1] * 20, [0] * 20)
    asked = measures.all_measurements(sets, "samples", (), seed=0)
    spared = measures.all_measurements(sets, "samples", (), seed=0, withheld_labels=(1,))
    assert (asked["max_class_drop"].value, asked["test_accuracy"].value) == (1.0, 40 / 60)
    assert (spared["max_class_drop"].value, spared["test_accuracy"].value) == (0.0, 1.0)
    assert (spared["previous_erasures"].value, spared["previous_erasures"].target) == (1.0, 1.0)
    assert spared["previous_erasures"] == asked["previous_erasures"]
