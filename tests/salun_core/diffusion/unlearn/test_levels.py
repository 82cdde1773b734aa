import pytest
import torch

from salun_core.diffusion import data, denoising
from salun_core.diffusion.unlearn import levels
from tests.salun_core.diffusion import two_weights

_LATENTS = [0.8, -0.6, 0.1]


def mixed(generator: two_weights.TwoWeights) -> data.EncodedSet:
    """Nine unseen samples for "one", three for "two", of the same latents."""
    latents = torch.tensor(_LATENTS * 4).reshape(-1, 1, 1, 1)
    rows = torch.tensor([0] * 9 + [1] * 3)
    return data.EncodedSet(latents, rows, generator.conditions(["one", "two"]), ("one", "two"))


def mean_level(unseen: data.EncodedSet, like: data.EncodedSet) -> float:
    generator = two_weights.TwoWeights()
    schedule = denoising.Schedule(generator)
    return levels.measure(generator, schedule, unseen, like, seed=0).means.mean().item()


@pytest.mark.parametrize("text", ["one", "two"])
def test_levels_are_those_of_unseen_samples_of_the_same_texts(text: str) -> None:
    """(w₂c)² is .25 for "one" and 1 for "two": far apart beside the spread of 5,120 draws."""
    generator = two_weights.TwoWeights()
    alone = two_weights.encoded(generator, text, _LATENTS)
    among_others = mean_level(mixed(generator), alone)
    assert among_others == pytest.approx(mean_level(alone, alone), abs=0.1)


def test_where_no_text_is_shared_all_unseen_samples_count_alike() -> None:
    generator = two_weights.TwoWeights()
    nothing = two_weights.encoded(generator, "", _LATENTS)
    ones, twos = (two_weights.encoded(generator, text, _LATENTS) for text in ("one", "two"))
    expected = 0.75 * mean_level(ones, nothing) + 0.25 * mean_level(twos, nothing)
    assert mean_level(mixed(generator), nothing) == pytest.approx(expected, abs=0.1)


def test_texts_that_no_unseen_sample_has_are_held_to_all_of_them() -> None:
    """Half of the forgotten ask for "one", half for what nobody unseen was asked for."""
    generator = two_weights.TwoWeights()
    latents = torch.tensor(_LATENTS * 2).reshape(-1, 1, 1, 1)
    texts = ("", "one")
    rows = torch.tensor([0, 0, 0, 1, 1, 1])
    like = data.EncodedSet(latents, rows, generator.conditions(list(texts)), texts)
    ones, twos = (two_weights.encoded(generator, text, _LATENTS) for text in ("one", "two"))
    of_all = 0.75 * mean_level(ones, ones) + 0.25 * mean_level(twos, twos)
    expected = 0.5 * mean_level(ones, ones) + 0.5 * of_all
    assert mean_level(mixed(generator), like) == pytest.approx(expected, abs=0.1)
