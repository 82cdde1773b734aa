import dataclasses
from typing import Any

import pytest
import torch

from salun_core import errors, masks, modes, randomness
from salun_core.diffusion.unlearn import methods, parts
from tests.salun_core.diffusion import tiny, two_weights


def test_steps_on_two_weights_are_those_worked_out_by_hand() -> None:
    """With w₁ frozen, p − target = w₂c − w₂ₒc′ = 2w₂ − 0.5, whatever the noise.

    The first loss is (2 · 0.5 − 0.5)² = 0.25. Its gradient, 2 · 0.5 · 2 = 2, makes Adam's first
    step −0.1: w₂ = 0.4, the second loss 0.3² = 0.09, its gradient 2 · 0.3 · 2 = 1.2. Then
    m = (0.9 · 0.2 + 0.1 · 1.2) / (1 − 0.81) = 0.3 / 0.19,
    v = (0.999 · 0.004 + 0.001 · 1.44) / (1 − 0.998001) = 0.005436 / 0.001999,
    and the second step is −0.1 · m / √v.
    """
    generator = two_weights.TwoWeights()
    data = two_weights.two_becomes_one(generator)
    mask = masks.parameters_mask(generator.denoiser, lambda name: name == "w2")
    spec = tiny.spec(
        steps=2, learning_rate=0.1, decay="constant", retain_weight=0.0, weight_average=0.0
    )
    result = methods.unlearn(generator, data, mask, spec)
    net: Any = generator.denoiser
    second = 0.1 * (0.3 / 0.19) / (0.005436 / 0.001999) ** 0.5
    assert net.w2.item() == pytest.approx(0.4 - second, abs=1e-6)
    assert net.w1.item() == two_weights.W1
    assert [part.forget for part in result.losses] == pytest.approx([0.25, 0.09], abs=1e-6)


def test_the_retain_term_counts_by_its_weight() -> None:
    """Two steps with both weights free; the loss of a part is the mean of (w₁x + w₂c − target)².

    Its gradients are the means of 2(w₁x + w₂c − target)x and 2(w₁x + w₂c − target)c, those of the
    retain part three times. Adam: m = 0.9m + 0.1g, v = 0.999v + 0.001g², and step t moves by
    −0.1 · m/(1 − 0.9ᵗ) / √(v/(1 − 0.999ᵗ)).
    """
    generator = two_weights.TwoWeights()
    data = two_weights.two_becomes_one(generator)
    spec = tiny.spec(
        steps=2, learning_rate=0.1, decay="constant", retain_weight=3.0, weight_average=0.0
    )
    drawn = parts.Parts(generator, data, spec, parts.frozen_copy(generator))
    result = methods.unlearn(generator, data, None, spec)
    w = torch.tensor([two_weights.W1, two_weights.W2], dtype=torch.float64)
    m, v = torch.zeros_like(w), torch.zeros_like(w)
    losses = []
    for step in (1, 2):
        random = randomness.generator(spec.seed, "step", step - 1)
        both = drawn.anchored(64, random), drawn.retain(random)
        gradient = torch.zeros_like(w)
        for part, weight in zip(both, (1.0, 3.0), strict=True):
            told = torch.stack([part.noised.latents.flatten(), part.conditions.flatten()]).double()
            wrong = w @ told - part.target.flatten()
            losses.append(weight * wrong.square().mean().item())
            gradient += weight * (2 * wrong * told).mean(1)
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient.square()
        w -= 0.1 * m / (1 - 0.9**step) / (v / (1 - 0.999**step)).sqrt()
    assert [p.item() for p in generator.denoiser.parameters()] == pytest.approx(w.tolist())
    found = [loss for part in result.losses for loss in (part.forget, part.retain)]
    assert found == pytest.approx(losses)


@pytest.mark.parametrize(("share", "told"), [(0.0, {1.0}), (0.5, {0.0, 1.0}), (1.0, {0.0})])
def test_of_the_retain_batch_a_share_is_learnt_without_a_condition(
    share: float, told: set[float]
) -> None:
    generator = two_weights.TwoWeights()
    data = two_weights.two_becomes_one(generator)
    drawn = parts.Parts(generator, data, tiny.spec(condition_drop=share))
    part = drawn.retain(torch.Generator().manual_seed(0))
    assert set(part.conditions.tolist()) == told
    assert torch.equal(part.target, part.noised.target)


def test_a_model_without_a_null_condition_is_told_all_of_them() -> None:
    generator = dataclasses.replace(tiny.by_class(), null_class=None)
    data = tiny.class_data(generator)
    drawn = parts.Parts(generator, data, tiny.spec(condition_drop=1.0))
    assert set(drawn.retain(torch.Generator().manual_seed(0)).conditions.tolist()) == {1, 2}


def test_the_fixed_point_is_the_others_prediction() -> None:
    """w₂ · 2 = w₂ₒ · 1, so w₂ = 0.25."""
    generator = two_weights.TwoWeights()
    mask = masks.parameters_mask(generator.denoiser, lambda name: name == "w2")
    spec = tiny.spec(steps=200, learning_rate=0.02, retain_weight=0.0, weight_average=0.0)
    methods.unlearn(generator, two_weights.two_becomes_one(generator), mask, spec)
    net: Any = generator.denoiser
    assert net.w2.item() == pytest.approx(0.25, abs=0.01)


