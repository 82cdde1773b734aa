import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional

from salun_core import errors, free_weights, images, masks, preprocessing, specs
from salun_core.unlearn import contract, fisher_forgetting, methods, sample_gradients


def test_diagonal_is_that_of_a_loop(
    trained: torch.nn.Module,
    config: specs.ClassifierConfig,
    data: contract.UnlearningData,
    preprocess: preprocessing.Preprocessing,
) -> None:
    net, image_set = copy.deepcopy(trained), data.holdout_set.subset(range(10))
    expected = {name: torch.zeros(p.shape) for name, p in net.named_parameters()}
    for row in range(10):
        inputs = preprocess.normalise(image_set.images[row : row + 1])
        loss = functional.cross_entropy(net(inputs), image_set.labels[row : row + 1])
        for total, gradient in zip(
            expected.values(), torch.autograd.grad(loss, list(net.parameters())), strict=True
        ):
            total += gradient.square() / 10
    gradients = sample_gradients.SampleGradients(net, config, free_weights.FreeWeights(net, None))
    found = fisher_forgetting.fisher_diagonal(gradients, image_set)
    for name, total in expected.items():
        torch.testing.assert_close(found[name], total, atol=1e-4 * total.max().item(), rtol=1e-3)


def test_noise_is_normal_of_the_variance_that_the_diagonal_gives(
    line: Callable[[], torch.nn.Module],
    line_config: specs.ClassifierConfig,
    make_pixels: Callable[..., images.ImageSet],
    line_data: contract.UnlearningData,
    exact: Callable[[images.ImageSet], Any],
) -> None:
    """F_j = 1/n Σ (p − y)²·x_j². No retain sample has a third pixel, so F_3 = 0 and its variance is
    α·1,000. Over 300 seeds (θ − θo)/√(α·min(1/F, 1,000)) has mean 0 and variance 1: the standard
    errors of 900 draws are .033 and .047.
    """
    data = contract.UnlearningData(
        line_data.forget_set,
        make_pixels([[255, 51, 0], [51, 204, 0], [102, 102, 0]], [1, 0, 1], "retain"),
        line_data.holdout_set,
    )
    w = next(line().parameters()).detach().clone()
    diagonal = exact(data.retain_set).each(w).square().mean(dim=0)
    assert diagonal[2] == 0.0
    scale = (1e-4 * diagonal.reciprocal().clamp(max=1000.0)).sqrt()
    assert scale[2] == pytest.approx(math.sqrt(0.1))
    drawn = []
    for seed in range(300):
        net = line()
        spec = specs.UnlearningSpec(method="fisher_forgetting", mask="none", alpha=1e-4, seed=seed)
        methods.unlearn(net, line_config, data, None, spec)
        drawn.append((next(net.parameters()).detach().double() - w.double()) / scale)
    values = torch.stack(drawn)
    assert values.mean().item() == pytest.approx(0.0, abs=0.13)
    assert values.var().item() == pytest.approx(1.0, abs=0.19)
    assert bool((values.var(dim=0) - 1.0).abs().max() < 0.35)


def test_rows_of_a_forgotten_class_start_afresh(
    trained: torch.nn.Module, config: specs.ClassifierConfig, class_data: contract.UnlearningData
) -> None:
    """With next to no noise, all rows but that of class 2 stay; that one is as a new layer's."""
    spec = specs.UnlearningSpec(method="fisher_forgetting", mask="none", alpha=1e-14)
    net = copy.deepcopy(trained)
    result = methods.unlearn(net, config, class_data, None, spec)
    assert result.detail == {"reset_classes": [2]}
    before, after = (n.get_submodule("fc") for n in (trained, net))
    assert isinstance(before, torch.nn.Linear)
    assert isinstance(after, torch.nn.Linear)
    rest = [0, 1, 3]
    torch.testing.assert_close(after.weight[rest], before.weight[rest], atol=1e-4, rtol=0.0)
    assert not torch.allclose(after.weight[2], before.weight[2], atol=0.01)
    assert bool((after.weight[2].abs() <= 1 / math.sqrt(before.in_features)).all())
    assert after.bias[2].item() != pytest.approx(before.bias[2].item(), abs=1e-4)


def test_frozen_part_of_a_forgotten_row_stays(
    trained: torch.nn.Module, config: specs.ClassifierConfig, class_data: contract.UnlearningData
) -> None:
    shapes = {name: tuple(p.shape) for name, p in trained.named_parameters()}
    layers = {name: torch.zeros(shape, dtype=torch.bool) for name, shape in shapes.items()}
    layers["fc.weight"][2, :5] = True
    bits = {name: masks.pack(layer) for name, layer in layers.items()}
    mask = masks.SaliencyMask("saliency", bits, shapes, 0.5, 0.0)
    net = copy.deepcopy(trained)
    spec = specs.UnlearningSpec(method="fisher_forgetting")
    methods.unlearn(net, config, class_data, mask, spec)
    changed = net.get_parameter("fc.weight") != trained.get_parameter("fc.weight")
    assert torch.equal(changed, layers["fc.weight"])


def test_class_of_a_net_without_a_linear_head_is_refused(
    line: Callable[[], torch.nn.Module],
    line_config: specs.ClassifierConfig,
    line_data: contract.UnlearningData,
    make_pixels: Callable[..., images.ImageSet],
) -> None:
    data = contract.UnlearningData(
        make_pixels([[255, 0, 0]], [1], "forget"),
        make_pixels([[0, 255, 0]], [0], "retain"),
        line_data.holdout_set,
    )
    spec = specs.UnlearningSpec(method="fisher_forgetting", mask="none")
    with pytest.raises(errors.InvalidDataError, match="does not end in a linear layer"):
        methods.unlearn(line(), line_config, data, None, spec)
    broken = line()
    torch.nn.init.constant_(next(broken.parameters()), float("nan"))
    with pytest.raises(errors.NonFiniteLossError, match="gradient of w is not finite"):
        methods.unlearn(broken, line_config, line_data, None, spec)
