"""Gradient ascent (baseline GA): unlearn a sample by raising its training loss.

Minimises −CE(net(x), y) over the erased samples alone; nothing holds the rest in place but a small
learning rate and few epochs.
"""

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
    """Climb for ``spec.epochs`` passes over the forget set and earlier erasures; in place.

    Batch norm keeps its stored statistics, so no buffer changes. The forget losses of the result
    are −CE: the lower, the more is forgotten.

    Raises:
        NonFiniteLossError: the loss became NaN or infinite.
    """
    erased = contract.erased_set(data)
    steps = spec.count_batches(len(erased))
    run = training.Training(net, config, mask, spec, steps, report, checkpoints)
    for epoch in run.epochs():
        run.pass_over("forget", erased, erased.labels, epoch, functools.partial(_loss, net))
    return run.result(changed_buffers=())


def _loss(net: torch.nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    with batchnorm.stored_statistics(net):
        return -functional.cross_entropy(net(inputs), labels)
