"""SalUn-soft: the loss itself decides which weights stay where they were.

Minimises L + β·‖θ − θo‖₁ (arXiv 2310.12508, SalUn-soft), L the joint loss of
:mod:`salun_core.unlearn.salun`, by proximal gradient: after every step at learning rate η

    θ ← θo + sign(θ − θo) · max(|θ − θo| − η·β, 0),

so a weight that the loss does not pull hard enough is put back, bit for bit. The anchor θo is the
original net throughout; β falls linearly to 0 over the run.
"""

import dataclasses

import torch

from salun_core import masked_step, masks, progress, specs
from salun_core.unlearn import contract, salun, training


def unlearn(
    net: torch.nn.Module,
    config: specs.ClassifierConfig,
    data: contract.UnlearningData,
    mask: masks.SaliencyMask | None,
    spec: specs.UnlearningSpec,
    report: progress.Progress,
    checkpoints: progress.Checkpoints | None = None,
) -> contract.UnlearnResult:
    """Make the net forget while holding it where it was; in place.

    Needs no mask, and keeps to one that is given. ``detail`` has ``unchanged_share``, the share of
    all weights that ended bit-identical to the original, beside what ``salun`` puts there.

    Raises:
        InvalidDataError: matched targets without a holdout set, or no class to spread to.
        NonFiniteLossError: the loss became NaN or infinite.
    """
    beta = contract.given(spec.beta, "beta")
    anchor = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}

    # Called after every optimizer step and before the state is saved.
    def hold(step: int, total_steps: int) -> None:
        rate = training.learning_rate(spec, step - 1, total_steps)
        left = 1.0 - (step - 1) / total_steps
        for name, parameter in net.named_parameters():
            soft_threshold(parameter, anchor[name], rate * beta * left)
        report(step, total_steps)

    result = salun.unlearn(net, config, data, mask, spec, hold, checkpoints)
    detail = {**result.detail, "unchanged_share": _unchanged_share(net, anchor)}
    return dataclasses.replace(result, detail=detail)


@torch.no_grad()
def soft_threshold(parameter: torch.Tensor, anchor: torch.Tensor, threshold: float) -> None:
    """Move every value towards its anchor by ``threshold``, at most onto it; in place.

    What lies within ``threshold`` of its anchor takes the anchor's bits.
    """
    distance = parameter - anchor
    moved = parameter - distance.sign() * threshold
    parameter.copy_(torch.where(distance.abs() <= threshold, anchor, moved))


def _unchanged_share(net: torch.nn.Module, anchor: dict[str, torch.Tensor]) -> float:
    unchanged, total = 0, 0
    for name, parameter in net.named_parameters():
        unchanged += int((~masked_step.differing(anchor[name], parameter)).sum())
        total += parameter.numel()
    return unchanged / total
