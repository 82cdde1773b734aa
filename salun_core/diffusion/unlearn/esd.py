"""Erased Stable Diffusion (arXiv 2303.07345, equation 7): guide the model away from itself.

The live net learns, under the concept's condition c, what the frozen one says without a condition
less η times what c would add: ε_θ(z_t, c) → ε_o(z_t) − η (ε_o(z_t, c) − ε_o(z_t)). The latents z_t
come from the live net, which draws c down to a random time step; no picture is looked at. A class
is a condition like a text.
"""

from collections.abc import Mapping
from typing import Any

import torch

from salun_core import generation_specs, masks, modes, progress
from salun_core.diffusion import denoising, sampling
from salun_core.diffusion import generator as generators
from salun_core.diffusion.unlearn import contract, loop
from salun_core.diffusion.unlearn import parts as loss_parts
from salun_core.unlearn import contract as results

# Those of the authors' training script, for drawing z_t.
_STEPS = 50
_GUIDANCE = 3.0


def unlearn(
    generator: generators.Generator,
    data: contract.GenerationData,
    mask: masks.SaliencyMask | None,
    spec: generation_specs.GenerationSpec,
    report: progress.Progress,
    checkpoints: progress.Checkpoints | None = None,
) -> results.UnlearnResult:
    """Make the condition say the opposite; in place. ``spec.alpha`` is η; there is no retain term.

    Raises:
        InvalidDataError: the model has no condition that says nothing.
        NonFiniteLossError: the loss became NaN or infinite.
    """
    eta = results.given(spec.alpha, "alpha")
    parts = loss_parts.Parts(generator, data, spec)
    teacher = loss_parts.frozen_copy(generator)
    null = generator.null_condition()
    scheduler = sampling.scheduler_of(generator, min(_STEPS, parts.schedule.timesteps))

    def losses(random: torch.Generator) -> Mapping[str, torch.Tensor]:
        rows = loop.choose(len(data.forget), spec.forget_batch_size, random)
        conditions = data.forget.conditions(rows)
        noisy, timesteps = _partly_drawn(generator, scheduler, conditions, null, random)
        target = loss_parts.turned_away(teacher, noisy, timesteps, conditions, null, eta)
        noised = denoising.Noised(noisy, timesteps, target)
        (forget,) = parts.losses(loss_parts.Part(noised, conditions, target))
        return {"forget": forget.mean()}

    return loop.train(generator, mask, spec, losses, report, checkpoints)


def _partly_drawn(
    generator: generators.Generator,
    scheduler: Any,  # noqa: ANN401 - diffusers has no types
    conditions: torch.Tensor,
    null: torch.Tensor,
    random: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the live net draws of the conditions, stopped at one random step; its time steps."""
    device = modes.device_of(generator.denoiser)
    stop = int(torch.randint(0, len(scheduler.timesteps), (1,), generator=random))
    shape = (len(conditions), *generator.latent_size)
    noisy = torch.randn(shape, generator=random).to(device)
    for timestep in scheduler.timesteps[:stop]:
        noisy = sampling.less_noisy(
            generator, scheduler, noisy, timestep, conditions, null, _GUIDANCE
        )
    return noisy, scheduler.timesteps[stop].to(device).expand(len(noisy))
