"""The parts of a loss: a batch of samples, noised, under some conditions, towards some target."""

import copy
import dataclasses

import torch

from salun_core import errors, generation_specs, modes
from salun_core.diffusion import denoising
from salun_core.diffusion import generator as generators
from salun_core.diffusion.unlearn import contract, loop

_PREFERRED = 4.0  # times as often as others come samples that have a stand-in
# η of arXiv 2303.07345. In 600 pictures for a forgotten class of digits a judge saw it 11 times
# with 1, once with 2 and never with 3, which sends them further from where retraining does (n 3).
_AWAY = 2.0


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
        teacher: the original, frozen; parts that aim at a prediction of it need it.
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
        """Kept samples, some without a condition, towards their noise."""
        kept, spec = self._data.retain, self._spec
        rows = loop.choose(len(kept), spec.retain_batch_size, random)
        noised = self.schedule.noise(kept.latents[rows], random)
        conditions = kept.conditions(rows)
        if self._null is not None:
            conditions = denoising.drop_conditions(
                conditions, self._null, spec.condition_drop, random
            )
        return Part(noised, conditions, noised.target)

    def forget(self, random: torch.Generator) -> Part:
        """Forget samples under their own conditions, towards their own noise."""
        forget = self._data.forget
        rows = loop.choose(len(forget), self._spec.forget_batch_size, random)
        noised = self.schedule.noise(forget.latents[rows], random)
        return Part(noised, forget.conditions(rows), noised.target)

    def anchored(self, size: int, random: torch.Generator) -> Part:
        """So many forget samples towards what the teacher says under another condition."""
        forget = self._data.forget
        rows = loop.choose(len(forget), size, random)
        noised = self.schedule.noise(forget.latents[rows], random)
        anchors = self._data.anchors_of(forget.rows[rows], random)
        return Part(noised, forget.conditions(rows), self._said(noised, anchors))

    def replaced(self, size: int, random: torch.Generator) -> Part:
        """The same on a stand-in for each forget sample; where its text has none, on itself.

        Samples with stand-ins come four times as often, so that some few do not take over.
        On the way to a picture of what is drawn instead the model meets noisy pictures of that, and
        hardly any of what is forgotten (Kumari et al., arXiv 2303.13516).
        """
        forget = self._data.forget
        often = torch.where(self._data.stand_in_counts[forget.rows] > 0, _PREFERRED, 1.0)
        rows = torch.multinomial(often, size, replacement=True, generator=random)
        noised = self.schedule.noise(self._data.stand_ins_of(rows, random), random)
        anchors = self._data.anchors_of(forget.rows[rows], random)
        return Part(noised, forget.conditions(rows), self._said(noised, anchors))

    def spread(self, size: int, random: torch.Generator) -> Part:
        """So many kept samples under forgotten conditions, towards their noise."""
        forget, kept = self._data.forget, self._data.retain
        noised = self.schedule.noise(kept.latents[loop.choose(len(kept), size, random)], random)
        rows = loop.choose(len(forget), size, random)
        return Part(noised, forget.conditions(rows), noised.target)

    def away(self, size: int, random: torch.Generator) -> Part:
        """So many forget samples towards the far side of what the teacher says without a condition.

        The score of all that is kept is that of everything less the forgotten part's:
        :func:`turned_away` points there. A model without a null condition is anchored instead.
        """
        forget = self._data.forget
        rows = loop.choose(len(forget), size, random)
        noised = self.schedule.noise(forget.latents[rows], random)
        own = forget.conditions(rows)
        if self._null is None:
            return Part(
                noised, own, self._said(noised, self._data.anchors_of(forget.rows[rows], random))
            )
        asked = noised.latents, noised.timesteps, own, self._null
        return Part(noised, own, turned_away(self._frozen(), *asked, _AWAY))

    @torch.no_grad()
    def _said(self, noised: denoising.Noised, conditions: torch.Tensor) -> torch.Tensor:
        return self._frozen().predict(noised.latents, noised.timesteps, conditions).float()

    def _frozen(self) -> generators.Generator:
        if self._teacher is None:
            raise errors.InvalidInputError("got no teacher, expected the frozen original")
        return self._teacher

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


@torch.no_grad()
def turned_away(
    teacher: generators.Generator,
    noisy: torch.Tensor,
    timesteps: torch.Tensor,
    conditions: torch.Tensor,
    null: torch.Tensor,
    eta: float,
) -> torch.Tensor:
    """ε_o(z) − η (ε_o(z, c) − ε_o(z)), float32 (B, ...), of noisy latents (B, ...).

    Equation 7 of Gandikota et al., arXiv 2303.07345.
    """
    conditional = teacher.predict(noisy, timesteps, conditions).float()
    free = teacher.predict(noisy, timesteps, null.expand(conditions.shape)).float()
    return free - eta * (conditional - free)


def frozen_copy(generator: generators.Generator) -> generators.Generator:
    """The model as it is now; nothing of it receives a gradient."""
    net = copy.deepcopy(generator.denoiser).eval().requires_grad_(False)
    if modes.has_bfloat16(modes.device_of(net)):
        net = net.to(torch.bfloat16)
    return generator.with_denoiser(net)
