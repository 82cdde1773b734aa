"""Boundary shrink (arXiv 2303.11570): give each sample to its nearest wrong class.

The class beyond the nearest decision boundary is found by one step of FGSM at the original net f,
x′ = x + ε·sign(∇x CE(f(x), y)); the net is then trained to call x what f calls x′.
"""

import functools

import torch
from torch.nn import functional

from salun_core import (
    batchnorm,
    confidence,
    errors,
    images,
    masks,
    modes,
    preprocessing,
    progress,
    specs,
)
from salun_core.unlearn import contract, training

EPSILON = 0.1  # in units of the normalised input
_BATCH_SIZE = 256


def unlearn(
    net: torch.nn.Module,
    config: specs.ClassifierConfig,
    data: contract.UnlearningData,
    mask: masks.SaliencyMask | None,
    spec: specs.UnlearningSpec,
    report: progress.Progress,
    checkpoints: progress.Checkpoints | None = None,
) -> contract.UnlearnResult:
    """Train the forget set and earlier erasures towards their adversarial labels; in place.

    Batch norm keeps its stored statistics, so no buffer changes.

    Raises:
        InvalidDataError: no other class is left to send a sample to.
        NonFiniteLossError: the loss became NaN or infinite.
    """
    erased = contract.erased_set(data)
    preprocess = preprocessing.Preprocessing(config.pretrained_cfg)
    # Of the original net, which a run holds at its start, also when it is resumed.
    wanted = adversarial_labels(net, erased, preprocess, contract.refused_labels(data))
    steps = spec.count_batches(len(erased))
    run = training.Training(net, config, mask, spec, steps, report, checkpoints)
    for epoch in run.epochs():
        run.pass_over("forget", erased, wanted, epoch, functools.partial(_loss, net))
    return run.result(changed_buffers=())


def adversarial_labels(
    net: torch.nn.Module,
    image_set: images.ImageSet,
    preprocess: preprocessing.Preprocessing,
    refused: tuple[int, ...],
    epsilon: float = EPSILON,
) -> torch.Tensor:
    """What the net, in eval mode, calls every sample after one step of FGSM; int64 (N,).

    Never the true class or a refused one: the most likely of the others. Where the gradient is
    exactly 0 (a loss of 0 in float32) the sample stays where it is.

    Raises:
        InvalidDataError: no class is left.
    """
    found = []
    device = modes.device_of(net)
    with modes.evaluating(net):
        for rows in torch.split(torch.arange(len(image_set)), _BATCH_SIZE):
            labels = image_set.labels[rows].to(device)
            inputs = preprocess.normalise(image_set.images[rows].to(device)).requires_grad_()
            # The sum: of a mean, the gradients of sure samples would underflow sooner.
            loss = functional.cross_entropy(net(inputs), labels, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, inputs)
            with torch.no_grad():
                logits = net(inputs + epsilon * gradient.sign())
            others = confidence.without_classes(logits, refused)
            others = others.scatter(1, labels.unsqueeze(1), float("-inf"))
            if not bool(torch.isfinite(others).any(dim=1).all()):
                raise errors.InvalidDataError(
                    "got no other class to send a sample to, expected at least one"
                )
            found.append(others.argmax(dim=1).cpu())
    return torch.cat(found)


def _loss(net: torch.nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    with batchnorm.stored_statistics(net):
        return functional.cross_entropy(net(inputs), labels)
