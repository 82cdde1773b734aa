"""Gradient ascent: −loss on the forget set, + loss on the retain set."""

from collections.abc import Mapping

import torch

from salun_core import generation_specs, masks, progress
from salun_core.diffusion import generator as generators
from salun_core.diffusion.unlearn import contract, loop
from salun_core.diffusion.unlearn import parts as loss_parts
from salun_core.unlearn import contract as results


def unlearn(
    generator: generators.Generator,
    data: contract.GenerationData,
    mask: masks.SaliencyMask | None,
    spec: generation_specs.GenerationSpec,
    report: progress.Progress,
    checkpoints: progress.Checkpoints | None = None,
) -> results.UnlearnResult:
    """Climb; in place.

    Raises:
        NonFiniteLossError: the loss became NaN or infinite.
    """
    parts = loss_parts.Parts(generator, data, spec)

    def losses(random: torch.Generator) -> Mapping[str, torch.Tensor]:
        forget, retain = parts.losses(parts.forget(random), parts.retain(random))
        return {"forget": -forget.mean(), "retain": spec.retain_weight * retain.mean()}

    return loop.train(generator, mask, spec, losses, report, checkpoints)
