"""The parts of a loss: a batch of samples, noised, under some conditions, towards some target."""

import copy
import dataclasses

import torch

from salun_core import errors, generation_specs, modes
from salun_core.diffusion import denoising
from salun_core.diffusion import generator as generators
from salun_core.diffusion.unlearn import contract, loop


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """What the denoiser is asked, and what it shall say.

    Attributes:
        noised: (B, ...) latents and time steps; its own target is what a denoiser should say.
        conditions: (B, ...).
        target: (B, ...), without gradients.
    """

    noised: denoising.Noised
    conditions: torch.Tensor
    target: torch.Tensor


class Parts:
    """Draws parts for the steps of one run.

    Args:
        generator: the model.
        data: what may be looked at.
        spec: the recipe.
        teacher: the original; with it kept samples are learnt from its predictions, not from the
            noise that was drawn.
    """

    def __init__(
        self,
        generator: generators.Generator,
        data: contract.GenerationData,
        spec: generation_specs.GenerationSpec,
        teacher: generators.Generator | None = None,
    ) -> None:
        self.schedule = denoising.Schedule(generator)
        self._generator, self._data, self._spec = generator, data, spec
        self._teacher = teacher
        try:
            self._null: torch.Tensor | None = generator.null_condition()
        except errors.InvalidDataError:
            self._null = None

    def retain(self, random: torch.Generator) -> Part:
        """Kept samples, some without a condition, towards their noise or what the teacher says.

        Without a condition the teacher would tell of what is forgotten too: there it is the noise.
        """
        kept, spec = self._data.retain, self._spec
        rows = loop.choose(len(kept), spec.retain_batch_size, random)
        noised = self.schedule.noise(kept.latents[rows], random)
        conditions, target = kept.conditions(rows), noised.target
        if self._teacher is not None:
            target = _said(self._teacher, noised, conditions)
        if self._null is not None:
            dropped = torch.rand(len(rows), generator=random) < spec.condition_drop
            conditions = _where(dropped, self._null, conditions)
            target = _where(dropped, noised.target, target)
        return Part(noised, conditions, target)

    def forget(self, random: torch.Generator) -> Part:
        """Forget samples under their own conditions, towards their own noise."""
        forget = self._data.forget
        rows = loop.choose(len(forget), self._spec.forget_batch_size, random)
        noised = self.schedule.noise(forget.latents[rows], random)
        return Part(noised, forget.conditions(rows), noised.target)

    def anchored(self, teacher: generators.Generator, random: torch.Generator) -> Part:
        """Forget samples towards what the teacher says of them under another condition."""
        forget = self._data.forget
        rows = loop.choose(len(forget), self._spec.forget_batch_size, random)
        noised = self.schedule.noise(forget.latents[rows], random)
        anchors = self._data.anchors_of(rows, random)
        return Part(noised, forget.conditions(rows), _said(teacher, noised, anchors))

    def spread(self, retain: Part, random: torch.Generator) -> Part:
        """The first samples of a retain part under forgotten conditions, towards the same."""
        size = min(self._spec.forget_batch_size, self._spec.retain_batch_size)
        noised = denoising.Noised(
            retain.noised.latents[:size],
            retain.noised.timesteps[:size],
            retain.noised.target[:size],
        )
        rows = loop.choose(len(self._data.forget), size, random)
        return Part(noised, self._data.forget.conditions(rows), retain.target[:size])

    def losses(self, *parts: Part) -> list[torch.Tensor]:
        """Mean squared errors of each part's samples, (B,) for each, in one forward pass."""
        noisy = torch.cat([part.noised.latents for part in parts])
        timesteps = torch.cat([part.noised.timesteps for part in parts])
        conditions = torch.cat([part.conditions for part in parts])
        target = torch.cat([part.target for part in parts])
        predicted = self._generator.predict(noisy, timesteps, conditions)
        errors_of = (predicted.float() - target).square().flatten(1).mean(1)
        sizes = [len(part.target) for part in parts]
        return list(errors_of.split(sizes))  # type: ignore[no-untyped-call]


def frozen_copy(generator: generators.Generator) -> generators.Generator:
    """The model as it is now; nothing of it receives a gradient."""
    net = copy.deepcopy(generator.denoiser).eval().requires_grad_(False)
    if modes.device_of(net).type == "cuda" and torch.cuda.is_bf16_supported():
        net = net.to(torch.bfloat16)
    return generator.with_denoiser(net)


@torch.no_grad()
def _said(
    teacher: generators.Generator, noised: denoising.Noised, conditions: torch.Tensor
) -> torch.Tensor:
    return teacher.predict(noised.latents, noised.timesteps, conditions).float()


def _where(chosen: torch.Tensor, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Of two (B, ...) tensors a row of the first where chosen (B,)."""
    rows = chosen.to(second.device).reshape(-1, *[1] * (second.ndim - 1))
    return torch.where(rows, first, second)
