"""Try a model before it is served: a pass of the denoiser, a walk along the schedule, a picture."""

from collections.abc import Mapping
from typing import Any

import torch

from salun_core import errors, generation_specs
from salun_core.diffusion import class_conditional, denoising, generator, opening, sampling

_SCHEDULER = "scheduler/scheduler_config.json"
_STEPS = 2


def check_schedule(config: dict[str, Any]) -> None:
    """It makes a schedule to train with and one to draw with.

    Raises:
        InvalidConfigError: it does not.
    """
    with opening.reading(_SCHEDULER):
        made = [build(config) for build in (denoising.ddpm, denoising.ddim)]
        steps = [len(one.alphas_cumprod) for one in made]
        finite = all(bool(torch.isfinite(one.alphas_cumprod).all()) for one in made)
        declared = made[0].config.num_train_timesteps
    if not finite:
        raise errors.InvalidConfigError(f"{_SCHEDULER}: betas are not finite")
    if steps != [declared, declared]:
        raise errors.InvalidConfigError(
            f"{_SCHEDULER}: got {steps[0]} betas, expected {declared} (num_train_timesteps)"
        )


def check_steps(config: Mapping[str, Any], steps: int) -> None:
    """The schedule can be walked from noise to a picture in so many steps.

    Raises:
        InvalidConfigError: it cannot, and no picture could be drawn.
    """
    scheduler = denoising.ddim(dict(config))
    trained = len(scheduler.alphas_cumprod)
    if steps > trained:
        raise errors.InvalidConfigError(
            f"{_SCHEDULER}: got {trained} num_train_timesteps, expected at least the {steps} steps "
            "of sampling in the model's policy"
        )
    with opening.reading(_SCHEDULER, "cannot be sampled with"):
        scheduler.set_timesteps(steps)
        latents = torch.ones(1, 1, 1, 1)
        for timestep in scheduler.timesteps:
            latents = sampling.stepped(scheduler, torch.zeros_like(latents), timestep, latents)
    if not bool(torch.isfinite(latents).all()):
        raise errors.InvalidConfigError(
            f"{_SCHEDULER}: got a schedule that ends in NaN or infinity after {steps} steps"
        )


def check_sampling(made: generator.Generator, how: generation_specs.Sampling) -> None:
    """Pictures can be drawn in the way that the model is served: one is, in fewer steps.

    Raises:
        InvalidConfigError: they cannot.
        InvalidDataError: guidance is asked of a model without a null condition.
    """
    check_steps(made.scheduler_config, how.steps)
    short = how.model_copy(update={"steps": min(how.steps, _STEPS)})
    with opening.reading(made.weights_file, "no picture can be drawn"):
        sampling.draw(made, made.conditions([_example(made)]), short, seed=0)


@torch.no_grad()
def check_output(made: generator.Generator, where: str) -> None:
    """One small forward pass: the parts fit each other.

    Args:
        made: the model.
        where: the configuration that is told to be wrong.

    Raises:
        InvalidConfigError: the pass fails.
        ArchitectureMismatchError: it gives something of another size.
    """
    with opening.reading(where, "the parts do not fit"):
        device = next(made.denoiser.parameters()).device
        noisy = torch.zeros(1, *made.latent_size, device=device)
        conditions = made.conditions([_example(made)])
        timesteps = torch.zeros(1, dtype=torch.int64, device=device)
        predicted = made.predict(noisy, timesteps, conditions)
    if predicted.shape != noisy.shape:
        raise errors.ArchitectureMismatchError(
            f"{where}: the denoiser gave {tuple(predicted.shape)}, expected {tuple(noisy.shape)}"
        )


def _example(made: generator.Generator) -> str:
    """Something that the model can be asked for."""
    return made.classes[0] if isinstance(made, class_conditional.ClassConditional) else ""
