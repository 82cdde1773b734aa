"""Retraining from scratch without the forget set: the gold standard, and the price of it."""

import torch

from salun_core import architectures, errors, masks, progress, randomness, specs
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
