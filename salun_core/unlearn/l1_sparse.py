"""ℓ1-sparse unlearning (arXiv 2304.04934): fine-tune while weights shrink towards 0.

loss = CE(retain batch) + α·(1 − epoch/E)·‖θ‖₁. A sparse net has less room for what it no longer
sees, and the penalty fades so that the last epochs mend the rest.
"""

import functools

import torch
from torch.nn import functional

from salun_core import batchnorm, free_weights, masks, progress, specs
from salun_core.unlearn import contract, training


def unlearn(
    net: torch.nn.Module,
    config: specs.ClassifierConfig,
    data: contract.UnlearningData,
    mask: masks.SaliencyMask | None,
    spec: specs.UnlearningSpec,
    report: progress.Progress,
    checkpoints: progress.Checkpoints | None = None,
) -> contract.UnlearnResult:
    """Train on the retain set for ``spec.epochs`` passes under the penalty; in place.

    The norm is taken over the weights that may change. The retain losses of the result include
    the penalty.

    Raises:
        NonFiniteLossError: the loss became NaN or infinite.
    """
    alpha = contract.given(spec.alpha, "alpha")
    retain_set = data.retain_set
    steps = spec.count_batches(len(retain_set))
    run = training.Training(net, config, mask, spec, steps, report, checkpoints)
    free = free_weights.FreeWeights(net, mask)
    for epoch in run.epochs():
        loss = functools.partial(_loss, net, free, alpha * (1.0 - epoch / spec.epochs))
        run.pass_over("retain", retain_set, retain_set.labels, epoch, loss)
    return run.result(batchnorm.statistics_names(net))


def _loss(
    net: torch.nn.Module,
    free: free_weights.FreeWeights,
    weight: float,
    inputs: torch.Tensor,
    labels: torch.Tensor,
) -> torch.Tensor:
    return functional.cross_entropy(net(inputs), labels) + weight * norm(free)


def norm(free: free_weights.FreeWeights) -> torch.Tensor:
    """‖m ⊙ θ‖₁ of a net with at least one free weight, a scalar."""
    parts = [
        free.without_frozen(name, parameter).abs().sum()
        for name, parameter in free.parameters.items()
    ]
    return torch.stack(parts).sum()
