"""The denoising loss, with everything random drawn from seeds: time steps, noise, dropped texts.

ε-prediction: Ho et al., arXiv 2006.11239; v-prediction: Salimans and Ho, arXiv 2202.00512.
"""

import dataclasses
from typing import Any

import diffusers
import torch

from salun_core import modes
from salun_core.diffusion import generator as generators


@dataclasses.dataclass(frozen=True, eq=False)
class Noised:
    """Latents with noise on them.

    Attributes:
        latents: (B, ...), noisy.
        timesteps: int64 (B,).
        target: (B, ...), what a perfect denoiser would say, in the model's ``prediction_type``.
    """

    latents: torch.Tensor
    timesteps: torch.Tensor
    target: torch.Tensor


class Schedule:
    """The noise that a model was trained with.

    Args:
        generator: on any device; the schedule lies there too.
    """

    def __init__(self, generator: generators.Generator) -> None:
        self._scheduler = ddpm(generator.scheduler_config)
        self._device = modes.device_of(generator.denoiser)
        self.timesteps = int(self._scheduler.config.num_train_timesteps)

    def noise(self, latents: torch.Tensor, random: torch.Generator) -> Noised:
        """Noise clean latents (B, ...) at uniform time steps; draws on the CPU."""
        timesteps = torch.randint(0, self.timesteps, (len(latents),), generator=random)
        noise = torch.randn(latents.shape, generator=random)
        return self.noise_at(latents, timesteps, noise)

    def noise_at(
        self, latents: torch.Tensor, timesteps: torch.Tensor, noise: torch.Tensor
    ) -> Noised:
        """Noise clean latents (B, ...) with given time steps (B,) and noise (B, ...)."""
        clean, noise, at = (part.to(self._device) for part in (latents, noise, timesteps))
        noisy = self._scheduler.add_noise(clean, noise, at)
        is_velocity = self._scheduler.config.prediction_type == "v_prediction"
        target = self._scheduler.get_velocity(clean, noise, at) if is_velocity else noise
        return Noised(noisy, at, target)


def ddpm(config: dict[str, Any]) -> Any:  # noqa: ANN401 - diffusers has no types
    """The forward process of any served scheduler configuration."""
    return diffusers.DDPMScheduler.from_config(config)


def ddim(config: dict[str, Any]) -> Any:  # noqa: ANN401
    """The deterministic way back for any served scheduler configuration.

    DDIM clips unless it is told not to; most schedulers that a model may come with never do.
    """
    clips = config.get("_class_name", "DDIMScheduler") in ("DDIMScheduler", "DDPMScheduler")
    return diffusers.DDIMScheduler.from_config({"clip_sample": clips, **config})


def sample_losses(
    generator: generators.Generator, noised: Noised, conditions: torch.Tensor
) -> torch.Tensor:
    """Mean squared error of each sample's prediction, (B,)."""
    predicted = generator.predict(noised.latents, noised.timesteps, conditions)
    return (predicted.float() - noised.target).square().flatten(1).mean(1)


def drop_conditions(
    conditions: torch.Tensor, null: torch.Tensor, share: float, random: torch.Generator
) -> torch.Tensor:
    """A copy with about that share of the conditions (B, ...) replaced by the null one (1, ...)."""
    dropped = torch.rand(len(conditions), generator=random) < share
    mask = dropped.reshape(-1, *[1] * (conditions.ndim - 1))
    return torch.where(mask, null, conditions)


def guided(
    generator: generators.Generator,
    noised: Noised,
    conditions: torch.Tensor,
    null: torch.Tensor | None,
    scale: float,
) -> torch.Tensor:
    """Classifier-free guidance (arXiv 2207.12598): null + scale · (conditional − null).

    Of conditions (B, ...) and the null one (1, ...); without that the conditional one alone.
    """
    conditional = generator.predict(noised.latents, noised.timesteps, conditions)
    if null is None:
        return conditional
    unconditional = generator.predict(
        noised.latents, noised.timesteps, null.expand(conditions.shape)
    )
    return unconditional + scale * (conditional - unconditional)
