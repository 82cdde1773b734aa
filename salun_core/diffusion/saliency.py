"""Weight saliency of a denoiser: |∇θ denoising loss| on the forget set, the largest of them.

As for classifiers (arXiv 2310.12508, equations 3 and 4), gradients are summed over the whole
forget set with fixed, seeded time steps and noise, and the absolute value is taken once. The
prediction may be the guided one, as the authors' is for Stable Diffusion.
"""

from collections.abc import Callable

import torch

from salun_core import (
    errors,
    generation_specs,
    masks,
    modes,
    progress,
    randomness,
)
from salun_core import saliency as classifier_saliency
from salun_core.diffusion import data as datasets
from salun_core.diffusion import denoising
from salun_core.diffusion import generator as generators

_DRAWS = 1024  # pairs of time step and noise, at least; small sets are noised several times
_MOST_DRAWS = 8192
_MOST_KEPT_DRAWS = 1024  # of what is kept, which weights are only contrasted with
_FLOOR = 0.01  # of the mean: keeps a quotient finite


def magnitudes(
    generator: generators.Generator,
    samples: datasets.EncodedSet,
    *,
    guidance: float,
    batch_size: int,
    seed: int,
    report: progress.Progress = progress.silent,
    most_draws: int = _MOST_DRAWS,
) -> dict[str, torch.Tensor]:
    """|mean over samples, time steps and noise of ∇θ loss| for every parameter, float32.

    Args:
        generator: weights, gradients and mode of its denoiser are as before afterwards.
        samples: N samples; each is noised ``ceil(1024 / N)`` times, or a part of them once.
        guidance: scale of the prediction; 1 is the conditional one alone.
        batch_size: samples a forward pass.
        seed: of time steps and noise.
        report: called after every batch.
        most_draws: how many samples are noised once where there are more.

    Raises:
        InvalidDataError: guidance is asked of a model without a null condition.
        NonFiniteLossError: a gradient is not finite.
        CancelledError: from ``report``.
    """
    schedule = denoising.Schedule(generator)
    random = randomness.generator(seed, "saliency")
    order = _order(len(samples), most_draws, random)
    net = generator.denoiser
    null = None if guidance == 1.0 else generator.null_condition()
    with modes.evaluating(net), modes.own_gradients(net), modes.checkpointing(net):
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            noised = schedule.noise(samples.latents[rows], random)
            conditions = samples.conditions(rows)
            predicted = denoising.guided(generator, noised, conditions, null, guidance)
            loss = (predicted.float() - noised.target).square().flatten(1).mean(1).sum()
            (loss / len(order)).backward()  # type: ignore[no-untyped-call]
            report(min(start + batch_size, len(order)), len(order))
        return {
            name: classifier_saliency.magnitude(name, parameter)
            for name, parameter in net.named_parameters()
        }


def saliency_mask(
    generator: generators.Generator,
    forget: datasets.EncodedSet,
    retain: datasets.EncodedSet,
    spec: generation_specs.GenerationSpec,
    report: progress.Progress = progress.silent,
) -> masks.SaliencyMask:
    """The mask of the weights that matter most for the forget set.

    With ``spec.contrast`` κ weights rank by |g_f| / |g_r|^κ: what matters for the forget set and
    little for what is kept comes first. ``spec.density`` is a share of what ``spec.trainable``
    leaves free.

    Raises:
        InvalidDataError, NonFiniteLossError, CancelledError: as for :func:`magnitudes`.
    """

    def measured(samples: datasets.EncodedSet, most_draws: int) -> dict[str, torch.Tensor]:
        return magnitudes(
            generator,
            samples,
            guidance=spec.mask_guidance,
            batch_size=spec.forget_batch_size,
            seed=spec.seed,
            report=report,
            most_draws=most_draws,
        )

    found = _restricted(measured(forget, _MOST_DRAWS), spec.trainable)
    if spec.contrast:
        kept = measured(retain, _MOST_KEPT_DRAWS)
        mean = sum(float(m.sum()) for m in kept.values()) / sum(m.numel() for m in kept.values())
        for name, magnitude in found.items():
            magnitude /= (kept[name] + _FLOOR * mean) ** spec.contrast
    free = sum(m.numel() for name, m in found.items() if trainable(spec.trainable)(name))
    share = free / sum(m.numel() for m in found.values())
    return classifier_saliency.mask_from_magnitudes(found, spec.density * share)


def trainable(which: generation_specs.Trainable) -> Callable[[str], bool]:
    """Whether a parameter of that name may be changed at all."""
    if which == "all":
        return lambda _: True
    wants_attention = which == "cross_attention"
    return lambda name: (".attn2." in name) == wants_attention


def _restricted(
    found: dict[str, torch.Tensor], which: generation_specs.Trainable
) -> dict[str, torch.Tensor]:
    is_wanted = trainable(which)
    for name, magnitude in found.items():
        if not is_wanted(name):
            magnitude.zero_()
    if not any(bool(magnitude.any()) for magnitude in found.values()):
        raise errors.InvalidDataError(
            f"got a net of which {which} has no gradient, expected parameters to change"
        )
    return found


def _order(count: int, most: int, random: torch.Generator) -> torch.Tensor:
    """Positions of the samples, each as often as it is noised; a large set is sampled."""
    if count > most:
        return torch.randperm(count, generator=random)[:most].sort().values
    return torch.arange(count).repeat(-(-_DRAWS // count))
