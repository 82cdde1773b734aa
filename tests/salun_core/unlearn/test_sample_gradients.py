import copy
from collections.abc import Callable

import pytest
import timm
import torch
from torch.nn import functional

from salun_core import free_weights, images, masks, preprocessing, randomness, specs
from salun_core.unlearn import contract, sample_gradients


def attending() -> torch.nn.Module:
    """A small transformer: its attention has fused kernels that cannot be mapped over samples."""
    with randomness.seeded(0):
        net = timm.create_model(
            "vit_tiny_patch16_224", img_size=16, patch_size=8, in_chans=1, embed_dim=8, depth=1,
            num_heads=2, num_classes=4,
        )  # fmt: skip
    return torch.nn.Sequential(net)


def one_by_one(
    net: torch.nn.Module, image_set: images.ImageSet, preprocess: preprocessing.Preprocessing
) -> dict[str, torch.Tensor]:
    """The slow way: a backward pass for every sample; (N, *shape) by name."""
    net.eval()
    found: dict[str, list[torch.Tensor]] = {name: [] for name, _ in net.named_parameters()}
    for row in range(len(image_set)):
        net.zero_grad()
        inputs = preprocess.normalise(image_set.images[row : row + 1])
        functional.cross_entropy(net(inputs), image_set.labels[row : row + 1]).backward()  # type: ignore[no-untyped-call]
        for name, parameter in net.named_parameters():
            assert parameter.grad is not None
            found[name].append(parameter.grad.clone())
    net.zero_grad()
    return {name: torch.stack(gradients) for name, gradients in found.items()}


@pytest.mark.parametrize("kind", ["residual", "attending"])
def test_gradients_are_those_of_single_passes(
    kind: str,
    random_net: Callable[[int], torch.nn.Module],
    config: specs.ClassifierConfig,
    data: contract.UnlearningData,
    preprocess: preprocessing.Preprocessing,
) -> None:
    net = random_net(0) if kind == "residual" else attending()
    image_set = data.retain_set.subset(range(6))
    expected = one_by_one(net, image_set, preprocess)
    gradients = sample_gradients.SampleGradients(net, config, free_weights.FreeWeights(net, None))
    net.train()
    rows = torch.tensor([4, 1, 3])
    found = gradients.each(image_set, rows)
    shares = torch.linspace(-1.0, 1.0, 6)
    summed = gradients.weighted_sum(image_set, shares, lambda: None)
    assert net.training
    assert found.keys() == summed.keys() == expected.keys()
    for name, gradient in expected.items():
        scale = gradient.abs().max().item()
        torch.testing.assert_close(found[name], gradient[rows], atol=1e-4 * scale, rtol=1e-3)
        total = torch.einsum("n,n...->...", shares, gradient)
        torch.testing.assert_close(summed[name], total, atol=1e-4 * scale, rtol=1e-3)
    assert all(parameter.grad is None for parameter in net.parameters())


def test_frozen_weights_have_none_and_chunks_fit_the_memory(
    monkeypatch: pytest.MonkeyPatch,
    trained: torch.nn.Module,
    config: specs.ClassifierConfig,
    data: contract.UnlearningData,
) -> None:
    net = copy.deepcopy(trained)
    shapes = {name: tuple(p.shape) for name, p in net.named_parameters()}
    everything = {n: masks.pack(torch.ones(s, dtype=torch.bool)) for n, s in shapes.items()}
    full = masks.SaliencyMask("saliency", everything, shapes, 1.0, 0.0)
    half = {name: masks.pack(torch.arange(full.layer(name).numel()) % 2 == 0) for name in shapes}
    mask = masks.SaliencyMask("saliency", half, shapes, 0.5, 0.0)
    size = 4 * sum(p.numel() for p in net.parameters())
    monkeypatch.setattr(sample_gradients, "CHUNK_BYTES", 3 * size + 1)
    gradients = sample_gradients.SampleGradients(net, config, free_weights.FreeWeights(net, mask))
    assert [len(rows) for rows in gradients.chunks(7)] == [3, 3, 1]
    for found in (
        gradients.each(data.retain_set, torch.arange(2)),
        gradients.weighted_sum(data.retain_set, torch.ones(len(data.retain_set)), lambda: None),
    ):
        for name, gradient in found.items():
            assert not bool((gradient[..., ~mask.layer(name)] != 0.0).any())
            assert bool((gradient[..., mask.layer(name)] != 0.0).any())
