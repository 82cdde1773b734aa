from collections.abc import Callable
from typing import Any

import torch

from salun_core import images, specs
from salun_core.unlearn import contract, methods


def test_steps_by_hand(
    line: Callable[[], torch.nn.Module],
    line_config: specs.ClassifierConfig,
    line_data: contract.UnlearningData,
    exact: Callable[[images.ImageSet], Any],
) -> None:
    """v ← μv + ∇mean ℓ_retain + λθ, θ ← θ − ηv; three epochs of one step, the forget set unseen."""
    net = line()
    w = next(net.parameters()).detach().clone().double()
    retain, v = exact(line_data.retain_set), torch.zeros(3, dtype=torch.float64)
    for _ in range(3):
        v = 0.5 * v + retain.mean(w) + 0.1 * w
        w -= 0.3 * v
    spec = specs.UnlearningSpec(
        method="finetune", mask="none", density=1.0, epochs=3, batch_size=8, learning_rate=0.3,
        momentum=0.5, weight_decay=0.1, decay="constant", warmup_fraction=0.0,
    )  # fmt: skip
    methods.unlearn(net, line_config, line_data, None, spec)
    torch.testing.assert_close(next(net.parameters()).detach().double(), w, atol=1e-6, rtol=0.0)
