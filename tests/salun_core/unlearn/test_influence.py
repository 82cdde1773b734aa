from collections.abc import Callable
from typing import Any

import pytest
import torch

from salun_core import errors, free_weights, images, masks, specs
from salun_core.unlearn import contract, influence, methods, sample_gradients


def recursion(each: torch.Tensor, damping: float) -> torch.Tensor:
    """WoodFisher, one sample after another, with the inverse written out:
    F⁻¹ ← F⁻¹ − (F⁻¹g)(F⁻¹g)ᵀ / (n + gᵀF⁻¹g), from I/λ.
    """
    count, size = each.shape
    inverse = torch.eye(size, dtype=torch.float64) / damping
    for gradient in each:
        through = inverse @ gradient
        inverse -= torch.outer(through, through) / (count + gradient @ through)
    return inverse


def damped_fisher(each: torch.Tensor, damping: float) -> torch.Tensor:
    """λI + 1/n Σ g gᵀ."""
    return damping * torch.eye(each.shape[1], dtype=torch.float64) + each.T @ each / len(each)


@pytest.mark.parametrize("damping", [1.0, 1e-3])
@pytest.mark.parametrize("chunk", [1, 2, 64])
def test_product_is_that_of_the_recursion_and_of_the_explicit_inverse(
    damping: float,
    chunk: int,
    monkeypatch: pytest.MonkeyPatch,
    line: Callable[[], torch.nn.Module],
    line_config: specs.ClassifierConfig,
    line_data: contract.UnlearningData,
    exact: Callable[[images.ImageSet], Any],
) -> None:
    monkeypatch.setattr(sample_gradients, "CHUNK_BYTES", chunk * 3 * 4)
    net = line()
    gradients = sample_gradients.SampleGradients(
        net, line_config, free_weights.FreeWeights(net, None)
    )
    vector = torch.tensor([0.3, -1.0, 2.0])
    ticks: list[None] = []
    found = influence.inverse_product(
        gradients, line_data.retain_set, {"w": vector}, damping, lambda: ticks.append(None)
    )
    each = exact(line_data.retain_set).each(next(net.parameters()).detach())
    explicit = torch.linalg.solve(damped_fisher(each, damping), vector.double())
    torch.testing.assert_close(recursion(each, damping) @ vector.double(), explicit)
    torch.testing.assert_close(found["w"].double(), explicit, atol=1e-5, rtol=1e-3)
    chunks = -(-5 // chunk)
    assert len(ticks) == chunks * (chunks + 1) // 2 + 1


@pytest.mark.parametrize("free", [[True, True, True], [True, False, True]])
def test_step_by_hand(
    free: list[bool],
    line: Callable[[], torch.nn.Module],
    line_config: specs.ClassifierConfig,
    line_data: contract.UnlearningData,
    exact: Callable[[images.ImageSet], Any],
) -> None:
    """n_f = 3, n_r = 5: g_f = Σ∇/8, g_r = Σ∇·3/(8·5), θ ← θ + 5·F⁻¹(g_f − g_r) with λ = 1; with a
    weight frozen, the same among the two others.
    """
    net = line()
    w = next(net.parameters()).detach().clone()
    forget, retain = exact(line_data.forget_set), exact(line_data.retain_set)
    k = forget.each(w).sum(dim=0) / 8 - retain.each(w).sum(dim=0) * 3 / (8 * 5)
    kept = torch.tensor(free)
    fisher = damped_fisher(retain.each(w)[:, kept], 1.0)
    expected = w.double().clone()
    expected[kept] += 5.0 * torch.linalg.solve(fisher, k[kept])
    mask = masks.SaliencyMask("saliency", {"w": masks.pack(kept)}, {"w": (3,)}, 0.5, 0.0)
    spec = specs.default_spec("samples", method="influence")
    result = methods.unlearn(net, line_config, line_data, mask, spec)
    after = next(net.parameters()).detach().double()
    torch.testing.assert_close(after, expected, atol=1e-6, rtol=1e-5)
    moved = (expected - w.double()).norm().item()
    assert result.detail["step_norm"] == pytest.approx(moved, rel=1e-4)
    assert result.detail["fisher_samples"] == 5


def test_small_step_towards_the_net_without_the_sample(
    line: Callable[[], torch.nn.Module],
    line_config: specs.ClassifierConfig,
    line_data: contract.UnlearningData,
    exact: Callable[[images.ImageSet], Any],
) -> None:
    """The sign: the forget loss rises along the step, the retain gradient being 3/5 of nothing."""
    net = line()
    before = next(net.parameters()).detach().clone().double()
    spec = specs.UnlearningSpec(method="influence", mask="none", alpha=0.1)
    methods.unlearn(net, line_config, line_data, None, spec)
    step = next(net.parameters()).detach().double() - before
    forget, retain = exact(line_data.forget_set), exact(line_data.retain_set)
    assert step @ forget.mean(before) > step @ retain.mean(before)


def test_recipe_of_another_method_and_broken_net_are_refused(
    line: Callable[[], torch.nn.Module],
    line_config: specs.ClassifierConfig,
    line_data: contract.UnlearningData,
) -> None:
    with pytest.raises(errors.InvalidInputError, match="without alpha"):
        influence.unlearn(
            line(), line_config, line_data, None, specs.UnlearningSpec(), lambda _step, _total: None
        )
    net = line()
    torch.nn.init.constant_(next(net.parameters()), float("nan"))
    spec = specs.UnlearningSpec(method="influence", mask="none")
    with pytest.raises(errors.NonFiniteLossError, match="gradient that is not finite"):
        methods.unlearn(net, line_config, line_data, None, spec)
