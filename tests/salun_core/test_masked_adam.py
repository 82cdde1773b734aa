import copy

import pytest
import torch

from salun_core import errors, masked_adam, masked_step, masks, saliency, weights


def make_net(seed: int = 0) -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Linear(6, 3))


def half_mask(net: torch.nn.Module) -> masks.SaliencyMask:
    random = torch.Generator().manual_seed(0)
    return saliency.mask_from_magnitudes(
        {name: torch.rand(p.shape, generator=random) for name, p in net.named_parameters()}, 0.5
    )


def give_gradients(net: torch.nn.Module, step: int) -> None:
    random = torch.Generator().manual_seed(100 + step)
    for parameter in net.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=random)


def test_without_a_mask_it_is_torch_adam() -> None:
    ours, theirs = make_net(), make_net()
    optimizer = masked_adam.MaskedAdam(ours, None)
    reference = torch.optim.Adam(theirs.parameters(), lr=0.05)
    for step in range(4):
        give_gradients(ours, step)
        give_gradients(theirs, step)
        optimizer.step(0.05)
        reference.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b)


def test_salient_weights_take_the_steps_that_they_take_without_a_mask() -> None:
    masked, free = make_net(), make_net()
    mask = half_mask(masked)
    optimizers = masked_adam.MaskedAdam(masked, mask), masked_adam.MaskedAdam(free, None)
    for step in range(4):
        for net, optimizer in zip((masked, free), optimizers, strict=True):
            give_gradients(net, step)
            optimizer.step(0.05)
    for (name, a), b in zip(masked.named_parameters(), free.parameters(), strict=True):
        salient = mask.layer(name)
        assert torch.equal(a[salient], b[salient])


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_frozen_weights_keep_their_bits(average: float) -> None:
    """-0.0 included, and infinite gradients of frozen weights notwithstanding."""
    net = make_net()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.reshape(-1)[::2] = -0.0
    mask = half_mask(net)
    original = masked_step.copy_state(net)
    optimizer = masked_adam.MaskedAdam(net, mask, weight_average=average)
    for step in range(5):
        give_gradients(net, step)
        for name, parameter in net.named_parameters():
            assert parameter.grad is not None
            parameter.grad[~mask.layer(name)] = float("inf")
        optimizer.step(0.05)
    optimizer.settle()
    masked_step.assert_frozen_unchanged(original, net, mask)
    for name, parameter in net.named_parameters():
        changed = masked_step.differing(original[name], parameter)
        assert changed[mask.layer(name).reshape(-1).numpy()].all()


def test_average_is_a_moving_one() -> None:
    """a ← d a + (1 − d) w from a = w₀, in the weights' place at the end."""
    net = make_net()
    optimizer = masked_adam.MaskedAdam(net, None, weight_average=0.75)
    slow = [p.detach().double() for p in net.parameters()]
    for step in range(3):
        give_gradients(net, step)
        optimizer.step(0.05)
        slow = [
            0.75 * a + 0.25 * p.detach().double()
            for a, p in zip(slow, net.parameters(), strict=True)
        ]
    optimizer.settle()
    for a, p in zip(slow, net.parameters(), strict=True):
        torch.testing.assert_close(p.detach().double(), a, atol=1e-6, rtol=1e-5)


def test_a_state_taken_up_goes_on_to_the_same_bits() -> None:
    undisturbed, resumed = make_net(), make_net()
    mask = half_mask(undisturbed)
    first = masked_adam.MaskedAdam(undisturbed, mask, weight_average=0.9)
    state = {}
    for step in range(4):
        give_gradients(undisturbed, step)
        first.step(0.05)
        if step == 1:
            state = copy.deepcopy(first.state_tensors())
    second = masked_adam.MaskedAdam(resumed, mask, weight_average=0.9)
    second.load_state_tensors(state)
    for step in (2, 3):
        give_gradients(resumed, step)
        second.step(0.05)
    first.settle()
    second.settle()
    for a, b in zip(undisturbed.parameters(), resumed.parameters(), strict=True):
        assert (weights.bits(a) == weights.bits(b)).all()


def test_the_state_of_another_net_is_refused() -> None:
    net = make_net()
    state = masked_adam.MaskedAdam(torch.nn.Linear(2, 2), None).state_tensors()
    with pytest.raises(errors.InvalidDataError, match="another net or mask"):
        masked_adam.MaskedAdam(net, None).load_state_tensors(state)
