"""SalUn for generation: only salient weights change (arXiv 2310.12508, equation 6).

- ``anchor``: min E‖ε_θ(x_t | c) − ε_θo(x_t | c′)‖² on the forget set, with a frozen teacher.
- ``replacement``: four fifths of that on pictures of what is drawn instead.
- ``spread``: kept samples are learnt under the forgotten condition c, so that p(x | c) becomes the
  distribution of all that is kept; on forgotten samples c points away from them.
- ``matched`` (samples): the loss on forgotten samples is raised to that on unseen ones, no higher.

Each with a retain term that is a mean, like the forget term.
"""

from collections.abc import Callable, Mapping

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
        losses = _TOWARDS_OTHERS[spec.targets](spec, parts)
    return loop.train(generator, mask, spec, losses, report, checkpoints)


def _anchor(spec: generation_specs.GenerationSpec, parts: loss_parts.Parts) -> loop.Losses:
    def losses(random: torch.Generator) -> Mapping[str, torch.Tensor]:
        anchored = parts.anchored(spec.forget_batch_size, random)
        forget, retain = parts.losses(anchored, parts.retain(random))
        return {"forget": forget.mean(), "retain": spec.retain_weight * retain.mean()}

    return losses


def _replacement(spec: generation_specs.GenerationSpec, parts: loss_parts.Parts) -> loop.Losses:
    own = max(1, spec.forget_batch_size // _OWN)
    others = max(1, spec.forget_batch_size - own)

    def losses(random: torch.Generator) -> Mapping[str, torch.Tensor]:
        anchored, replaced, retain = parts.losses(
            parts.anchored(own, random), parts.replaced(others, random), parts.retain(random)
        )
        forget = torch.cat([anchored, replaced]).mean()
        return {"forget": forget, "retain": spec.retain_weight * retain.mean()}

    return losses


def _spread(spec: generation_specs.GenerationSpec, parts: loss_parts.Parts) -> loop.Losses:
    half = max(1, spec.forget_batch_size // 2)

    def losses(random: torch.Generator) -> Mapping[str, torch.Tensor]:
        among_kept, away, retain = parts.losses(
            parts.spread(half, random), parts.away(half, random), parts.retain(random)
        )
        forget = torch.cat([among_kept, away]).mean()
        return {"forget": forget, "retain": spec.retain_weight * retain.mean()}

    return losses


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


_TOWARDS_OTHERS: Mapping[
    str, Callable[[generation_specs.GenerationSpec, loss_parts.Parts], loop.Losses]
] = {"anchor": _anchor, "replacement": _replacement, "spread": _spread}
