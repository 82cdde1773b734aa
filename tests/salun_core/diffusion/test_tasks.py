import pytest
import torch

from salun_core import errors, generation_specs, specs
from salun_core.diffusion import tasks
from tests.salun_core.diffusion import tiny


def concept(phrase: str, replacement: str, prompts: tuple[str, ...] = ()) -> specs.ConceptTarget:
    return specs.ConceptTarget(
        kind="concept", concept=phrase, replacement=replacement, prompts=prompts
    )


@pytest.mark.parametrize(
    ("text", "phrase", "named"),
    [
        ("a cat", "cat", True),
        ("A CAT.", "cat", True),
        ("cat-like", "cat", True),
        ("a category", "cat", False),
        ("a bobcat", "cat", False),
        ("van  gogh at night", "Van Gogh", True),
        ("van\ngogh", "van gogh", True),
        ("gogh van", "van gogh", False),
        ("made in C++", "c++", True),
        ("made in C", "c++", False),
        ("version 1x0", "1.0", False),
        ("ein Café am Platz", "café", True),
        ("(cat)", "(cat)", True),
    ],
)
def test_phrases_are_whole_words_in_any_case(text: str, phrase: str, named: bool) -> None:
    assert tasks.names(text, phrase) is named


@pytest.mark.parametrize(
    ("text", "concepts", "expected"),
    [
        ("a Cat and a cat", [concept("cat", "dog")], "a dog and a dog"),
        ("a category", [concept("cat", "dog")], "dog"),
        ("a cat, a bird", [concept("cat", "dog"), concept("bird", "fish")], "a dog, a fish"),
        ("a red cat", [concept("cat", "dog"), concept("red cat", "fish")], "a fish"),
        ("in c++", [concept("c++", r"\1 \g<0> \d")], r"in \1 \g<0> \d"),
        (
            "something furry",
            [concept("cat", "dog"), concept("bear", "fish", ("Something  furry",))],
            "fish",
        ),
        (
            "something furry",
            [concept("dog", "bird"), concept("bear", "a dog", ("something furry",))],
            "a bird",
        ),
    ],
)
def test_concepts_are_replaced(
    text: str, concepts: list[specs.ConceptTarget], expected: str
) -> None:
    assert tasks.replace(text, concepts) == expected


def test_prompts_are_the_callers_or_templates() -> None:
    assert tasks.prompts_of(concept("cat", "dog", ("my cat",))) == ("my cat",)
    assert tasks.prompts_of(concept("{x}", "dog"))[1] == "a {x}"


def test_any_kept_class_stands_in_for_a_forgotten_one() -> None:
    data = tiny.class_data(tiny.by_class())
    assert data.forget.texts == ("circle",)
    anchors = data.anchors_of(torch.zeros(64, dtype=torch.int64), torch.Generator().manual_seed(0))
    assert set(anchors.tolist()) == {1, 2}


def test_a_caption_is_anchored_to_itself_with_the_replacement() -> None:
    generator = tiny.by_text()
    data = tiny.concept_data(generator)
    assert data.forget.texts == ("a red circle", "picture of a blue circle")
    expected = generator.conditions(["a red square", "picture of a blue square"])
    assert torch.equal(data.anchors, expected)
    assert len(data.forget) == 12


def test_a_concept_that_no_sample_names_is_drawn() -> None:
    generator = tiny.by_text()
    data = tasks.of_concepts(
        generator,
        tiny.captioned([], "forget"),
        tiny.captioned(["a blue cross"], "retain"),
        [concept("circle", "square")],
        generation_specs.Sampling(steps=1, guidance_scale=1.0),
    )
    assert data.forget.texts == tuple(
        sorted(template.format("circle") for template in tasks.TEMPLATES)
    )
    assert "a square" in data.retain.texts
    assert len(data.retain) == 1 + len(data.forget)


