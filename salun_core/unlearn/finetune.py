"""Fine-tuning: cross-entropy on the retain set alone, hoping that the rest fades (baseline FT)."""

import functools

import torch
from torch.nn import functional

from salun_core import batchnorm, images, masks, progress, specs
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
    steps = count_batches(len(retain_set), spec.batch_size)
    run = training.Training(net, config, mask, spec, steps, report, checkpoints)
    for epoch in run.epochs():
        retain_pass(run, retain_set, epoch)
    return run.result(batchnorm.statistics_names(net))


def count_batches(count: int, batch_size: int) -> int:
    """Batches of one pass."""
    return -(-count // batch_size)


def retain_pass(run: training.Training, retain_set: images.ImageSet, epoch: int) -> None:
    """One shuffled pass of cross-entropy over the retain set."""
    for rows in images.shuffled_batches(
        len(retain_set), run.spec.batch_size, run.spec.seed, "retain", epoch
    ):
        inputs = run.inputs(retain_set.images[rows])
        labels = retain_set.labels[rows].to(run.device)
        run.step(functools.partial(_losses, run.net, inputs, labels))


def _losses(
    net: torch.nn.Module, inputs: torch.Tensor, labels: torch.Tensor
) -> dict[str, torch.Tensor]:
    return {"retain": functional.cross_entropy(net(inputs), labels)}
