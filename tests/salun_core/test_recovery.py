"""Relearning and fine-tuning against the same done slowly, and what they tell apart."""

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch.nn import functional

from salun_core import (
    errors,
    images,
    inference,
    preprocessing,
    recovery,
    weights,
)
from salun_core.metrics import accuracy
from salun_core.unlearn import contract


def nothing() -> None:
    """No one is told."""


def digests(net: torch.nn.Module) -> list[bytes]:
    return [weights.bits(tensor).tobytes() for tensor in net.state_dict().values()]


def length(tensors: list[torch.Tensor]) -> float:
    return math.sqrt(sum(float((t.detach().double() ** 2).sum()) for t in tensors))


def test_draw_is_seeded_ascending_and_small() -> None:
    first = recovery.draw(100, 10, 3, "panel")
    assert len(set(first.tolist())) == 10
    assert first.tolist() == sorted(first.tolist())
    assert torch.equal(first, recovery.draw(100, 10, 3, "panel"))
    assert not torch.equal(first, recovery.draw(100, 10, 3, "other"))
    assert recovery.draw(4, 10, 3, "panel").tolist() == [0, 1, 2, 3]
    assert recovery.draw(0, 10, 3, "panel").tolist() == []


def slow_relearning(net: torch.nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> int:
    """θ ← θ − .001 ‖θ‖ g/‖g‖ until every sample is right, parameter by parameter."""
    net = copy.deepcopy(net).eval()
    for step in range(recovery.RELEARN_STEPS):
        logits = net(inputs)
        if bool((logits.argmax(dim=1) == labels).all()):
            return step
        net.zero_grad()
        torch.autograd.backward(functional.cross_entropy(logits, labels))
        parameters = list(net.parameters())
        gradients = [p.grad.clone() for p in parameters if p.grad is not None]
        rate = 0.001 * length(list(parameters)) / length(gradients)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.sub_(rate * gradient)
    return recovery.RELEARN_STEPS


def without_class(net: torch.nn.Module, label: int, by: float) -> torch.nn.Module:
    """A copy whose bias for one class was cut."""
    cut = copy.deepcopy(net)
    with torch.no_grad():
        cut.get_parameter("fc.bias")[label] -= by
    return cut


@pytest.mark.parametrize("by", [0.0, 6.0, 12.0])
def test_relearning_is_normalised_gradient_descent(
    by: float,
    trained: torch.nn.Module,
    class_data: contract.UnlearningData,
    preprocess: preprocessing.Preprocessing,
) -> None:
    """The deeper the cut the longer the way back; the original needs no step."""
    net = without_class(trained, 2, by)
    before = digests(net)
    panel = class_data.forget_set
    calls: list[int] = []
    found = recovery.relearn_steps(net, panel, 1.0, preprocess, lambda: calls.append(1))
    assert found == slow_relearning(net, preprocess.normalise(panel.images[:]), panel.labels)
    assert (found == 0) == (by == 0.0)
    assert len(calls) == recovery.RELEARN_STEPS
    assert digests(net) == before
    assert all(parameter.grad is None for parameter in net.parameters())


def test_deeper_is_longer(
    trained: torch.nn.Module,
    class_data: contract.UnlearningData,
    preprocess: preprocessing.Preprocessing,
) -> None:
    steps = [
        recovery.relearn_steps(
            without_class(trained, 2, by), class_data.forget_set, 1.0, preprocess, nothing
        )
        for by in (4.0, 8.0, 16.0)
    ]
    assert 0 < steps[0] < steps[1] < steps[2] < recovery.RELEARN_STEPS


def test_what_takes_too_long_is_never(
    random_net: Callable[[int], torch.nn.Module],
    class_data: contract.UnlearningData,
    preprocess: preprocessing.Preprocessing,
) -> None:
    """Full marks are out of reach where one sample has another's picture and a label of its own."""
    twice = class_data.forget_set.subset([0, 1])
    pair = images.ImageSet(twice.images[torch.tensor([0, 0])], torch.tensor([0, 1]), twice.ids)
    steps = recovery.relearn_steps(random_net(0), pair, 1.0, preprocess, nothing)
    assert steps == recovery.RELEARN_STEPS


def test_what_is_wanted_may_be_less_than_all(
    trained: torch.nn.Module,
    class_data: contract.UnlearningData,
    preprocess: preprocessing.Preprocessing,
) -> None:
    net = without_class(trained, 2, 12.0)
    steps = [
        recovery.relearn_steps(net, class_data.forget_set, wanted, preprocess, nothing)
        for wanted in (0.0, 0.5, 1.0)
    ]
    assert steps[0] == 0
    assert steps[1] < steps[2]


def slow_tuning(
    net: torch.nn.Module, retain_set: images.ImageSet, preprocess: preprocessing.Preprocessing
) -> torch.nn.Module:
    """Two passes of torch's own SGD in train mode; no step here is long enough to be capped."""
    net = copy.deepcopy(net).train()
    optimizer = torch.optim.SGD(net.parameters(), lr=recovery.TUNING_RATE)
    for epoch in range(2):
        for rows in images.shuffled_batches(len(retain_set), 64, 5, "resurfacing", epoch):
            optimizer.zero_grad()
            logits = net(preprocess.normalise(retain_set.images[rows]))
            torch.autograd.backward(functional.cross_entropy(logits, retain_set.labels[rows]))
            optimizer.step()
    return net.eval()


def test_tuning_is_plain_sgd_on_a_copy(
    trained: torch.nn.Module,
    data: contract.UnlearningData,
    preprocess: preprocessing.Preprocessing,
) -> None:
    before = digests(trained)
    calls: list[int] = []
    found = recovery.tuned(trained, data.retain_set, preprocess, 5, lambda: calls.append(1))
    wanted = slow_tuning(trained, data.retain_set, preprocess)
    for name, tensor in wanted.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], tensor, rtol=1e-4, atol=1e-5)
    assert digests(trained) == before
    assert not found.training
    assert len(calls) == recovery.count_tuning_steps(data.retain_set) == 8
    again = recovery.tuned(trained, data.retain_set, preprocess, 5, nothing)
    assert digests(again) == digests(found)


