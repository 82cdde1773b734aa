"""Comparisons with folds, by hand and by loops; without folds they are seen in test_measures."""

import dataclasses
import math

import pytest
import torch

from salun_core import crossfit, likeness, measures, specs


def outputs(scores: torch.Tensor, labels: torch.Tensor, folds: list[int]) -> likeness.Outputs:
    """A net of three classes with these logit-scaled confidences: s = z − log 2 over zeros."""
    given = torch.where(scores > -math.log(2.0), labels, (labels + 1) % 3)
    return likeness.Outputs(given, given, scores.float(), labels, torch.tensor(folds))


@pytest.fixture
def erased() -> likeness.Outputs:
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2, 1])
    return outputs(torch.randn(10, generator=generator), labels, [0, 1, 0, 0, 1, 0, 1, 1, 0, 0])


@pytest.fixture
def unseen() -> likeness.Outputs:
    """Class 2 is in fold 0 alone, one sample of class 1 in neither."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 2, 2])
    return outputs(torch.randn(9, generator=generator), labels, [0, 1, 1, 0, 0, 1, -1, 0, 0])


def slow_auc(erased: likeness.Outputs, unseen: likeness.Outputs, fold: int) -> float:
    """Every pair of one class, each forgotten sample that has an opponent weighing the same."""
    assert erased.folds is not None
    assert unseen.folds is not None
    own = [i for i in range(len(erased.labels)) if erased.folds[i] == fold]
    others = [j for j in range(len(unseen.labels)) if unseen.folds[j] != fold]
    shared = {int(unseen.labels[j]) for j in others}
    own = [i for i in own if int(erased.labels[i]) in shared]
    weight = {
        j: sum(erased.labels[i] == unseen.labels[j] for i in own)
        / len(own)
        / sum(unseen.labels[k] == unseen.labels[j] for k in others)
        for j in others
    }
    return sum(
        float(weight[j]) / len(own) * float(erased.scores[i] > unseen.scores[j])
        for i in own
        for j in others
    )


def test_auc_of_every_fold_against_loops(
    erased: likeness.Outputs, unseen: likeness.Outputs
) -> None:
    found = likeness.measured(likeness.pairs(erased, unseen), likeness.auc)
    values = [fold["value"] for fold in found.detail["folds"]]
    assert values == pytest.approx([slow_auc(erased, unseen, fold) for fold in (0, 1)])
    counts = [fold["n"] for fold in found.detail["folds"]]
    assert counts == [4, 4]  # nobody of class 2 may judge fold 0
    assert found.detail["mean"] == pytest.approx(sum(values) / 2)


@pytest.mark.parametrize("compare", [likeness.auc, likeness.error_rate])
def test_no_sample_is_judged_by_its_own_fold(
    compare: likeness.Comparing, erased: likeness.Outputs, unseen: likeness.Outputs
) -> None:
    """Whatever becomes of the unseen samples of a fold, the figures of that fold stay."""
    known = [compare(*pair) for pair in likeness.pairs(erased, unseen)]
    assert unseen.folds is not None
    for fold in (0, 1):
        after, scores = unseen.after.clone(), unseen.scores.clone()
        of_class_1 = (unseen.labels == 1)[unseen.folds == fold]
        after[unseen.folds == fold] = 1  # surely so
        scores[unseen.folds == fold] = torch.where(of_class_1, 20.0, -130.0)
        moved = likeness.pairs(erased, dataclasses.replace(unseen, after=after, scores=scores))
        assert compare(*moved[fold]) == known[fold]
        assert compare(*moved[1 - fold]) != known[1 - fold]


def test_net_that_fits_the_matched_fold_passes_in_a_circle_only() -> None:
    """Unseen samples of fold 0 are known by three nats better than those of fold 1, by chance, and
    every forgotten sample looks exactly like its own fold. All against all nothing is to be seen,
    nor in the mean over both folds; each fold by itself is off by the whole.
    """
    labels, folds = torch.arange(400) % 3, [row // 3 % 2 for row in range(400)]
    generator = torch.Generator().manual_seed(2)
    scores = torch.randn(400, generator=generator) - 3.0 * torch.tensor(folds)
    erased, unseen = outputs(scores, labels, folds), outputs(scores, labels, folds)
    circle = dataclasses.replace(erased, folds=None)
    circular = likeness.measured(likeness.pairs(circle, unseen), likeness.auc)
    assert circular.value == pytest.approx(0.5)
    crossed = likeness.measured(likeness.pairs(erased, unseen), likeness.auc)
    assert crossed.detail["mean"] == pytest.approx(0.5, abs=0.01)
    assert abs(crossed.value - 0.5) > 0.4
    assert crossed.standard_error is not None
    assert abs(crossed.value - 0.5) > 0.05 + 1.64 * crossed.standard_error


def test_no_opponent_no_comparison(erased: likeness.Outputs, unseen: likeness.Outputs) -> None:
    of_class_2 = unseen.select(unseen.labels == 2)  # in fold 0 only
    assert len(likeness.pairs(erased, of_class_2)) == 1
    assert likeness.pairs(erased, unseen.select(unseen.labels > 2)) == []


@pytest.mark.parametrize("crossed", [False, True])
def test_samples_without_an_opponent_count_on_neither_side(crossed: bool) -> None:
    """Class 0 is hard: always missed, others never. 60 of 240 erased are of it, and one unseen
    sample, which is in fold 0 and so judges fold 1 alone, or none at all: like nets miss nothing.
    """
    labels = torch.tensor([0] * 60 + [1, 2] * 90)
    folds = [row // 2 % 2 for row in range(240)]
    scores = torch.where(labels == 0, -9.0, 9.0)
    erased = outputs(scores, labels, folds)
    unseen = erased.select(torch.arange(240) >= (59 if crossed else 60))
    if crossed:
        unseen = dataclasses.replace(unseen, folds=torch.tensor([0, *folds[60:]]))
    else:
        erased, unseen = (dataclasses.replace(o, folds=None) for o in (erased, unseen))
    sets = {"forget": erased, "retain": erased, "holdout": unseen, "test": unseen}
    metrics = measures.all_measurements({**sets, "previous": erased}, "samples", (), seed=0)
    for name in ("unlearning_accuracy", "mia_efficacy", "previous_erasures"):
        found = metrics[name]
        assert found.value == pytest.approx(found.target), name
    found = metrics["unlearning_accuracy"]
    assert found.detail["of_all_samples"] == 0.25
    counts = [one["n"] for one in found.detail["folds"]] if crossed else [found.n]
    assert counts == ([90, 120] if crossed else [180])


@pytest.mark.parametrize("crossed", [False, True])
@pytest.mark.parametrize("count", [20, 40, 80, 400])
def test_few_unseen_samples_do_not_refuse_like_nets_by_their_largest(
    count: int, crossed: bool
) -> None:
    """Of like samples at most 7 % miss by more than the default gate's .02 + 1.64 errors; those
    that are known by four standard deviations more do, even against 20.
    """
    generator = torch.Generator().manual_seed(5)
    erased_labels, labels = torch.arange(66) % 3, torch.arange(count) % 3
    folds = [row // 3 % 2 for row in range(max(66, count))]

    def missed(boost: float) -> bool:
        own = outputs(boost + torch.randn(66, generator=generator), erased_labels, folds[:66])
        others = outputs(torch.randn(count, generator=generator), labels, folds[:count])
        if not crossed:
            own = dataclasses.replace(own, folds=None)
        found = likeness.measured(
            likeness.pairs(own, others), likeness.true_positive_rate, surest=False
        )
        assert found.target is not None
        assert found.standard_error is not None
        return abs(found.value - found.target) > 0.02 + 1.64 * found.standard_error

    assert sum(missed(0.0) for _ in range(400)) <= 0.07 * 400
    assert sum(missed(4.0) for _ in range(40)) > 0.9 * 40


def test_a_skewed_mix_of_classes_neither_refuses_like_nets_nor_hides_who_is_known() -> None:
    """Most of the erased are of class 0, of the unseen a tenth is. Where the net is surer of it
    than of others, like samples must not look known (at most 7 % miss the default gate); where it
    is less sure, those that it knows by four standard deviations must not hide below the surest
    of the others.
    """
    generator = torch.Generator().manual_seed(6)
    unseen_labels = torch.arange(2000) % 10

    def missed(labels: torch.Tensor, surer: float, boost: float) -> bool:
        own, others = (
            torch.randn(len(of), generator=generator) + surer * (of == 0)
            for of in (labels, unseen_labels)
        )
        erased = outputs(own + boost * (labels == 0), labels, [0])
        unseen = outputs(others, unseen_labels, [0])
        pair = (dataclasses.replace(o, folds=None) for o in (erased, unseen))
        found = likeness.measured(likeness.pairs(*pair), likeness.true_positive_rate)
        assert found.target is not None
        assert found.standard_error is not None
        return abs(found.value - found.target) > 0.02 + 1.64 * found.standard_error

    skewed = torch.tensor([0] * 300 + list(range(1, 10)) * 20)
    assert sum(missed(skewed, 5.0, 0.0) for _ in range(200)) <= 0.07 * 200
    nearly_one = torch.tensor([0] * 300 + list(range(1, 10)))
    assert sum(missed(nearly_one, -5.0, 4.0) for _ in range(40)) > 0.9 * 40


def test_every_metric_that_needs_unseen_samples_is_crossed() -> None:
    generator = torch.Generator().manual_seed(3)

    def some(boost: float, count: int, folds: list[int] | None) -> likeness.Outputs:
        labels = torch.arange(count) % 3
        made = outputs(boost + torch.randn(count, generator=generator), labels, folds or [0])
        return made if folds else dataclasses.replace(made, folds=None)

    dealt = [row // 3 % 2 for row in range(240)]
    sets = {
        "forget": some(0.5, 60, dealt[:60]),
        "retain": some(6.0, 300, None),
        "holdout": some(0.0, 240, dealt),
        "previous": some(0.3, 90, dealt[:90]),
    }
    sets["test"] = sets["holdout"].select(torch.arange(240) < 120)
    metrics = measures.all_measurements(sets, "samples", (), seed=0)
    crossed = {name for name, found in metrics.items() if "folds" in found.detail}
    assert crossed == {
        "unlearning_accuracy", "forget_holdout_auc", "mia_efficacy", "mia_efficacy_svc",
        "mia_efficacy_threshold", "mia_auc", "tpr_at_1pct_fpr", "previous_erasures",
        "previous_erasures_auc",
    }  # fmt: skip
    missed = 1.0 - (sets["forget"].after == sets["forget"].labels).double().mean().item()
    assert metrics["unlearning_accuracy"].detail["mean"] == pytest.approx(missed)
    rates = metrics["tpr_at_1pct_fpr"]
    assert rates.value == rates.detail["mean"]  # no fold stands for it
    same = {name: specs.Measurement(value=0.0) for name in metrics}
    gap = measures.average_gap(metrics, same)
    parts = [missed, metrics["retain_accuracy"].value, metrics["test_accuracy"].value]
    parts.append(metrics["mia_efficacy"].detail["mean"])
    assert gap.value == pytest.approx(sum(parts) / 4)


def answers(labels: list[int], given: list[int]) -> likeness.Outputs:
    """A net that is sure of what it says."""
    said, true = torch.tensor(given), torch.tensor(labels)
    return likeness.Outputs(said, said, torch.where(said == true, 8.0, -9.0), true)


def previous_of(
    previous: likeness.Outputs, gone: tuple[int, ...] = ()
) -> dict[str, specs.Measurement]:
    """Of earlier erasures; half of the unseen samples of each class are missed."""
    right = answers([0, 1], [0, 1])
    unseen = answers([0, 1] * 40, [0, 1, 1, 0] * 20)
    sets = {"forget": right, "retain": right, "test": right, "holdout": unseen}
    return measures.all_measurements({**sets, "previous": previous}, "samples", gone, seed=0)


def test_a_gone_class_that_is_known_again_is_not_lost_among_earlier_erasures() -> None:
    """Samples are missed as often as unseen ones; of a gone class all are missed, or none."""
    like_unseen = [0, 1] * 20, [0, 1, 1, 0] * 10
    gone = answers(like_unseen[0] + [2] * 10, like_unseen[1] + [1] * 10)
    known = answers(like_unseen[0] + [2] * 10, like_unseen[1] + [2] * 10)
    found = previous_of(gone, (2,))["previous_erasures"]
    assert found.target is not None
    assert found.value == found.target
    assert found.detail["of_all_samples"] == 0.6
    found = previous_of(known, (2,))["previous_erasures"]
    assert (found.value, found.target, found.n) == (0.0, 1.0, 10)
    assert found.detail["class"] == 2
    assert found.comparisons == 2


def test_a_person_who_came_back_is_not_lost_among_those_who_did_not() -> None:
    """Of 1,000 earlier samples half are missed, as of unseen ones; 40 of one request are known."""
    labels, given = [0, 1] * 480 + [0] * 40, [0, 1, 1, 0] * 240 + [0] * 40
    together = previous_of(answers(labels, given))
    assert together["previous_erasures"].value == 0.48
    groups = torch.tensor([7] * 960 + [8] * 40)
    alone = previous_of(dataclasses.replace(answers(labels, given), groups=groups))
    assert alone["previous_erasures"].value == 0.0
    assert alone["previous_erasures"].detail["erased_by"] == 8
    assert alone["previous_erasures"].comparisons == 3
    assert alone["previous_erasures_auc"].detail["erased_by"] == 8
    few = torch.tensor([7] * 990 + [8] * 10)  # they do not stand for themselves
    found = previous_of(dataclasses.replace(answers(labels, given), groups=few))
    assert found["previous_erasures"].comparisons == 2


def never_saw(
    previous: likeness.Outputs, holdout: likeness.Outputs, gone: tuple[int, ...] = ()
) -> dict[str, specs.Measurement]:
    return measures.erased_before(previous, holdout, gone, never_saw=True)


def test_who_is_hard_does_not_hide_who_is_known_from_a_net_that_never_saw_them() -> None:
    """One request's samples are known, another's are missed by even more than unseen ones."""
    unseen = answers([0, 1] * 40, [0, 1, 1, 0] * 20)
    labels = [0, 1] * 60
    groups = torch.tensor([7] * 40 + [8] * 80)
    mixed = answers(labels, labels[:40] + [1 - label for label in labels[40:]])
    found = never_saw(dataclasses.replace(mixed, groups=groups), unseen)
    assert (found["previous_erasures"].value, found["previous_erasures"].side) == (0.0, "not_below")
    assert found["previous_erasures"].detail["erased_by"] == 7
    assert found["previous_erasures_auc"].value > 0.5
    assert found["previous_erasures_auc"].side == "not_above"
    hard = never_saw(answers(labels, [1 - label for label in labels]), unseen)
    assert hard["previous_erasures"].value == 1.0


def test_hard_samples_do_not_hide_a_gone_class_that_is_named() -> None:
    unseen = answers([0, 1] * 40, [0, 0] * 40)
    some_named = answers([0, 1] * 30 + [2] * 10, [1, 0] * 30 + [2] * 3 + [0] * 7)
    found = never_saw(some_named, unseen, (2,))["previous_erasures"]
    assert (found.value, found.target, found.side) == (0.7, 1.0, "not_below")


def test_a_fold_that_is_known_counts_where_the_other_is_hard() -> None:
    known = crossfit.Compared(0.65, 0.5, 0.04, 100, 100)
    hard = crossfit.Compared(0.3, 0.5, 0.04, 100, 100)
    assert crossfit.surest([known, hard]).value == 0.3
    assert crossfit.surest([known, hard], "not_above").value == 0.65
    assert crossfit.surest([known, hard], "not_below").value == 0.3
