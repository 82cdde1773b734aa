"""Retraining from scratch without the forget set: the gold standard, and the price of it."""

import torch

from salun_core import architectures, errors, images, masks, progress, randomness, specs
from salun_core.unlearn import contract, finetune


def unlearn(
    net: torch.nn.Module,
    config: specs.ClassifierConfig,
    data: contract.UnlearningData,
    mask: masks.SaliencyMask | None,
    spec: specs.UnlearningSpec,
    report: progress.Progress,
    checkpoints: progress.Checkpoints | None = None,
) -> contract.UnlearnResult:
    """Replace every weight by a fresh one and train on the retain set alone; in place.

    Raises:
        InvalidDataError: a mask was given; retraining leaves no weight as it was.
        NonFiniteLossError: the loss became NaN or infinite.
    """
    if mask is not None:
        raise errors.InvalidDataError("got a mask, expected none: retraining changes every weight")
    with randomness.seeded(spec.seed, "initialisation"):
        fresh = architectures.build(config)
    net.load_state_dict(fresh.state_dict())
    return finetune.unlearn(net, config, data, None, spec, report, checkpoints)


def train(
    config: specs.ClassifierConfig,
    train_set: images.ImageSet,
    spec: specs.UnlearningSpec,
    report: progress.Progress = progress.silent,
    device: torch.device | None = None,
) -> torch.nn.Module:
    """A net trained from scratch on a set, in eval mode; the same for the same spec.

    Raises:
        NonFiniteLossError: the loss became NaN or infinite.
        CancelledError: from ``report``.
    """
    with randomness.seeded(spec.seed):  # the draw itself is replaced; the caller's state is not
        net = architectures.build(config).to(device)
    nothing = train_set.subset([])
    unlearn(net, config, contract.UnlearningData(nothing, train_set, nothing), None, spec, report)
    return net.eval()
