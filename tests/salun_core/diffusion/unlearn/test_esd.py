from typing import Any

import pytest
import torch

from salun_core import errors, masks
from salun_core.diffusion.unlearn import methods, parts
from tests.salun_core.diffusion import tiny, two_weights


def test_target_points_away_from_the_condition() -> None:
    """w₁z − η((w₁z + w₂c) − w₁z) = 0.25·4 − 3·(0.5·2) = −2 for z = 4, c = 2, η = 3."""
    target = parts.turned_away(
        two_weights.TwoWeights(),
        torch.full((1, 1, 1, 1), 4.0),
        torch.tensor([7]),
        torch.tensor([2.0]),
        torch.tensor([0.0]),
        3.0,
    )
    assert target.item() == -2.0


@pytest.mark.parametrize("eta", [1.0, 0.5])
def test_the_condition_comes_to_say_the_opposite(eta: float) -> None:
    """With w₁ frozen, p − target = w₂c + η w₂ₒc whatever z is: the minimum is w₂ = −η w₂ₒ.

    The first step's loss is ((1 + η) w₂ₒ c)² with w₂ₒ c = 1.
    """
    generator = two_weights.TwoWeights()
    mask = masks.parameters_mask(generator.denoiser, lambda name: name == "w2")
    spec = tiny.spec(
        method="esd", mask="none", steps=60, learning_rate=0.1, alpha=eta, weight_average=0.0
    )
    methods.unlearn(generator, two_weights.two_becomes_one(generator), mask, spec)
    net: Any = generator.denoiser
    assert net.w2.item() == pytest.approx(-eta * two_weights.W2, abs=0.05)
    assert net.w1.item() == two_weights.W1
    (once,) = methods.unlearn(
        other := two_weights.TwoWeights(),
        two_weights.two_becomes_one(other),
        mask,
        tiny.spec(method="esd", mask="none", steps=1, alpha=eta),
    ).losses
    assert once.forget == pytest.approx((1.0 + eta) ** 2, rel=1e-5)


def test_a_class_is_erased_under_a_mask() -> None:
    """``methods.unlearn`` proves that frozen weights keep their bits."""
    generator = tiny.by_class()
    data = tiny.class_data(generator)
    spec = tiny.spec(method="esd", steps=2, mask="random")
    mask = methods.mask_for(generator, data, spec)
    before = [p.detach().clone() for p in generator.denoiser.parameters()]
    methods.unlearn(generator, data, mask, spec)
    after = generator.denoiser.parameters()
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_model_without_a_null_class_is_refused() -> None:
    generator = tiny.by_class()
    generator.null_class = None
    with pytest.raises(errors.InvalidDataError, match="null class"):
        methods.unlearn(
            generator, tiny.class_data(generator), None, tiny.spec(method="esd", mask="none")
        )
