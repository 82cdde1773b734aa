"""What is asked: everything that is kept about as often, nothing that is gone."""

from collections import Counter

import pytest

from salun_core import errors, phrases, specs
from salun_core.diffusion import questions, tasks
from tests.salun_core.diffusion import ideal_judges, ideal_models

TEXTS = ideal_models.captioned(2, 0).texts
RED = specs.ConceptTarget(kind="concept", concept="red", replacement="green")
RED_BAR = specs.ConceptTarget(kind="concept", concept="red bar", replacement="green bar")


def of(concept: specs.ConceptTarget, seed: int = 0) -> questions.Questions:
    captions = [text for text in TEXTS if phrases.names(text, concept.concept)]
    kept = [text for text in TEXTS if not phrases.names(text, concept.concept)]
    return questions.of_concepts(ideal_judges.of_words(), captions, kept, [concept], 12, seed)


def test_every_class_gets_as_many_pictures() -> None:
    asked = questions.of_class(["bar"], ["frame", "spot"], 4, previous=["ring"])
    assert asked.concepts == ("bar",)
    assert Counter(one.prompt for one in asked.kept) == {"frame": 4, "spot": 4}
    assert [one.subject for one in asked.previous] == ["ring"] * 4
    assert asked.unconditional == 8
    assert set(asked.by_name()) == {"forgotten", "kept", "previous"}


def test_a_class_cannot_be_kept_and_gone() -> None:
    with pytest.raises(errors.InvalidDataError, match="none on both sides"):
        questions.of_class(["bar"], ["bar", "spot"], 4)


def test_a_concept_is_asked_for_by_the_captions_that_name_it() -> None:
    asked = of(RED)
    assert {one.prompt for one in asked.forgotten} == {t for t in TEXTS if phrases.names(t, "red")}
    assert {one.subject for one in asked.forgotten} == {"red"}
    assert len(asked.forgotten) == 12


def test_kept_questions_name_nothing_gone_and_reach_every_term_alike() -> None:
    asked = of(RED)
    assert not any(phrases.names(one.prompt, "red") for one in asked.kept)
    judge = ideal_judges.of_words()
    counts = Counter(term for one in asked.kept for term in judge.terms_of(one.subject))
    assert set(counts) == set(judge.terms) - {"red"}
    assert len(asked.kept) == 96
    assert min(counts.values()) > 0.6 * max(counts.values())


def test_a_prompts_own_text_is_asked_for_as_forgotten_alone() -> None:
    """Neither "the blue spot" nor its like is kept, though neither says "red bar"."""
    asking = RED_BAR.model_copy(update={"prompts": ("the blue spot", "A  GREEN bar", "red frame")})
    kept = [*TEXTS, "the blue spot", "The Blue  spot", "a green bar", "red frame"]
    kept = [text for text in kept if not phrases.names(text, "red bar")]
    captions = ["a red bar", "the blue spot"]
    asked = questions.of_concepts(ideal_judges.of_words(), captions, kept, [asking], 12, 0)
    prompts = Counter(one.prompt for one in asked.forgotten)
    assert prompts == dict.fromkeys([*asking.prompts, "a red bar"], 3)
    for found in (asked.kept, asked.compositions):
        texts = {phrases.normal(one.prompt) for one in found}
        assert texts
        assert not texts & {"the blue spot", "a green bar", "red frame"}
    assert {one.prompt for one in asked.compositions} >= {"green bar", "a red frame"}


def test_paraphrases_have_other_words_and_new_company() -> None:
    prompts = {one.prompt for one in of(RED_BAR).paraphrases}
    assert {"bar red", "RED BAR", "a picture of red bar"} <= prompts
    assert {"bar red", "a red bar"} & {one.prompt for one in of(RED).paraphrases} != set()


def test_compositions_share_a_term_with_what_is_gone() -> None:
    found = {one.prompt.removeprefix("a ") for one in of(RED_BAR).compositions}
    assert found == {"red frame", "red spot", "green bar", "blue bar"}


def test_without_captions_templates_ask() -> None:
    asked = questions.of_concepts(ideal_judges.of_words(), [], TEXTS, [RED], 4, 0, ["blue"])
    assert {one.prompt for one in asked.forgotten} == set(tasks.prompts_of(RED))
    assert not any(phrases.names(one.prompt, "blue") for one in asked.kept)
    assert [one.prompt for one in asked.previous] == ["blue"] * 4
    assert not asked.compositions


def test_a_concept_that_the_judge_does_not_know_is_refused() -> None:
    unknown = specs.ConceptTarget(kind="concept", concept="Van Gogh", replacement="a painting")
    with pytest.raises(errors.InvalidDataError, match="upload a judge"):
        of(unknown)


def test_samples_leave_only_what_is_kept_to_be_asked() -> None:
    judge = ideal_judges.of_classes()
    asked = questions.of_samples(judge, ideal_models.labelled(1, 0).texts, 5, 0, ["bar"])
    assert Counter(one.prompt for one in asked.kept) == {"frame": 5, "spot": 5}
    assert not asked.forgotten


def test_the_seed_decides_the_order() -> None:
    assert of(RED) == of(RED)
    assert of(RED) != of(RED, seed=1)
