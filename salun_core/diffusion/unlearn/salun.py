"""SalUn for generation: only salient weights change (arXiv 2310.12508, equation 6).

- ``anchor``: min E‖ε_θ(x_t | c) − ε_θo(x_t | c′)‖² on the forget set, with a frozen teacher.
- ``replacement``: four fifths of that on pictures of what is drawn instead.
- ``spread``: kept samples are learnt under the forgotten condition c, so that p(x | c) becomes the
  distribution of all that is kept; on forgotten samples c points away from them.
- ``matched`` (samples): the loss on forgotten samples is raised to that on unseen ones, no higher.

Each with a retain term that is a mean, like the forget term.
"""

from collections.abc import Callable, Mapping, Sequence

import torch

from salun_core import errors, generation_specs, masks, progress
from salun_core.diffusion import generator as generators
from salun_core.diffusion.unlearn import contract, levels, loop
from salun_core.diffusion.unlearn import parts as loss_parts
from salun_core.unlearn import contract as results

_OWN = 5  # of a batch one in so many is a forgotten picture, the others stand in for them


def unlearn(
    generator: generators.Generator,
    data: contract.GenerationData,
    mask: masks.SaliencyMask | None,
    spec: generation_specs.GenerationSpec,
    report: progress.Progress,
    checkpoints: progress.Checkpoints | None = None,
) -> results.UnlearnResult:
    """Make the model forget; in place, weights outside the mask untouched.

    Raises:
        InvalidDataError: matched targets without a holdout set, replacement targets without
            stand-ins.
        NonFiniteLossError: the loss became NaN or infinite.
    """
    teacher = None if spec.targets == "matched" else loss_parts.frozen_copy(generator)
    parts = loss_parts.Parts(generator, data, spec, teacher)
    if spec.targets == "matched":
        losses = _matched(generator, data, spec, parts)
    else:
        losses = _towards_others(spec, parts)
    return loop.train(generator, mask, spec, losses, report, checkpoints)


def _towards_others(spec: generation_specs.GenerationSpec, parts: loss_parts.Parts) -> loop.Losses:
    draw = _FORGET_PARTS[spec.targets]

    def losses(random: torch.Generator) -> Mapping[str, torch.Tensor]:
        drawn = draw(parts, spec.forget_batch_size, random)
        *forget, retain = parts.losses(*drawn, parts.retain(random))
        return {
            "forget": torch.cat(forget).mean(),
            "retain": spec.retain_weight * retain.mean(),
        }

    return losses


def _anchor(
    parts: loss_parts.Parts, size: int, random: torch.Generator
) -> Sequence[loss_parts.Part]:
    return [parts.anchored(size, random)]


def _replacement(
    parts: loss_parts.Parts, size: int, random: torch.Generator
) -> Sequence[loss_parts.Part]:
    own = max(1, size // _OWN)
    return [parts.anchored(own, random), parts.replaced(max(1, size - own), random)]


def _spread(
    parts: loss_parts.Parts, size: int, random: torch.Generator
) -> Sequence[loss_parts.Part]:
    half = max(1, size // 2)
    return [parts.spread(half, random), parts.away(half, random)]


_FORGET_PARTS: Mapping[
    str, Callable[[loss_parts.Parts, int, torch.Generator], Sequence[loss_parts.Part]]
] = {"anchor": _anchor, "replacement": _replacement, "spread": _spread}


def _matched(
    generator: generators.Generator,
    data: contract.GenerationData,
    spec: generation_specs.GenerationSpec,
    parts: loss_parts.Parts,
) -> loop.Losses:
    if data.holdout is None or not len(data.holdout):
        raise errors.InvalidDataError(
            "got no samples that were never trained on, expected some for matched targets"
        )
    unseen = levels.measure(generator, parts.schedule, data.holdout, data.forget, spec.seed)

    def losses(random: torch.Generator) -> Mapping[str, torch.Tensor]:
        wanted = parts.forget(random)
        forget, retain = parts.losses(wanted, parts.retain(random))
        short = unseen.at(wanted.noised.timesteps) - forget
        return {
            "forget": short.mean().clamp_min(0.0),
            "retain": spec.retain_weight * retain.mean(),
        }

    return losses
