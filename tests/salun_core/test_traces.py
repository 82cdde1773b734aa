"""What is drawn, and what the figures are held against; the figures are in test_verification."""

from collections.abc import Callable

import pytest
import torch

from salun_core import errors, images, recovery, traces
from salun_core.unlearn import contract

Sets = dict[str, images.ImageSet]


@pytest.fixture
def sets(
    class_data: contract.UnlearningData, make_set: Callable[[str, int], images.ImageSet]
) -> Sets:
    """Class 2 is forgotten: 60 samples of it, 30 unseen ones in holdout and in test."""
    return {
        "forget": class_data.forget_set,
        "retain": class_data.retain_set,
        "holdout": class_data.holdout_set,
        "test": make_set("test", 30),
    }


def tuned(steps: int, forget: list[int], unseen: list[int]) -> traces.Tuned:
    """A net that is sure of these answers among four classes."""
    return traces.Tuned(steps, torch.tensor(forget), torch.tensor(unseen, dtype=torch.int64))


def test_draws_are_seeded_bounded_and_of_the_right_class(
    sets: Sets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "PANEL", 20)
    monkeypatch.setattr(recovery, "TUNING_SAMPLES", 25)
    drawn = traces.draw_samples(sets, "class", (), seed=1)
    assert [len(s) for s in (drawn.panel_set, drawn.tuning_set, drawn.forget_set)] == [20, 25, 25]
    assert drawn.panel_set.ids == sets["forget"].subset(drawn.panel.tolist()).ids
    assert set(drawn.tuning_set.ids) < set(sets["retain"].ids)
    assert len(drawn.unseen_set) == 25
    assert set(drawn.unseen_set.labels.tolist()) == {2}
    again = traces.draw_samples(sets, "class", (), seed=1)
    assert again.tuning_set.ids == drawn.tuning_set.ids
    assert traces.draw_samples(sets, "class", (), 2).tuning_set.ids != drawn.tuning_set.ids
    # 50 steps, 2 · ⌈25/64⌉ batches of training, one batch each to read.
    assert drawn.count_steps() == 54


def test_taps_hold_both_kinds(sets: Sets, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "_PROBE_SAMPLES", 10)
    drawn = traces.draw_samples(sets, "class", (), seed=0)
    assert drawn.unseen_split == "test"
    counts = {name: int(rows.sum()) for name, rows in drawn.taps.items()}
    assert counts == {"forget": 10, "retain": 10, "test": 20}
    assert sorted(drawn.tap_labels["test"].tolist()).count(2) == 10
    assert traces.draw_samples(sets, "samples", (), seed=0).taps == {}


def test_unseen_samples_come_from_where_there_are_some(sets: Sets) -> None:
    sets["test"] = sets["test"].without_labels([2])
    assert traces.draw_samples(sets, "class", (), seed=0).unseen_split == "holdout"
    sets["holdout"] = sets["holdout"].without_labels([2])
    drawn = traces.draw_samples(sets, "class", (), seed=0)
    assert drawn.unseen_split == "forget"
    assert not len(drawn.unseen_set)


@pytest.mark.parametrize(
    ("kind", "retrained", "target"),
    [("class", None, 3.0), ("class", 40, 3.0), ("class", 2, 2.0), ("samples", None, None),
     ("samples", 40, 40.0), ("samples", 0, 0.0)],
)  # fmt: skip
def test_target_of_the_delay(
    kind: str, retrained: int | None, target: float | None, sets: Sets
) -> None:
    """A class is held against the least of all nets without it, 3, or the reference's own less."""
    drawn = traces.draw_samples(sets, kind, (), seed=0)  # type: ignore[arg-type]
    other = None if retrained is None else tuned(retrained, [0], [])
    found = traces.relearn_delay(tuned(8, [0], []), other, drawn)
    assert (found.value, found.target, found.n) == (8.0, target, 60)
    if retrained:
        assert found.detail["ratio_to_retrained"] == 8.0 / retrained
    assert traces.relearn_delay(None, other, drawn).value == 0.0


def test_resurfacing_by_hand(
    data: contract.UnlearningData, make_set: Callable[[str, int], images.ImageSet]
) -> None:
    """Two forgotten of class 0 and one of class 1, all right; unseen: class 0 half right, class 1
    never. Matched by class: (2 · .5 + 1 · 0)/3 = 1/3, so 2/3 came back.
    """
    labels = data.forget_set.labels.tolist()
    zero, one = labels.index(0), labels.index(1)
    forget = data.forget_set.subset([zero, labels.index(0, zero + 1), one])
    found = [(i, y) for i, y in enumerate(data.holdout_set.labels.tolist()) if y < 2]
    zeros = [i for i, y in found if y == 0][:2]
    holdout = data.holdout_set.subset([*zeros, next(i for i, y in found if y == 1)])
    sets = {"forget": forget, "retain": data.retain_set, "holdout": holdout}
    drawn = traces.draw_samples({**sets, "test": make_set("test", 30)}, "samples", (), seed=0)
    own, other = tuned(0, [0, 0, 1], [0, 3, 3]), tuned(0, [0, 3, 1], [0, 0, 1])
    result = traces.resurfacing(own, other, drawn)
    assert result.value == pytest.approx(2.0 / 3.0)
    assert result.detail["retrained"] == pytest.approx(2.0 / 3.0 - 1.0)
    assert (result.target, result.n) == (0.0, 3)

    sets["holdout"] = holdout.subset([0, 1])  # class 1 has no opponent: it counts on neither side
    lacking = traces.draw_samples({**sets, "test": make_set("test", 30)}, "samples", (), seed=0)
    result = traces.resurfacing(tuned(0, [0, 3, 1], [0, 3]), None, lacking)
    assert (result.value, result.n) == (0.0, 2)
    assert result.detail["forget_accuracy"] == pytest.approx(2.0 / 3.0)

    sets["holdout"] = holdout.subset([])
    alone = traces.draw_samples({**sets, "test": make_set("test", 30)}, "samples", (), seed=0)
    with pytest.raises(errors.InvalidDataError, match="no holdout sample"):
        traces.resurfacing(tuned(0, [0, 0, 1], []), None, alone)
