"""Random labels (arXiv 2310.12508, equation 5 and algorithm 1): learn a wrong label instead.

The label is never the true one (10 % of the authors' draws on ten classes are) and never a class
that was or is being forgotten as a whole.
"""

import functools

import torch
from torch.nn import functional

from salun_core import batchnorm, errors, images, masks, progress, randomness, specs
from salun_core.unlearn import contract, finetune, training


def unlearn(
    net: torch.nn.Module,
    config: specs.ClassifierConfig,
    data: contract.UnlearningData,
    mask: masks.SaliencyMask | None,
    spec: specs.UnlearningSpec,
    report: progress.Progress,
    checkpoints: progress.Checkpoints | None = None,
) -> contract.UnlearnResult:
    """Epochs of a pass over the forget set with random labels, then one over the retain set.

    Earlier erasures (``data.previous_set``) are relabelled together with the forget set. Batch
    norm keeps its stored statistics throughout, so no buffer changes.

    Raises:
        InvalidDataError: no other class is left to draw a label from.
        NonFiniteLossError: the loss became NaN or infinite.
    """
    erased = contract.erased_set(data)
    refused = contract.refused_labels(data)
    steps = sum(
        finetune.count_batches(len(part), spec.batch_size) for part in (erased, data.retain_set)
    )
    run = training.Training(net, config, mask, spec, steps, report, checkpoints)
    for epoch in run.epochs():
        labels = wrong_labels(erased.labels, config.num_classes, refused, spec.seed, epoch)
        _pass(run, "forget", erased, labels, epoch)
        _pass(run, "retain", data.retain_set, data.retain_set.labels, epoch)
    return run.result(changed_buffers=())


def wrong_labels(
    labels: torch.Tensor, num_classes: int, refused: tuple[int, ...], seed: int, epoch: int
) -> torch.Tensor:
    """For every sample a class drawn uniformly from all but its own and the refused ones.

    Args:
        labels: int64 (N,), the true classes.
        num_classes: classes of the net.
        refused: classes that no sample may be sent to.
        seed: of the draw, together with ``epoch``.

    Raises:
        InvalidDataError: no class is left.
    """
    allowed = torch.ones(len(labels), num_classes)
    allowed[:, list(refused)] = 0.0
    allowed[torch.arange(len(labels)), labels] = 0.0
    if bool((allowed.sum(dim=1) == 0.0).any()):
        raise errors.InvalidDataError("got no other class to relabel to, expected at least one")
    generator = randomness.generator(seed, "wrong_labels", epoch)
    return torch.multinomial(allowed, 1, generator=generator).squeeze(1)  # (N,)


def _pass(
    run: training.Training, part: str, image_set: images.ImageSet, labels: torch.Tensor, epoch: int
) -> None:
    for rows in images.shuffled_batches(
        len(image_set), run.spec.batch_size, run.spec.seed, part, epoch
    ):
        inputs = run.inputs(image_set.images[rows])
        run.step(functools.partial(_losses, run.net, inputs, labels[rows].to(run.device), part))


def _losses(
    net: torch.nn.Module, inputs: torch.Tensor, labels: torch.Tensor, part: str
) -> dict[str, torch.Tensor]:
    # Both passes: stored statistics in one and batch statistics in the other tear the net apart.
    with batchnorm.stored_statistics(net):
        return {part: functional.cross_entropy(net(inputs), labels)}
