from typing import Any

import pytest
import torch

from salun_core import free_weights, masks, randomness
from salun_core.diffusion import denoising
from salun_core.diffusion.unlearn import loop, methods, selective_amnesia
from tests.salun_core.diffusion import tiny, two_weights


def test_fisher_is_the_mean_of_squared_gradients_of_batches() -> None:
    """∂/∂w₁ of (w₁x + w₂c − ε)² is 2(p − ε)x, ∂/∂w₂ is 2(p − ε)c; B · E[(their batch means)²]."""
    generator = two_weights.TwoWeights()
    kept = two_weights.two_becomes_one(generator).retain
    spec = tiny.spec(retain_batch_size=128)
    free = free_weights.FreeWeights(generator.denoiser, None)
    found = selective_amnesia.fisher_diagonal(generator, kept, free, spec)

    schedule, random = denoising.Schedule(generator), randomness.generator(spec.seed, "fisher")
    expected = torch.zeros(2, dtype=torch.float64)
    for _ in range(8):  # 1,024 samples
        rows = loop.choose(len(kept), 128, random)
        noised = schedule.noise(kept.latents[rows], random)
        x, noise = noised.latents.flatten().double(), noised.target.flatten().double()
        wrong = two_weights.W1 * x + two_weights.W2 * 1.0 - noise
        gradient = torch.stack([(2 * wrong * x).mean(), (2 * wrong * 1.0).mean()])
        expected += 128 / 8 * gradient.square()
    assert found["w1"].item() == pytest.approx(expected[0].item(), rel=1e-4)
    assert found["w2"].item() == pytest.approx(expected[1].item(), rel=1e-4)
    assert all(parameter.grad is None for parameter in generator.denoiser.parameters())


def test_a_frozen_weight_has_no_information() -> None:
    generator = two_weights.TwoWeights()
    mask = masks.parameters_mask(generator.denoiser, lambda name: name == "w2")
    free = free_weights.FreeWeights(generator.denoiser, mask)
    kept = two_weights.two_becomes_one(generator).retain
    assert set(selective_amnesia.fisher_diagonal(generator, kept, free, tiny.spec())) == {"w2"}


def test_weights_drift_less_the_more_the_penalty_weighs() -> None:
    moved = [_moved(alpha) for alpha in (1e-6, 0.01, 1.0)]
    assert moved[0] > 1.5 * moved[1] > 6 * moved[2]


def test_it_learns_to_draw_noise_and_keeps_frozen_weights() -> None:
    generator = tiny.by_class()
    data = tiny.class_data(generator)
    spec = tiny.spec(
        method="selective_amnesia", mask="random", steps=16, alpha=0.01,
        learning_rate=5e-3, decay="constant",
    )  # fmt: skip
    result = methods.unlearn(generator, data, methods.mask_for(generator, data, spec), spec)
    first, last = result.losses[0], result.losses[-1]
    assert first.forget is not None
    assert last.forget is not None
    assert last.forget < 0.9 * first.forget


def _moved(alpha: float) -> float:
    generator = two_weights.TwoWeights()
    spec = tiny.spec(
        method="selective_amnesia", mask="none", alpha=alpha, steps=100, learning_rate=0.02,
        weight_average=0.0, forget_batch_size=256, retain_batch_size=256, retain_weight=0.0,
    )  # fmt: skip
    methods.unlearn(generator, two_weights.two_becomes_one(generator), None, spec)
    net: Any = generator.denoiser
    moved: float = abs(net.w2.item() - two_weights.W2) + abs(net.w1.item() - two_weights.W1)
    return moved
