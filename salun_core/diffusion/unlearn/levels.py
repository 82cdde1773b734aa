"""How large the denoising loss is on samples that were never trained on, by time step."""

import dataclasses

import torch

from salun_core import modes, randomness
from salun_core.diffusion import data as datasets
from salun_core.diffusion import denoising
from salun_core.diffusion import generator as generators

_BINS = 20
_PER_BIN = 256
_AT_ONCE = 64


@dataclasses.dataclass(frozen=True, eq=False)
class Levels:
    """Mean losses of unseen samples in equal ranges of time steps.

    Attributes:
        means: float32 (20,).
        timesteps: how many there are.
    """

    means: torch.Tensor
    timesteps: int

    def at(self, timesteps: torch.Tensor) -> torch.Tensor:
        """The level at each of these time steps, (B,)."""
        return self.means[timesteps * len(self.means) // self.timesteps]


@torch.no_grad()
def measure(
    generator: generators.Generator,
    schedule: denoising.Schedule,
    unseen: datasets.EncodedSet,
    seed: int,
) -> Levels:
    """The levels of a model, from 256 seeded draws a range."""
    random = randomness.generator(seed, "levels")
    width = schedule.timesteps / _BINS
    means = []
    for place in range(_BINS):
        losses = []
        for _ in range(_PER_BIN // _AT_ONCE):
            rows = torch.randint(0, len(unseen), (_AT_ONCE,), generator=random)
            drawn = torch.rand(_AT_ONCE, generator=random)
            timesteps = ((place + drawn) * width).long().clamp_max(schedule.timesteps - 1)
            noise = torch.randn(unseen.latents[rows].shape, generator=random)
            noised = schedule.noise_at(unseen.latents[rows], timesteps, noise)
            losses.append(denoising.sample_losses(generator, noised, unseen.conditions(rows)))
        means.append(torch.cat(losses).mean())
    return Levels(torch.stack(means).to(modes.device_of(generator.denoiser)), schedule.timesteps)
