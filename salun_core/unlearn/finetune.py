"""Fine-tuning: cross-entropy on the retain set alone, hoping that the rest fades (baseline FT)."""

import functools

import torch
from torch.nn import functional

from salun_core import batchnorm, masks, progress, specs
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
    """Train on the retain set for ``spec.epochs`` passes; in place.

    Raises:
        NonFiniteLossError: the loss became NaN or infinite.
    """
    retain_set = data.retain_set
    steps = spec.count_batches(len(retain_set))
    run = training.Training(net, config, mask, spec, steps, report, checkpoints)
    for epoch in run.epochs():
        run.pass_over("retain", retain_set, retain_set.labels, epoch, functools.partial(_loss, net))
    return run.result(batchnorm.statistics_names(net))


def _loss(net: torch.nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(net(inputs), labels)
