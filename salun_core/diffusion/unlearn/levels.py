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
    like: datasets.EncodedSet,
    seed: int,
) -> Levels:
    """The levels of a model, from 256 seeded draws a range.

    Texts are as frequent among the draws as in ``like``; for those that no unseen sample has all
    unseen samples count alike.
    """
    weights = _weights(unseen, like)
    random = randomness.generator(seed, "levels")
    width = schedule.timesteps / _BINS
    means = []
    for place in range(_BINS):
        losses = []
        for _ in range(_PER_BIN // _AT_ONCE):
            rows = torch.multinomial(weights, _AT_ONCE, replacement=True, generator=random)
            drawn = torch.rand(_AT_ONCE, generator=random)
            timesteps = ((place + drawn) * width).long().clamp_max(schedule.timesteps - 1)
            noise = torch.randn(unseen.latents[rows].shape, generator=random)
            noised = schedule.noise_at(unseen.latents[rows], timesteps, noise)
            losses.append(denoising.sample_losses(generator, noised, unseen.conditions(rows)))
        means.append(torch.cat(losses).mean())
    return Levels(torch.stack(means).to(modes.device_of(generator.denoiser)), schedule.timesteps)


def _weights(unseen: datasets.EncodedSet, like: datasets.EncodedSet) -> torch.Tensor:
    """How often each unseen sample is drawn, float64 (N,)."""
    wanted, had = _by_text(like), _by_text(unseen)
    share = [wanted.get(text, 0) / max(had[text], 1) for text in unseen.texts]
    weights = torch.tensor(share, dtype=torch.float64)[unseen.rows]
    return weights + (len(like) - weights.sum()).clamp_min(0.0) / len(unseen)


def _by_text(encoded: datasets.EncodedSet) -> dict[str, int]:
    counts = torch.bincount(encoded.rows, minlength=len(encoded.texts)).tolist()
    return dict(zip(encoded.texts, counts, strict=True))
