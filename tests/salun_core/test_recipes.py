"""Which recipes follow from what is to be forgotten, and what pinning does to them."""

import pydantic
import pytest

from salun_core import recipes, specs


def test_a_small_forget_set_gets_the_recipe_as_it_is() -> None:
    assert recipes.first("samples", 50, 950, {}).epochs == 8


def test_a_large_forget_set_gets_more_epochs() -> None:
    """2,000 retain samples are 32 steps of 64; 64 of 2,000 forget samples a step are 1.02 passes
    an epoch, so 12 passes take 12 epochs.
    """
    assert recipes.first("samples", 2000, 2000, {}).epochs == 12


def test_what_is_pinned_holds() -> None:
    spec = recipes.first("samples", 2000, 2000, {"epochs": 3, "learning_rate": 0.01})
    assert (spec.epochs, spec.learning_rate, spec.targets) == (3, 0.01, "matched")


def test_the_ladder_ends_in_retraining() -> None:
    ladder = recipes.ladder("class", 100, 900, {})
    assert [(spec.method, spec.mask) for spec in ladder] == [
        ("salun", "saliency"),
        ("salun", "saliency"),
        ("salun", "none"),
        ("retrain", "none"),
        ("retrain", "none"),
    ]
    assert ladder[1].epochs == ladder[2].epochs == 2 * ladder[0].epochs
    assert ladder[4].epochs == 3 * ladder[3].epochs


def test_a_large_share_is_retrained_first() -> None:
    ladder = recipes.ladder("samples", 500, 500, {})
    methods = ["retrain", "retrain", "salun", "salun", "salun"]
    assert [spec.method for spec in ladder] == methods
    assert recipes.ladder("samples", 500, 500, {"method": "salun"})[0].method == "salun"


@pytest.mark.parametrize(
    ("pinned", "methods"),
    [
        ({"method": "salun"}, ["salun", "salun", "salun"]),
        ({"method": "finetune"}, ["finetune"]),
        ({"epochs": 2}, ["salun", "retrain", "retrain"]),
        ({"density": 0.3}, ["salun", "salun", "retrain", "retrain"]),
    ],
)
def test_no_rung_changes_what_is_pinned(pinned: dict[str, object], methods: list[str]) -> None:
    ladder = recipes.ladder("samples", 100, 900, pinned)
    assert [spec.method for spec in ladder] == methods
    for spec in ladder:
        if spec.method != "retrain":
            assert pinned.items() <= spec.model_dump().items()


def test_retraining_takes_its_own_settings_unless_it_is_named() -> None:
    """Of what is pinned for unlearning it has the seed; its own rung has all that is pinned."""
    pinned = {"learning_rate": 0.001, "epochs": 2, "batch_size": 16, "seed": 7}
    own = specs.default_spec("samples", method="retrain", seed=7)
    _, short, long = recipes.ladder("samples", 100, 900, pinned)
    assert short == own
    assert long == own.model_copy(update={"epochs": long.epochs})
    (alone,) = recipes.ladder("samples", 100, 900, {**pinned, "method": "retrain"})
    assert alone == own.model_copy(update=pinned)


def test_every_epoch_sees_the_forget_set_as_far_as_a_batch_goes() -> None:
    assert recipes.forget_batch_size(forget_count=50, steps=15, batch_size=64) == 16
    assert recipes.forget_batch_size(forget_count=500, steps=15, batch_size=64) == 34
    assert recipes.forget_batch_size(forget_count=5000, steps=15, batch_size=64) == 64
    assert recipes.forget_batch_size(forget_count=3, steps=15, batch_size=64) == 3


def test_a_bad_recipe_is_told_whatever_is_to_be_forgotten() -> None:
    with pytest.raises(pydantic.ValidationError, match="learning_rate"):
        recipes.check({"learning_rate": -1.0})


def test_what_is_chosen_by_the_run_is_not_where_it_is_pinned() -> None:
    assert recipes.first("samples", 50, 950, {}).probe_rate
    assert recipes.first("samples", 50, 950, {}).early_stop
    assert not recipes.first("samples", 50, 950, {"learning_rate": 0.01}).probe_rate
    assert not recipes.first("samples", 50, 950, {"epochs": 4}).early_stop
    assert recipes.first("samples", 50, 950, {"epochs": 4, "early_stop": True}).early_stop
    paper = recipes.first("samples", 50, 950, {"targets": "random_label"})
    assert not paper.probe_rate
    assert not paper.early_stop


def test_a_second_try_takes_its_whole_length() -> None:
    first, second, third, *_ = recipes.ladder("samples", 50, 950, {})
    assert (first.early_stop, second.early_stop, third.early_stop) == (True, False, False)


def test_a_budget_of_steps_leaves_out_what_it_does_not_hold() -> None:
    """950 retain samples are 15 steps of 64: rungs of 120, 240, 240, 450 and 1350 steps."""
    ladder = recipes.ladder("samples", 50, 950, {})
    assert recipes.within(ladder, 50, 950, 359) == ladder[:1]
    assert recipes.within(ladder, 50, 950, 360) == ladder[:2]
    assert recipes.within(ladder[::-1], 50, 950, 700) == (ladder[3], ladder[2])
    assert recipes.within(ladder, 50, 950, 2400) == ladder
    (shortened,) = recipes.within(ladder, 50, 950, 50)
    assert shortened.epochs == 3
    assert recipes.count_steps(shortened, 50, 950) == 45


@pytest.mark.parametrize(
    ("method", "steps"),
    [("finetune", 10 * 8), ("gradient_ascent", 5 * 1), ("random_label", 10 * 5), ("influence", 1)],
)
def test_steps_of_a_run(method: str, steps: int) -> None:
    spec = recipes.first("samples", 50, 950, {"method": method})
    assert recipes.count_steps(spec, 50, 950) == steps
