"""Draw pictures: deterministic DDIM (arXiv 2010.02502), the same noise for the same seed.

With ``clip_sample`` the clipped picture must be used to go on (``use_clipped_model_output``), else
DDIM mixes a clipped picture with the noise of an unclipped one and draws poorly.
"""

import math
from typing import Any

import torch

from salun_core import generation_specs, modes, progress, randomness
from salun_core.diffusion import denoising
from salun_core.diffusion import generator as generators

BATCH_SIZE = 64
_POSITIONS = 2**16  # of the latents of a batch: memory grows with them, 16 pictures of SD 1.x


@torch.no_grad()
def draw(
    generator: generators.Generator,
    conditions: torch.Tensor,
    sampling: generation_specs.Sampling,
    seed: int,
    report: progress.Progress = progress.silent,
) -> torch.Tensor:
    """One picture for each condition, uint8 (N, C, H, W).

    Picture i depends on the seed, on i and on its condition, not on the others: two models asked
    with the same seed start from the same noise.

    Args:
        generator: the model.
        conditions: (N, ...).
        sampling: steps and guidance; ``images`` is not looked at.
        seed: of the noise.
        report: called after every step of every batch.

    Raises:
        InvalidDataError: guidance is asked of a model without a null condition.
        CancelledError: from ``report``.
    """
    device = modes.device_of(generator.denoiser)
    scheduler = scheduler_of(generator, sampling.steps)
    random = randomness.generator(seed, "sampling")
    noise = torch.randn(len(conditions), *generator.latent_size, generator=random)
    null = None if sampling.guidance_scale == 1.0 else generator.null_condition().to(device)
    starts = batches(generator, len(conditions))
    drawn = []
    for turn, start in enumerate(starts):
        wanted = conditions[start : start + starts.step].to(device)
        current = noise[start : start + starts.step].to(device)
        for step, timestep in enumerate(scheduler.timesteps, start=1):
            current = less_noisy(
                generator, scheduler, current, timestep, wanted, null, sampling.guidance_scale
            )
            report(turn * sampling.steps + step, len(starts) * sampling.steps)
        drawn.append(generator.decode(current))
    return torch.cat(drawn)


def batches(generator: generators.Generator, pictures: int) -> range:
    """Where each batch begins in which so many pictures are drawn."""
    _, *sides = generator.latent_size
    most = _POSITIONS // math.prod(sides)
    return range(0, pictures, max(1, min(BATCH_SIZE, most)))


def scheduler_of(generator: generators.Generator, steps: int) -> Any:  # noqa: ANN401
    """DDIM for the model, set to so many steps; its ``timesteps`` are the way from noise."""
    scheduler = denoising.ddim(generator.scheduler_config)
    scheduler.set_timesteps(steps)
    return scheduler


@torch.no_grad()
def less_noisy(
    generator: generators.Generator,
    scheduler: Any,  # noqa: ANN401
    latents: torch.Tensor,
    timestep: torch.Tensor,
    conditions: torch.Tensor,
    null: torch.Tensor | None,
    guidance_scale: float,
) -> torch.Tensor:
    """One step on the way from noise: latents (B, ...) of ``timestep`` become those of the next.

    ``null`` is the condition (1, ...) that says nothing; ``None``: there is no guidance.
    """
    predicted = _guided(generator, latents, timestep, conditions, null, guidance_scale)
    return stepped(scheduler, predicted, timestep, latents)


def stepped(
    scheduler: Any,  # noqa: ANN401
    predicted: torch.Tensor,
    timestep: torch.Tensor,
    latents: torch.Tensor,
) -> torch.Tensor:
    """What DDIM makes of latents (B, ...) and of what was predicted of them."""
    following: torch.Tensor = scheduler.step(
        predicted, timestep, latents, use_clipped_model_output=scheduler.config.clip_sample
    ).prev_sample
    return following


def _guided(
    generator: generators.Generator,
    latents: torch.Tensor,
    timestep: torch.Tensor,
    conditions: torch.Tensor,
    null: torch.Tensor | None,
    scale: float,
) -> torch.Tensor:
    """Both halves of guidance in one forward pass."""
    if null is None:
        timesteps = timestep.to(latents.device).expand(len(latents))
        return generator.predict(latents, timesteps, conditions)
    both = torch.cat([latents, latents])
    timesteps = timestep.to(latents.device).expand(len(both))
    asked = torch.cat([null.expand(conditions.shape), conditions])
    predicted = generator.predict(both, timesteps, asked)
    unconditional, conditional = predicted.chunk(2)
    return unconditional + scale * (conditional - unconditional)
