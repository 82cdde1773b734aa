"""Random labels (arXiv 2310.12508, equation 5 and algorithm 1): learn a wrong label instead.

The label is never the true one (10 % of the authors' draws on ten classes are) and never a class
that was or is being forgotten as a whole.
"""

import functools

import torch
from torch.nn import functional

from salun_core import batchnorm, errors, images, masks, progress, randomness, specs
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
    """Epochs of a pass over the forget set with random labels, then one over the retain set.

    Earlier erasures (``data.previous_set``) are relabelled together with the forget set. Batch
    norm takes its statistics from retained samples throughout, as when the net is served: beside
    every forget batch one of the retain set goes through the net, without a loss. By its own
    statistics, as in the authors' code, a batch of one class gives itself away, and the class
    stays known where it comes among others; with stored ones the net falls apart at their rates.

    Raises:
        InvalidDataError: no other class is left to draw a label from.
        NonFiniteLossError: the loss became NaN or infinite.
    """
    erased = contract.erased_set(data)
    refused = contract.refused_labels(data)
    steps = sum(spec.count_batches(len(part)) for part in (erased, data.retain_set))
    run = training.Training(net, config, mask, spec, steps, report, checkpoints)
    for epoch in run.epochs():
        labels = wrong_labels(erased.labels, config.num_classes, refused, spec.seed, epoch)
        _forget(run, erased, labels, data.retain_set, epoch)
        loss = functools.partial(_retain_loss, net)
        run.pass_over("retain", data.retain_set, data.retain_set.labels, epoch, loss)
    return run.result(batchnorm.statistics_names(net))


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


def _forget(
    run: training.Training,
    erased: images.ImageSet,
    labels: torch.Tensor,
    retain_set: images.ImageSet,
    epoch: int,
) -> None:
    """A shuffled pass over the erased samples, towards ``labels`` (int64, one for each)."""
    spec = run.spec
    beside = images.endless_batches(len(retain_set), spec.batch_size, spec.seed, "beside", epoch)
    for rows in images.shuffled_batches(len(erased), spec.batch_size, spec.seed, "forget", epoch):
        kept = retain_set.images[next(beside)]
        inputs = run.inputs(torch.cat([kept, erased.images[rows]]))
        wanted = labels[rows].to(run.device)
        run.step(functools.partial(_forget_loss, run.net, inputs, len(kept), wanted))


def _forget_loss(
    net: torch.nn.Module, inputs: torch.Tensor, kept: int, labels: torch.Tensor
) -> dict[str, torch.Tensor]:
    with batchnorm.retain_statistics(kept, len(inputs)):
        logits = net(inputs)
    return {"forget": functional.cross_entropy(logits[kept:], labels)}


def _retain_loss(net: torch.nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(net(inputs), labels)
