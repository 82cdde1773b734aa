"""A judge recognises what it learnt, says how well, and knows what it does not know."""

from pathlib import Path

import pytest
import torch

from salun_core import architectures, errors, images, specs, weights
from salun_core.diffusion import data, judge, judge_training
from tests.salun_core.diffusion import ideal_judges, ideal_models

COLOUR_ONLY = {
    "architecture": "resnet18",
    "num_classes": 2,
    "label_names": ["Red", "green"],
    "model_args": {"layers": [1, 1, 1, 1], "channels": [4, 4, 4, 4]},
    "pretrained_cfg": {"input_size": [3, 8, 8], "mean": [0.5], "std": [0.5]},
}


@pytest.fixture(scope="module")
def of_words() -> judge.Judge:
    return ideal_judges.of_words()


@pytest.fixture(scope="module")
def of_classes() -> judge.Judge:
    return ideal_judges.of_classes()


def test_words_that_pictures_show_are_its_terms_and_others_are_not(of_words: judge.Judge) -> None:
    assert of_words.terms == tuple(sorted((*ideal_models.COLOURS, *ideal_models.SHAPES)))
    assert set(of_words.unknown) == {"a"}
    assert not of_words.unreliable()
    assert all(found["recall"] > 0.9 for found in of_words.held_out.values())


def test_it_recognises_a_concept_where_every_word_of_it_is_shown(of_words: judge.Judge) -> None:
    unseen = ideal_models.captioned(2, 2)
    pictures = unseen.pictures[:]
    shown = torch.tensor([text.endswith("red spot") for text in unseen.texts])
    assert torch.equal(of_words.recognises(pictures, "A picture of a RED spot"), shown)
    assert of_words.tell(pictures)[0] == ("bar", "red")
    assert of_words.probabilities(pictures).shape == (len(unseen), 6)
    assert of_words.features(pictures).shape == (len(unseen), 128)


def test_a_concept_without_a_known_word_is_refused(of_words: judge.Judge) -> None:
    with pytest.raises(errors.InvalidDataError, match="upload a judge"):
        of_words.recognises(ideal_models.captioned(1, 0).pictures[:], "a purple heart")
    assert not of_words.knows("purple")


def test_classes_exclude_each_other(of_classes: judge.Judge) -> None:
    unseen = ideal_models.labelled(2, 2)
    assert [names for (names,) in of_classes.tell(unseen.pictures[:])] == list(unseen.texts)
    assert set(of_classes.held_out) == {*ideal_models.SHAPES, judge.NOTHING}


def test_of_classes_it_may_be_none_and_that_is_no_term(of_classes: judge.Judge) -> None:
    """Unseen pictures made of two: most are refused, and no unmixed one is."""
    assert of_classes.may_refuse
    assert of_classes.terms == ideal_models.SHAPES
    assert not of_classes.knows(judge.NOTHING)
    unseen = ideal_models.labelled(6, 3)
    assert bool(of_classes.told(unseen.pictures[:]).any(dim=1).all())
    found = of_classes.held_out[judge.NOTHING]
    assert found["recall"] > 0.5
    assert found["specificity"] == 1.0


def test_pictures_of_no_class_are_two_laid_over_each_other_halves_or_quarters_moved() -> None:
    """2 × 2 pixels: minimum or maximum; one row or column of each; all four out of place."""
    first = torch.tensor([[0.0, 1.0], [2.0, 3.0]]).expand(3, 1, 2, 2)
    second = torch.tensor([[3.0, 0.0], [5.0, 1.0]]).expand(3, 1, 2, 2)
    random = torch.Generator().manual_seed(0)
    laid, halves, moved = judge_training.neither(first, second, random)[:, 0].tolist()
    assert laid in ([[0.0, 0.0], [2.0, 1.0]], [[3.0, 1.0], [5.0, 3.0]])
    assert halves in ([[0.0, 1.0], [5.0, 1.0]], [[0.0, 0.0], [2.0, 1.0]])
    assert moved == [[3.0, 2.0], [1.0, 0.0]]


def test_random_labels_leave_a_judge_that_is_called_unreliable() -> None:
    """Labels that have nothing to do with the pictures: balanced accuracy on unseen ones near ½."""
    known = ideal_models.labelled(8, 0)
    drawn = torch.randint(0, 3, (len(known),), generator=torch.Generator().manual_seed(0))
    texts = tuple(ideal_models.SHAPES[one] for one in drawn.tolist())
    noisy = data.CaptionedSet(known.pictures, texts, known.ids)
    made = judge_training.train(noisy, ideal_models.labelled(2, 1), exclusive=True, steps=25)
    assert set(made.unreliable()) >= set(ideal_models.SHAPES)


def test_the_same_seed_makes_the_same_judge() -> None:
    known, nothing = ideal_models.labelled(2, 0), ideal_models.labelled(2, 0).subset([])
    made = [
        judge_training.train(known, nothing, exclusive=True, seed=seed, steps=3)
        for seed in (0, 0, 1)
    ]
    first, again, other = (one.digest() for one in made)
    assert first == again != other


def test_a_judge_comes_back_from_its_file(of_words: judge.Judge, tmp_path: Path) -> None:
    of_words.to_file(tmp_path / "judge.safetensors")
    read = judge.from_file(tmp_path / "judge.safetensors")
    assert read.digest() == of_words.digest()
    pictures = ideal_models.captioned(1, 3).pictures[:]
    assert torch.equal(read.probabilities(pictures), of_words.probabilities(pictures))


def test_a_file_without_a_judge_is_refused(tmp_path: Path) -> None:
    weights.write(tmp_path / "other.safetensors", {"a": torch.zeros(1)})
    with pytest.raises(errors.InvalidConfigError, match="got no judge"):
        judge.from_file(tmp_path / "other.safetensors")


def test_a_given_classifier_judges_pictures_of_any_size() -> None:
    net = architectures.build(specs.parse_classifier_config(COLOUR_ONLY))
    several = judge.from_classifier({**COLOUR_ONLY, "multi_label": True}, net)
    assert several.terms_of("a green or red thing") == ("green", "red")
    one = judge.from_classifier(COLOUR_ONLY, net)
    assert one.exclusive
    assert not one.may_refuse
    assert one.told(ideal_models.captioned(1, 0).pictures[:]).sum() == 9


def test_a_given_classifier_must_name_its_outputs() -> None:
    bare = {key: value for key, value in COLOUR_ONLY.items() if key != "label_names"}
    net = architectures.build(specs.parse_classifier_config(bare))
    with pytest.raises(errors.InvalidConfigError, match="label_names"):
        judge.from_classifier(bare, net)


def test_captions_that_say_nothing_are_refused() -> None:
    known = ideal_models.labelled(2, 0)
    same = data.CaptionedSet(
        images.Pictures(known.pictures.shared, known.pictures.rows),
        tuple("a picture" for _ in known.texts),
        known.ids,
    )
    with pytest.raises(errors.InvalidDataError, match="at least two to tell apart"):
        judge_training.train(same, known, exclusive=False, steps=1)
