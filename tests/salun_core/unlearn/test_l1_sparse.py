import copy
from collections.abc import Callable
from typing import Any

import torch

from salun_core import free_weights, images, masks, specs
from salun_core.unlearn import contract, l1_sparse, methods


def mask_of_line(net: torch.nn.Module, layer: list[bool]) -> masks.SaliencyMask:
    (name,) = dict(net.named_parameters())
    return masks.SaliencyMask(
        "saliency", {name: masks.pack(torch.tensor(layer))}, {name: (3,)}, 0.5, 0.0
    )


def test_norm_by_hand(line: Callable[[], torch.nn.Module]) -> None:
    """w = (.4, −.3, .2): .9 of all, .6 of the first and last."""
    net = line()
    everything = free_weights.FreeWeights(net, None)
    some = free_weights.FreeWeights(net, mask_of_line(net, [True, False, True]))
    torch.testing.assert_close(l1_sparse.norm(everything), torch.tensor(0.9))
    torch.testing.assert_close(l1_sparse.norm(some), torch.tensor(0.6))


def test_epochs_by_hand(
    line: Callable[[], torch.nn.Module],
    line_config: specs.ClassifierConfig,
    line_data: contract.UnlearningData,
    exact: Callable[[images.ImageSet], Any],
) -> None:
    """θ ← θ − η·m ⊙ (∇mean ℓ + α·(1 − epoch/E)·sign θ), one step an epoch, weight 1 frozen."""
    spec = specs.UnlearningSpec(
        method="l1_sparse", epochs=4, alpha=0.3, learning_rate=0.1, momentum=0.0,
        weight_decay=0.0, decay="constant", warmup_fraction=0.0,
    )  # fmt: skip
    net, free = line(), torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)
    w = next(net.parameters()).detach().clone().double()
    retain = exact(line_data.retain_set)
    for epoch in range(4):
        w -= 0.1 * free * (retain.mean(w) + 0.3 * (1.0 - epoch / 4) * w.sign())
    mask = mask_of_line(net, [True, False, True])
    methods.unlearn(net, line_config, line_data, mask, spec)
    torch.testing.assert_close(next(net.parameters()).detach().double(), w, atol=1e-6, rtol=0.0)


def test_more_weights_are_small_than_after_fine_tuning(
    trained: torch.nn.Module, config: specs.ClassifierConfig, data: contract.UnlearningData
) -> None:
    def small_share(**recipe: object) -> float:
        spec = specs.UnlearningSpec.model_validate(
            {"mask": "none", "epochs": 2, "batch_size": 64, "learning_rate": 0.02, **recipe}
        )
        net = copy.deepcopy(trained)
        methods.unlearn(net, config, data, None, spec)
        values = torch.cat([p.detach().flatten() for p in net.parameters()])
        return (values.abs() < 1e-3).float().mean().item()

    assert small_share(method="l1_sparse", alpha=0.01) > 2.0 * small_share(method="finetune")