def test_kept_samples_of_an_anchors_text_stand_in_for_what_is_forgotten() -> None:
    """Two texts become "a square", two "a red square": the samples of each are theirs in turn."""
    generator = tiny.by_text()
    texts = ["a square", "a red square", "A  square", "a blue cross", "a red square", "a square"]
    kept = tiny.captioned(texts, "retain")
    data = tasks.of_concepts(
        generator,
        tiny.captioned(["a circle", "a cross", "a red circle", "a red cross"], "forget"),
        tiny.captioned(["a green square"], "others"),
        [concept("circle", "square"), concept("cross", "square")],
        generation_specs.Sampling(steps=1, guidance_scale=1.0),
        stand_ins=kept,
    )
    found = data.stand_ins
    assert found is not None
    assert found.texts == ("a circle", "a cross", "a red circle", "a red cross")
    assert found.rows.tolist() == [0, 2, 1, 3, 0]
    shown = kept.pictures[torch.tensor([0, 1, 2, 4, 5])]
    assert torch.equal(found.latents, generator.encode(shown))
    assert len(data.retain) == 1


def test_a_sample_without_a_stand_in_stands_in_for_itself() -> None:
    generator = tiny.by_text()
    data = tasks.of_concepts(
        generator,
        tiny.captioned(["a circle", "a red circle", "a circle"], "forget"),
        tiny.captioned(["a green square"], "retain"),
        [concept("circle", "square")],
        generation_specs.Sampling(steps=1, guidance_scale=1.0),
        stand_ins=tiny.captioned(["a square", "a square"], "others"),
    )
    assert data.stand_ins is not None
    found = data.stand_ins_of(torch.tensor([1, 0] * 20), torch.Generator().manual_seed(0))
    assert torch.equal(found[::2], data.forget.latents[[1] * 20])
    both = {latent.numpy().tobytes() for latent in data.stand_ins.latents}
    assert {latent.numpy().tobytes() for latent in found[1::2]} == both


@pytest.mark.parametrize("wanted", [True, False])
def test_stand_ins_that_nobody_has_are_drawn_where_they_are_needed(wanted: bool) -> None:
    generator = tiny.by_text()
    kept = tiny.captioned(["a blue cross"], "retain")
    drawn: list[tuple[int, int]] = []
    data = tasks.of_concepts(
        generator,
        tiny.captioned(["a circle"], "forget"),
        kept,
        [concept("circle", "square")],
        generation_specs.Sampling(steps=3, guidance_scale=1.0),
        stand_ins=kept if wanted else None,
        report=lambda step, total: drawn.append((step, total)),
    )
    assert (data.stand_ins is not None) is wanted
    if data.stand_ins is not None:
        assert len(data.stand_ins) == 64
        assert set(data.stand_ins.rows.tolist()) == {0}
    assert ((1, 3) in drawn) is wanted  # whoever waits can be told, and can stop it
    assert len(data.retain) == 1


def test_of_several_concepts_those_without_a_stand_in_are_drawn() -> None:
    generator = tiny.by_text()
    kept = tiny.captioned(["a square", "a square"], "retain")
    data = tasks.of_concepts(
        generator,
        tiny.captioned(["a circle", "a blue cross", "a red cross"], "forget"),
        kept,
        [concept("circle", "square"), concept("cross", "picture")],
        generation_specs.Sampling(steps=1, guidance_scale=1.0),
        stand_ins=kept,
    )
    found = data.stand_ins
    assert found is not None
    assert found.texts == ("a blue cross", "a circle", "a red cross")
    assert torch.bincount(found.rows, minlength=3).tolist() == [32, 2, 32]


def test_replacements_that_lead_back_are_refused() -> None:
    round_and_round = [concept("cat", "dog"), concept("dog", "cat")]
    with pytest.raises(errors.InvalidDataError, match="lead back"):
        tasks.replace("a cat", round_and_round)
    onward = [concept("flat", "twemoji"), concept("twemoji", "noto")]
    assert tasks.replace("a flat bear", onward) == "a noto bear"
