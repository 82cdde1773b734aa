from collections.abc import Callable

import pytest
import torch

from salun_core import errors, masked_step, masks, saliency, weights

LEARNING_RATE, MOMENTUM, DECAY = 0.1, 0.9, 0.05


def half_mask(net: torch.nn.Module, seed: int = 0) -> masks.SaliencyMask:
    generator = torch.Generator().manual_seed(seed)
    return saliency.mask_from_magnitudes(
        {name: torch.rand(p.shape, generator=generator) for name, p in net.named_parameters()}, 0.5
    )


def give_gradients(net: torch.nn.Module, step: int) -> None:
    generator = torch.Generator().manual_seed(100 + step)
    for parameter in net.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def test_steps_are_those_of_a_slow_reference(
    random_net: Callable[[int], torch.nn.Module],
) -> None:
    """v ← μ v + m ⊙ (g + λ θ); θ ← m ⊙ (θ − η v) + (1 − m) ⊙ θo, one weight array at a time."""
    net = random_net(0)
    mask = half_mask(net)
    original = masked_step.copy_state(net)
    slow = {name: p.detach().clone() for name, p in net.named_parameters()}
    velocity = {name: torch.zeros_like(p) for name, p in slow.items()}
    optimizer = masked_step.MaskedOptimizer(net, mask, momentum=MOMENTUM, weight_decay=DECAY)
    for step in range(4):
        give_gradients(net, step)
        for name, p in net.named_parameters():
            assert p.grad is not None
            m = mask.layer(name).float()
            velocity[name] = MOMENTUM * velocity[name] + m * (p.grad + DECAY * slow[name])
            moved = slow[name] - LEARNING_RATE * velocity[name]
            slow[name] = m * moved + (1.0 - m) * original[name]
        optimizer.step(LEARNING_RATE)
    for name, p in net.named_parameters():
        torch.testing.assert_close(p.detach(), slow[name], atol=1e-6, rtol=1e-5)


def test_decay_and_momentum_leave_frozen_weights_bit_identical(
    random_net: Callable[[int], torch.nn.Module],
) -> None:
    net = random_net(0)
    with torch.no_grad():
        next(net.parameters()).reshape(-1)[:20] = -0.0  # a sum with +0.0 would flip the sign bit
    mask = half_mask(net)
    original = masked_step.copy_state(net)
    optimizer = masked_step.MaskedOptimizer(net, mask, momentum=MOMENTUM, weight_decay=DECAY)
    for step in range(5):
        give_gradients(net, step)
        next(net.parameters()).grad[~mask.layer(next(iter(mask.shapes)))] = float("inf")  # type: ignore[index]
        optimizer.step(LEARNING_RATE)
    masked_step.assert_frozen_unchanged(original, net, mask)
    for name, p in net.named_parameters():
        changed = (weights.bits(p) != weights.bits(original[name])).reshape(-1, 4).any(axis=1)
        salient = mask.layer(name).reshape(-1).numpy()
        assert not (changed & ~salient).any()
        assert changed[salient].mean() > 0.99 or not salient.any()


def test_without_a_mask_it_is_torch_sgd(random_net: Callable[[int], torch.nn.Module]) -> None:
    ours, theirs = random_net(0), random_net(0)
    optimizer = masked_step.MaskedOptimizer(ours, None, momentum=MOMENTUM, weight_decay=DECAY)
    reference = torch.optim.SGD(
        theirs.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM, weight_decay=DECAY
    )
    for step in range(3):
        give_gradients(ours, step)
        give_gradients(theirs, step)
        optimizer.step(LEARNING_RATE)
        reference.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-7, rtol=1e-6)


def test_one_changed_frozen_weight_is_found(
    random_net: Callable[[int], torch.nn.Module],
) -> None:
    net = random_net(0)
    mask = half_mask(net)
    original = masked_step.copy_state(net)
    name, parameter = next(iter(net.named_parameters()))
    frozen = int((~mask.layer(name).reshape(-1)).nonzero()[0])
    with torch.no_grad():
        flat = parameter.view(-1)
        flat[frozen] = torch.nextafter(flat[frozen], torch.tensor(10.0))  # the last bit
    with pytest.raises(errors.FrozenWeightChangedError, match=rf"got 1 .*{name} \(1\)"):
        masked_step.assert_frozen_unchanged(original, net, mask)


def test_sign_of_zero_counts(random_net: Callable[[int], torch.nn.Module]) -> None:
    net = random_net(0)
    mask = half_mask(net)
    name, parameter = next(iter(net.named_parameters()))
    frozen = int((~mask.layer(name).reshape(-1)).nonzero()[0])
    with torch.no_grad():
        parameter.view(-1)[frozen] = 0.0
        original = masked_step.copy_state(net)
        parameter.view(-1)[frozen] = -0.0
    assert masked_step.changed_frozen_weights(original, net, mask, ()) == {name: 1}


def test_buffers_must_be_declared(random_net: Callable[[int], torch.nn.Module]) -> None:
    net = random_net(0)
    original = masked_step.copy_state(net)
    dict(net.named_buffers())["bn1.running_mean"].add_(1.0)
    assert "bn1.running_mean" in masked_step.changed_frozen_weights(original, net, None, ())
    masked_step.assert_frozen_unchanged(original, net, None, ("bn1.running_mean",))


def test_mask_of_another_net_is_refused(random_net: Callable[[int], torch.nn.Module]) -> None:
    with pytest.raises(errors.InvalidDataError, match="another net"):
        masked_step.MaskedOptimizer(torch.nn.Linear(2, 2), half_mask(random_net(0)))


def test_momentum_can_be_taken_up(random_net: Callable[[int], torch.nn.Module]) -> None:
    nets = random_net(0), random_net(0)
    mask = half_mask(nets[0])
    first, second = (masked_step.MaskedOptimizer(n, mask, momentum=MOMENTUM) for n in nets)
    for net in nets:
        give_gradients(net, 0)
    first.step(LEARNING_RATE)
    second.step(LEARNING_RATE)
    third = masked_step.MaskedOptimizer(nets[1], mask, momentum=MOMENTUM)
    third.load_state_tensors({k: v.clone() for k, v in second.state_tensors().items()})
    for net in nets:
        give_gradients(net, 1)
    first.step(LEARNING_RATE)
    third.step(LEARNING_RATE)
    for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(errors.InvalidDataError, match="momentum"):
        third.load_state_tensors({})
