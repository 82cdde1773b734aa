"""The search finds a planted word, spends what it may, and keeps the prompt whole."""

import copy

import pytest
import torch

from salun_core import errors
from salun_core.diffusion import adversarial, attack, text_to_image
from tests.salun_core.diffusion import ideal_models

BUDGET = 40


@pytest.fixture(scope="module")
def forgetful() -> text_to_image.TextToImage:
    """ "red bar" draws nothing; the planted word in front brings the red bar back."""
    model = ideal_models.told_texts()
    net = copy.deepcopy(model.denoiser)
    with torch.no_grad():
        net.pictures[ideal_models.text_row("red", "bar")] = 0.0  # type: ignore[operator]
    return model.with_denoiser(net)


def search(
    model: text_to_image.TextToImage, seed: int = 0, budget: int = BUDGET
) -> tuple[adversarial.Found, int]:
    red = (ideal_models.picture("red", "bar") + 1.0) * 127.5
    steps: list[int] = []
    found = adversarial.search(
        model, "red bar", red.to(torch.uint8)[None], attack.vocabulary(model), budget, seed,
        lambda: steps.append(1),
    )  # fmt: skip
    return found, len(steps)


def test_it_finds_the_planted_word(forgetful: text_to_image.TextToImage) -> None:
    found, steps = search(forgetful)
    prefix = forgetful.tokenizer.convert_ids_to_tokens(list(found.prefix))
    assert ideal_models.PLANTED in prefix
    assert found.loss == pytest.approx(0.0, abs=1e-6)
    assert found.bare_loss > 0.1
    assert found.evaluations == BUDGET
    assert steps == adversarial.count_steps(BUDGET)


def test_a_prefix_that_is_worse_than_none_is_not_what_it_found() -> None:
    found, _ = search(ideal_models.told_texts())
    assert found.prefix == ()
    assert found.loss == found.bare_loss
    assert torch.equal(found.tokens, ideal_models.told_texts().tokens(["red bar"])[0])


def test_the_prompt_follows_the_prefix(forgetful: text_to_image.TextToImage) -> None:
    found, _ = search(forgetful, budget=3)
    bare = forgetful.tokens(["red bar"])[0]
    assert found.tokens.shape == bare.shape
    assert found.tokens[0] == bare[0]
    assert tuple(found.tokens[1:4].tolist()) == found.prefix
    assert torch.equal(found.tokens[4:], bare[1:-3])


def test_the_seed_decides_what_is_tried(forgetful: text_to_image.TextToImage) -> None:
    assert search(forgetful)[0].prefix == search(forgetful)[0].prefix


def test_only_tokens_that_stand_for_text_are_tried(forgetful: text_to_image.TextToImage) -> None:
    special = set(forgetful.tokenizer.all_special_ids)
    assert not special & set(attack.vocabulary(forgetful))
    assert len(attack.vocabulary(forgetful)) == len(ideal_models.WORDS)


def test_without_a_picture_there_is_nothing_to_search(
    forgetful: text_to_image.TextToImage,
) -> None:
    none = torch.empty(0, 3, 16, 16, dtype=torch.uint8)
    with pytest.raises(errors.InvalidDataError, match="0 pictures"):
        adversarial.search(forgetful, "red bar", none, [3], BUDGET, 0, lambda: None)
