import copy
from collections.abc import Callable

import pytest
import torch

from salun_core import batchnorm, errors


def statistics(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: buffer.clone() for name, buffer in net.named_buffers()}


def test_stored_statistics_stay(random_net: Callable[[int], torch.nn.Module]) -> None:
    net = random_net(0).train()
    before = statistics(net)
    with batchnorm.stored_statistics(net):
        net(torch.randn(8, 1, 12, 12) * 9)
    assert all(torch.equal(before[name], b) for name, b in net.named_buffers())
    assert all(module.training for module in net.modules())


def test_joint_batch_moves_the_averages_as_its_retain_rows_alone_do(
    random_net: Callable[[int], torch.nn.Module],
) -> None:
    joint, alone = random_net(0).train(), random_net(0).train()
    generator = torch.Generator().manual_seed(0)
    retain = torch.randn(8, 1, 12, 12, generator=generator)
    forget = torch.randn(4, 1, 12, 12, generator=generator) * 7 + 3
    with batchnorm.retain_statistics(8, 12):
        output = joint(torch.cat([retain, forget]))
    torch.testing.assert_close(output[:8], alone(retain), atol=1e-4, rtol=1e-4)
    for name, buffer in alone.named_buffers():
        torch.testing.assert_close(dict(joint.named_buffers())[name], buffer, atol=1e-5, rtol=1e-4)


def test_forget_rows_are_normalised_by_the_retain_rows() -> None:
    """By hand: (x − mean(retain)) / sqrt(var(retain) + eps) · weight + bias, gradients too."""
    layer = torch.nn.BatchNorm2d(3).train()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([1.0, 2.0, 0.5]))
        layer.bias.copy_(torch.tensor([0.0, -1.0, 4.0]))
    plain = copy.deepcopy(layer)
    inputs = torch.randn(6, 3, 2, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    with batchnorm.retain_statistics(4, 6):
        output = layer(inputs)
    mean = inputs[:4].mean(dim=(0, 2, 3), keepdim=True)
    variance = inputs[:4].var(dim=(0, 2, 3), unbiased=False, keepdim=True)
    shape = (1, 3, 1, 1)
    wanted = (inputs - mean) / (variance + plain.eps).sqrt()
    wanted = wanted * plain.weight.view(shape) + plain.bias.view(shape)
    torch.testing.assert_close(output, wanted, atol=1e-5, rtol=1e-4)
    upstream = torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
    found = torch.autograd.grad(output, [inputs, layer.weight, layer.bias], upstream)
    expected = torch.autograd.grad(wanted, [inputs, plain.weight, plain.bias], upstream)
    for own, slow in zip(found, expected, strict=True):
        torch.testing.assert_close(own, slow, atol=1e-5, rtol=1e-4)


def test_rows_that_are_tokens_count_for_their_sample() -> None:
    """Three tokens a sample, folded into the first axis: 4 of 6 samples are 12 of 18 rows."""
    layer, alone = torch.nn.BatchNorm1d(5).train(), torch.nn.BatchNorm1d(5).train()
    tokens = torch.randn(18, 5, generator=torch.Generator().manual_seed(0))
    with batchnorm.retain_statistics(4, 6):
        output = layer(tokens)
    torch.testing.assert_close(output[:12], alone(tokens[:12]), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(layer.running_var, alone.running_var)


@pytest.mark.parametrize(("rows", "retained"), [(7, 4), (6, 1)])
def test_rows_that_cannot_be_told_apart_are_refused(rows: int, retained: int) -> None:
    layer = torch.nn.BatchNorm1d(5).train()
    with (
        pytest.raises(errors.InvalidDataError, match="rows to normalise"),
        batchnorm.retain_statistics(retained, 6),
    ):
        layer(torch.randn(rows, 5))


def test_eval_mode_is_left_alone(random_net: Callable[[int], torch.nn.Module]) -> None:
    net = random_net(0)
    inputs = torch.randn(5, 1, 12, 12)
    with batchnorm.retain_statistics(3, 5):
        inside = net(inputs)
    assert torch.equal(inside, net(inputs))


def test_names_are_those_of_the_state(random_net: Callable[[int], torch.nn.Module]) -> None:
    net = random_net(0)
    assert set(batchnorm.statistics_names(net)) == {name for name, _ in net.named_buffers()}