def test_the_teacher_gets_no_gradient_and_does_not_move() -> None:
    generator = tiny.by_class()
    data, spec = tiny.class_data(generator), tiny.spec()
    teacher = parts.frozen_copy(generator)
    drawn = parts.Parts(generator, data, spec, teacher)
    part = drawn.anchored(64, torch.Generator().manual_seed(0))
    assert not part.target.requires_grad
    (loss,) = drawn.losses(part)
    loss.mean().backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is None for p in teacher.denoiser.parameters())
    with modes.own_gradients(generator.denoiser), torch.no_grad():
        for parameter in generator.denoiser.parameters():
            parameter.add_(1.0)
    again = drawn.anchored(64, torch.Generator().manual_seed(0))
    assert torch.equal(part.target, again.target)


def test_away_lies_on_the_far_side_of_what_is_said_without_a_condition() -> None:
    """ε(x|c) = w₁x + w₂c and ε(x) = w₁x, so with η = 2 the target is w₁x − 2 w₂c."""
    generator = two_weights.TwoWeights()
    data = two_weights.two_becomes_one(generator)
    drawn = parts.Parts(generator, data, tiny.spec(), parts.frozen_copy(generator))
    part = drawn.away(4, torch.Generator().manual_seed(0))
    told = part.conditions.reshape(-1, 1, 1, 1)
    assert bool((told != 0.0).all())
    expected = two_weights.W1 * part.noised.latents - 2.0 * two_weights.W2 * told
    assert torch.allclose(part.target, expected)


def test_spread_shows_kept_samples_under_the_forgotten_condition() -> None:
    generator = two_weights.TwoWeights()
    data = two_weights.two_becomes_one(generator)
    part = parts.Parts(generator, data, tiny.spec()).spread(4, torch.Generator().manual_seed(0))
    assert torch.equal(
        part.conditions, data.forget.table[:1].expand(4, *data.forget.table.shape[1:])
    )
    assert torch.equal(part.target, part.noised.target)


def test_stand_ins_are_predicted_as_under_their_own_condition() -> None:
    """Pictures of "one" under "two" = 2: the target is w₁x + w₂ · 1, whatever the noise."""
    generator = two_weights.TwoWeights()
    data = two_weights.two_becomes_one(generator)
    drawn = parts.Parts(generator, data, tiny.spec(), parts.frozen_copy(generator))
    part = drawn.replaced(4, torch.Generator().manual_seed(0))
    assert part.conditions.tolist() == [2.0] * 4
    expected = two_weights.W1 * part.noised.latents + two_weights.W2
    assert torch.allclose(part.target, expected)


def test_replacement_comes_to_the_same_fixed_point_on_pictures_of_the_other() -> None:
    """w₂ · 2 = w₂ₒ · 1, so w₂ = 0.25, though but one picture in five is a forgotten one."""
    generator = two_weights.TwoWeights()
    mask = masks.parameters_mask(generator.denoiser, lambda name: name == "w2")
    spec = tiny.spec(
        targets="replacement", steps=200, learning_rate=0.02, retain_weight=0.0, weight_average=0.0
    )
    methods.unlearn(generator, two_weights.two_becomes_one(generator), mask, spec)
    net: Any = generator.denoiser
    assert net.w2.item() == pytest.approx(0.25, abs=0.01)


def test_replacement_targets_need_stand_ins() -> None:
    generator = tiny.by_class()
    data = tiny.class_data(generator)
    with pytest.raises(errors.InvalidDataError, match="drawn instead"):
        methods.unlearn(generator, data, None, tiny.spec(targets="replacement", mask="none"))


def test_parts_that_follow_the_original_need_it() -> None:
    generator = two_weights.TwoWeights()
    drawn = parts.Parts(generator, two_weights.two_becomes_one(generator), tiny.spec())
    with pytest.raises(errors.InvalidInputError, match="expected the frozen original"):
        drawn.anchored(64, torch.Generator().manual_seed(0))


def matched(forgotten: str, unseen: str, retain_weight: float = 0.0) -> float:
    """w₂ after matching, w₁ being frozen; both sets show the same latents, whose mean is 0."""
    generator = two_weights.TwoWeights()
    data = dataclasses.replace(
        two_weights.two_becomes_one(generator),
        forget=two_weights.encoded(generator, forgotten, [0.6, -0.6]),
        holdout=two_weights.encoded(generator, unseen, [0.6, -0.6]),
    )
    mask = masks.parameters_mask(generator.denoiser, lambda name: name == "w2")
    spec = tiny.spec(
        targets="matched", steps=100, learning_rate=0.02, retain_weight=retain_weight,
        weight_average=0.0, forget_batch_size=4096,
    )  # fmt: skip
    methods.unlearn(generator, data, mask, spec)
    return generator.denoiser.get_parameter("w2").item()


def test_matched_targets_raise_the_loss_to_the_level_and_no_further() -> None:
    """With c = 1 the loss is E(w₁x − ε)² + w₂²; with c = 2 the original's was 0.5² · 4 = 1 above.

    So w₂ comes to 1, and a little above it, as batches go on asking for more by chance and Adam's
    moments fade: by 0.13 to 0.16 with five seeds. Unstopped it would come to 0.5 + 50 · 0.02 = 1.5.
    """
    assert 1.0 <= matched("one", unseen="two") < 1.25


def test_matched_targets_leave_what_is_above_the_level() -> None:
    assert matched("two", unseen="one") == two_weights.W2
    assert matched("two", unseen="one", retain_weight=1.0) < two_weights.W2  # 0 would predict best


def test_matched_targets_need_unseen_samples() -> None:
    generator = two_weights.TwoWeights()
    with pytest.raises(errors.InvalidDataError, match="never trained on"):
        methods.unlearn(
            generator,
            two_weights.two_becomes_one(generator),
            None,
            tiny.spec(targets="matched", mask="none"),
        )
