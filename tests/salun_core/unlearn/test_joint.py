"""One step of the default recipe, solved by hand on a net of three weights."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from salun_core import images, specs
from salun_core.unlearn import contract, joint, methods

# Every pass is one batch of all that there is, every step the plain gradient.
PLAIN: dict[str, object] = {
    "mask": "none", "density": 1.0, "batch_size": 8, "learning_rate": 0.5, "momentum": 0.0,
    "weight_decay": 0.0, "decay": "constant", "warmup_fraction": 0.0, "line_search": False,
    "forget_weight": 0.7, "score_weight": 0.4,
}  # fmt: skip


def test_matched_step_by_hand(
    line: Callable[[], torch.nn.Module],
    line_config: specs.ClassifierConfig,
    line_data: contract.UnlearningData,
    exact: Callable[[images.ImageSet], Any],
) -> None:
    """θ ← θ − η(∇CE_retain + α(∇CE_soft + β∇Huber)).

    With w = (2, −1.5, 1) and labels (1, 0, 1) the confidences s of the forget set are w·x = 2.2,
    −w·x = 1.1 and 1.3. Each class has one holdout sample, whose confidence is every target of the
    class: t = (1.3, −.3, 1.3). Class 1 is wanted with q = σ(t), of a sample of class 0 1 − σ(t);
    ∇CE_soft = mean (p − q)·x. Huber's slope is s − t = .9, 1 (cut off from 1.4) and 0, times ∇s,
    which is x or, for class 0, −x.
    """
    net = line()
    w = next(net.parameters())
    with torch.no_grad():
        w.mul_(5.0)
    before = w.detach().clone().double()
    forget, retain = exact(line_data.forget_set), exact(line_data.retain_set)
    q = torch.tensor([1.3, 0.3, 1.3], dtype=torch.float64).sigmoid()
    soft = ((torch.sigmoid(forget.x @ before) - q).unsqueeze(1) * forget.x).mean(dim=0)
    slope = torch.tensor([0.9, -1.0, 0.0], dtype=torch.float64)
    huber = (slope.unsqueeze(1) * forget.x).mean(dim=0)
    wanted = before - 0.5 * (retain.mean(before) + 0.7 * (soft + 0.4 * huber))
    spec = specs.UnlearningSpec.model_validate({**PLAIN, "epochs": 1})
    methods.unlearn(net, line_config, line_data, None, spec)
    torch.testing.assert_close(w.detach().double(), wanted, atol=1e-6, rtol=0.0)


def test_redistributing_steps_by_hand(
    line: Callable[[], torch.nn.Module],
    line_config: specs.ClassifierConfig,
    line_data: contract.UnlearningData,
    exact: Callable[[images.ImageSet], Any],
) -> None:
    """Of two classes all goes to the other one, and no confidence is wanted; two steps of
    θ ← θ − η(∇CE_retain + α∇CE_other).
    """
    net = line()
    w = next(net.parameters()).detach().clone().double()
    forget, retain = exact(line_data.forget_set), exact(line_data.retain_set)
    forget.y = 1.0 - forget.y
    for _ in range(2):
        w -= 0.5 * (retain.mean(w) + 0.7 * forget.mean(w))
    spec = specs.UnlearningSpec.model_validate({**PLAIN, "targets": "redistribute", "epochs": 2})
    methods.unlearn(net, line_config, line_data, None, spec)
    torch.testing.assert_close(next(net.parameters()).detach().double(), w, atol=1e-6, rtol=0.0)


def test_every_erased_sample_weighs_the_same_whether_it_is_matched_or_not() -> None:
    """Logits of 0: cross-entropy log 2 each, s = 0. Huber of 3 is 2.5, of .5 it is .125; the third
    sample has no wanted confidence, and still counts: (2.5 + .125)/3.
    """
    loss = joint._forget_loss(
        torch.zeros(3, 2),
        torch.tensor([0, 1, 1]),
        torch.full((3, 2), 0.5),
        torch.tensor([3.0, 0.5, float("nan")]),
        score_weight=0.2,
    )
    assert loss.item() == pytest.approx(math.log(2.0) + 0.2 * 2.625 / 3)
