"""Which recipes a generator is unlearned by, and what pinning does to them."""

import pydantic
import pytest

from salun_core import generation_recipes, specs


def test_the_ladder_ends_in_retraining_where_that_may_be() -> None:
    ladder = generation_recipes.ladder("class", 100, 900, {})
    assert [(spec.method, spec.mask) for spec in ladder] == [
        ("salun", "saliency"),
        ("salun", "saliency"),
        ("salun", "none"),
        ("retrain", "none"),
    ]
    assert ladder[1].steps == ladder[2].steps == 2 * ladder[0].steps
    large = generation_recipes.ladder("class", 100, 900, {}, retrain=False)
    assert [spec.method for spec in large] == ["salun", "salun", "salun"]
    assert large[0].learning_rate < ladder[0].learning_rate
    assert large[0].weight_average == 0.0


def test_what_no_training_sample_shows_is_not_left_out_of_training() -> None:
    ladder = generation_recipes.ladder("concept", 0, 900, {})
    assert [spec.method for spec in ladder] == ["salun", "salun", "salun"]


def test_samples_are_matched_a_class_is_spread_and_a_concept_anchored() -> None:
    assert generation_recipes.first("samples", {}).targets == "matched"
    assert generation_recipes.first("class", {}).targets == "spread"
    assert generation_recipes.first("concept", {}).targets == "replacement"


@pytest.mark.parametrize(
    ("pinned", "methods"),
    [
        ({"method": "salun"}, ["salun", "salun", "salun"]),
        ({"method": "esd"}, ["esd"]),
        ({"steps": 2}, ["salun", "retrain"]),
        ({"density": 0.3}, ["salun", "salun", "retrain"]),
    ],
)
def test_no_rung_changes_what_is_pinned(pinned: dict[str, object], methods: list[str]) -> None:
    ladder = generation_recipes.ladder("concept", 100, 900, pinned)
    assert [spec.method for spec in ladder] == methods
    for spec in ladder:
        if spec.method != "retrain":
            assert pinned.items() <= spec.model_dump().items()


def test_fields_of_other_families_are_refused() -> None:
    with pytest.raises(pydantic.ValidationError, match="epochs"):
        generation_recipes.check({"epochs": 3})


def test_a_budget_of_steps_leaves_out_what_it_does_not_hold() -> None:
    """Rungs of 100, 200, 200 and 1,600 steps."""
    ladder = tuple(
        spec.model_copy(update={"steps": steps})
        for spec, steps in zip(
            generation_recipes.ladder("class", 9, 9, {}), (100, 200, 200, 1600), strict=True
        )
    )
    assert generation_recipes.within(ladder, 9, 9, 350) == ladder[:2]
    assert generation_recipes.within(ladder, 9, 9, 1700) == (*ladder[:3],)
    assert generation_recipes.within(ladder, 9, 9, 2100) == ladder
    assert [spec.steps for spec in generation_recipes.within(ladder, 9, 9, 40)] == [40]


def test_a_kept_recipe_reads_as_it_was() -> None:
    spec = generation_recipes.first("concept", {"method": "selective_amnesia"})
    assert generation_recipes.parse(spec.model_dump(mode="json")) == spec


def test_pinned_targets_that_a_kind_cannot_have_give_way_to_its_own() -> None:
    pinned = {"targets": "replacement", "steps": 7}
    kinds: tuple[specs.ForgetKind, ...] = ("samples", "class", "concept")
    found = {kind: generation_recipes.first(kind, pinned) for kind in kinds}
    assert {kind: spec.targets for kind, spec in found.items()} == {
        "samples": "matched", "class": "spread", "concept": "replacement",
    }  # fmt: skip
    assert {spec.steps for spec in found.values()} == {7}
