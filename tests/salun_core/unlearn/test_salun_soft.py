import copy
from collections.abc import Callable
from typing import Any

import torch

from salun_core import images, specs, weights
from salun_core.unlearn import contract, methods, salun_soft


def test_soft_threshold_by_hand() -> None:
    """τ = .2: 1.5 → 1.3, .9 → 1 (within), .05 → −0.0 (bit for bit), 1 → 1.2, 2.2 − 2 ≤ τ → 2."""
    anchor = torch.tensor([1.0, 1.0, -0.0, 2.0, 2.0])
    values = torch.tensor([1.5, 0.9, 0.05, 1.0, 2.125])
    salun_soft.soft_threshold(values, anchor, 0.2)
    torch.testing.assert_close(values, torch.tensor([1.3, 1.0, 0.0, 1.2, 2.0]))
    held = torch.tensor([1, 2, 4])
    assert (weights.bits(values[held]) == weights.bits(anchor[held])).all()


def test_run_by_hand(
    line: Callable[[], torch.nn.Module],
    line_config: specs.ClassifierConfig,
    line_data: contract.UnlearningData,
    exact: Callable[[images.ImageSet], Any],
) -> None:
    """Two classes have one wrong label, so random labels are 1 − y. Two epochs of a forget and a
    retain step make T = 4 steps s = 0..3: θ ← θo + S(θ − η·∇ − θo, η·β·(1 − s/T)).
    """
    eta, beta = 0.5, 0.06
    spec = specs.UnlearningSpec(
        method="salun_soft", targets="random_label", mask="none", epochs=2, learning_rate=eta,
        momentum=0.0, weight_decay=0.0, decay="constant", warmup_fraction=0.0, beta=beta,
    )  # fmt: skip
    net = line()
    original = next(net.parameters()).detach().clone().double()
    w = original.clone()
    wrong, right = exact(line_data.forget_set), exact(line_data.retain_set)
    wrong.y = 1.0 - wrong.y
    held = 0
    for step, part in enumerate((wrong, right, wrong, right)):
        distance = w - eta * part.mean(w) - original
        threshold = eta * beta * (1.0 - step / 4)
        distance = distance.sign() * (distance.abs() - threshold).clamp(min=0.0)
        held += int((distance == 0.0).sum())
        w = original + distance
    assert 0 < held < 12  # the case is neither all held nor all free
    result = methods.unlearn(net, line_config, line_data, None, spec)
    after = next(net.parameters()).detach()
    torch.testing.assert_close(after.double(), w, atol=1e-6, rtol=0.0)
    assert result.detail["unchanged_share"] == (w == original).double().mean().item()


def test_the_harder_the_hold_the_more_stays(
    trained: torch.nn.Module, config: specs.ClassifierConfig, data: contract.UnlearningData
) -> None:
    shares = []
    for beta in (1e-3, 3e-2, 1e4):
        spec = specs.UnlearningSpec(
            method="salun_soft", mask="none", epochs=1, batch_size=64, line_search=False, beta=beta
        )
        net = copy.deepcopy(trained)
        result = methods.unlearn(net, config, data, None, spec)
        shares.append(result.detail["unchanged_share"])
        same = sum(
            int((a.detach() == b.detach()).sum())
            for a, b in zip(net.parameters(), trained.parameters(), strict=True)
        )
        assert shares[-1] == same / sum(p.numel() for p in net.parameters())
    assert 0.0 < shares[0] < shares[1] - 0.2
    assert shares[1] < shares[2] == 1.0
