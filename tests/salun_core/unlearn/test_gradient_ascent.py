import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional

from salun_core import images, inference, preprocessing, specs
from salun_core.unlearn import contract, methods


def test_two_steps_by_hand(
    line: Callable[[], torch.nn.Module],
    line_config: specs.ClassifierConfig,
    line_data: contract.UnlearningData,
    make_pixels: Callable[..., images.ImageSet],
    exact: Callable[[images.ImageSet], Any],
) -> None:
    """Without momentum and decay, θ ← θ + η·∇mean ℓ over forget set and earlier erasures: up."""
    data = contract.UnlearningData(
        line_data.forget_set,
        line_data.retain_set,
        line_data.holdout_set,
        previous_set=make_pixels([[0, 0, 255]], [1], "previous"),
    )
    everything = exact(contract.erased_set(data))
    assert len(everything.y) == 4
    spec = specs.UnlearningSpec(
        method="gradient_ascent", mask="none", epochs=2, learning_rate=0.5, momentum=0.0,
        weight_decay=0.0, decay="constant", warmup_fraction=0.0,
    )  # fmt: skip
    net = line()
    w = next(net.parameters()).detach().clone().double()
    for _ in range(2):
        w += 0.5 * everything.mean(w)
    result = methods.unlearn(net, line_config, data, None, spec)
    torch.testing.assert_close(next(net.parameters()).detach().double(), w, atol=1e-6, rtol=0.0)
    assert result.steps == 2
    assert result.losses[0].retain is None
    assert result.losses[0].forget is not None
    assert result.losses[0].forget < 0.0


@pytest.mark.parametrize("kind", ["samples", "class"])
def test_forget_loss_rises_with_no_buffer_moved(
    kind: str,
    trained: torch.nn.Module,
    config: specs.ClassifierConfig,
    data: contract.UnlearningData,
    class_data: contract.UnlearningData,
    preprocess: preprocessing.Preprocessing,
) -> None:
    sets = data if kind == "samples" else class_data
    spec = specs.default_spec("samples", method="gradient_ascent")
    net = copy.deepcopy(trained)
    result = methods.unlearn(
        net, config, sets, None, spec.model_copy(update={"learning_rate": 0.005})
    )
    assert result.changed_buffers == ()

    def loss(judged: torch.nn.Module) -> float:
        logits = inference.logits(judged, sets.forget_set, preprocess)
        return functional.cross_entropy(logits, sets.forget_set.labels).item()

    assert loss(net) > 1.1 * loss(trained)