def test_tuning_step_is_capped(
    random_net: Callable[[int], torch.nn.Module],
    data: contract.UnlearningData,
    preprocess: preprocessing.Preprocessing,
) -> None:
    """A head blown up a thousandfold has gradients that would throw any net; eight steps of at
    most .5 % move it by 4 % at most.
    """
    net = random_net(0)
    with torch.no_grad():
        net.get_parameter("fc.weight").mul_(1000.0)
    found = recovery.tuned(net, data.retain_set, preprocess, 0, nothing)
    moved = [a - b for a, b in zip(found.parameters(), net.parameters(), strict=True)]
    assert 0.0 < length(moved) <= 0.041 * length(list(net.parameters()))


def test_hidden_memory_comes_back(
    trained: torch.nn.Module,
    data: contract.UnlearningData,
    preprocess: preprocessing.Preprocessing,
) -> None:
    """Statistics shifted by half a standard deviation hide what the weights still hold."""
    net = copy.deepcopy(trained)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean += 0.5 * module.running_var.sqrt()

    def known(measured: torch.nn.Module) -> float:
        found = inference.answers(measured, data.forget_set, preprocess)
        return accuracy.accuracy(found.predicted, data.forget_set.labels)

    tuned = recovery.tuned(net, data.retain_set, preprocess, 0, nothing)
    assert known(net) < 0.6
    assert known(tuned) > 0.75


def test_net_that_is_not_finite_is_refused(
    trained: torch.nn.Module,
    class_data: contract.UnlearningData,
    preprocess: preprocessing.Preprocessing,
) -> None:
    net = without_class(trained, 2, float("inf"))
    with pytest.raises(errors.NonFiniteLossError, match="gradient of length"):
        recovery.relearn_steps(net, class_data.forget_set, 1.0, preprocess, nothing)
