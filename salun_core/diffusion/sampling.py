"""Draw pictures: deterministic DDIM (arXiv 2010.02502), the same noise for the same seed.

With ``clip_sample`` the clipped picture must be used to go on (``use_clipped_model_output``), else
DDIM mixes a clipped picture with the noise of an unclipped one and draws poorly.
"""

import diffusers
import torch

from salun_core import generation_specs, modes, progress, randomness
from salun_core.diffusion import generator as generators

BATCH_SIZE = 64


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
    scheduler = diffusers.DDIMScheduler.from_config(generator.scheduler_config)
    scheduler.set_timesteps(sampling.steps)
    random = randomness.generator(seed, "sampling")
    noise = torch.randn(len(conditions), *generator.latent_size, generator=random)
    starts = range(0, len(conditions), BATCH_SIZE)
    drawn = []
    for turn, start in enumerate(starts):
        wanted = conditions[start : start + BATCH_SIZE]
        current = noise[start : start + BATCH_SIZE].to(device)
        for step, timestep in enumerate(scheduler.timesteps, start=1):
            predicted = _guided(generator, current, timestep, wanted, sampling.guidance_scale)
            current = scheduler.step(
                predicted, timestep, current, use_clipped_model_output=scheduler.config.clip_sample
            ).prev_sample
            report(turn * sampling.steps + step, len(starts) * sampling.steps)
        drawn.append(generator.decode(current))
    return torch.cat(drawn)


def _guided(
    generator: generators.Generator,
    latents: torch.Tensor,
    timestep: torch.Tensor,
    conditions: torch.Tensor,
    scale: float,
) -> torch.Tensor:
    """Both halves of guidance in one forward pass."""
    if scale == 1.0:
        timesteps = timestep.to(latents.device).expand(len(latents))
        return generator.predict(latents, timesteps, conditions)
    null = generator.null_condition().expand(conditions.shape)
    both = torch.cat([latents, latents])
    timesteps = timestep.to(latents.device).expand(len(both))
    predicted = generator.predict(both, timesteps, torch.cat([null, conditions]))
    unconditional, conditional = predicted.chunk(2)
    return unconditional + scale * (conditional - unconditional)
