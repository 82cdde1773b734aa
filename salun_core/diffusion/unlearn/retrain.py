"""Retraining: a net of the same architecture that never saw the forget set; the gold standard."""

from collections.abc import Mapping
from typing import Any

import torch

from salun_core import generation_specs, masks, progress, randomness
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
    """Initialise anew and train on the retain set; in place. A mask keeps the original's weights.

    Conditions that no kept sample has stay as they were initialised.

    Raises:
        NonFiniteLossError: the loss became NaN or infinite.
    """
    if mask is None:
        _initialise(generator.denoiser, spec.seed)
    parts = loss_parts.Parts(generator, data, spec)

    def losses(random: torch.Generator) -> Mapping[str, torch.Tensor]:
        (retain,) = parts.losses(parts.retain(random))
        return {"retain": retain.mean()}

    return loop.train(generator, mask, spec, losses, report, checkpoints)


def _initialise(net: torch.nn.Module, seed: int) -> None:
    kind: Any = type(net)
    described: Any = net
    with randomness.seeded(seed, "initialisation"):
        fresh = kind.from_config(dict(described.config))
    net.load_state_dict(fresh.state_dict())
