"""Are forgotten samples denoised better than samples that the model never saw?

The loss of a single draw is mostly noise, so each sample's loss is the mean over several time
steps, with the same noise for every sample and every net (compare arXiv 2302.01316).
"""

import dataclasses
from collections.abc import Callable

import torch

from salun_core import randomness, specs
from salun_core.diffusion import data as datasets
from salun_core.diffusion import denoising
from salun_core.diffusion import generator as generators
from salun_core.metrics import separation

_LEVELS = (0.05, 0.15, 0.25, 0.35, 0.5, 0.65)  # of the schedule's time steps
_DRAWS = 2  # of noise, at each level
_AT_ONCE = 64


@dataclasses.dataclass(frozen=True, eq=False)
class SampleSets:
    """What is compared.

    Attributes:
        forget: erased samples.
        holdout: samples never trained on.
    """

    forget: datasets.EncodedSet
    holdout: datasets.EncodedSet


def losses(
    generator: generators.Generator,
    encoded: datasets.EncodedSet,
    seed: int,
    after_step: Callable[[], None],
) -> torch.Tensor:
    """Mean denoising loss of every sample, float32 (N,), on the CPU.

    Args:
        generator: the model.
        encoded: N samples.
        seed: of the noise.
        after_step: called :func:`count_steps` times.
    """
    schedule = denoising.Schedule(generator)
    total = torch.zeros(len(encoded))
    for level in _LEVELS:
        timestep = int(level * schedule.timesteps)
        for draw in range(_DRAWS):
            random = randomness.generator(seed, "membership", timestep, draw)
            noise = torch.randn(encoded.latents.shape[1:], generator=random)
            total += _losses_at(generator, schedule, encoded, timestep, noise, after_step)
    return total / (len(_LEVELS) * _DRAWS)


def count_steps(sets: SampleSets) -> int:
    """How often reading both sets calls ``after_step``."""
    batches = sum(-(-len(one) // _AT_ONCE) for one in (sets.forget, sets.holdout))
    return len(_LEVELS) * _DRAWS * batches


def forget_holdout_auc(
    sets: SampleSets,
    forget_losses: torch.Tensor,
    holdout_losses: torch.Tensor,
    *,
    never_saw: bool = False,
) -> specs.Measurement:
    """AUC of the negative loss, forgotten against unseen samples of the same texts; 0.5 is the aim.

    Where less than half of the forgotten samples have a text that an unseen one has too, all are
    compared with all: the few that do would say nothing of the others. A model that
    ``never_saw`` the forgotten samples can only know them too well.
    """
    labels = _labels(sets)
    matched = 2 * int(torch.isin(*labels).sum()) >= len(labels[0])
    if not matched:
        labels = (torch.zeros_like(labels[0]), torch.zeros_like(labels[1]))
    found = separation.forget_holdout_auc(-forget_losses, labels[0], -holdout_losses, labels[1])
    return specs.Measurement(
        value=found.value,
        target=0.5,
        standard_error=found.standard_error,
        n=found.n_positive,
        side="not_above" if never_saw else "both",
        detail={
            "score": "negative denoising loss",
            "n_unseen": found.n_negative,
            "matched_by_text": matched,
            "mean_loss": {
                "forget": forget_losses.mean().item(),
                "holdout": holdout_losses.mean().item(),
            },
        },
    )


@torch.no_grad()
def _losses_at(
    generator: generators.Generator,
    schedule: denoising.Schedule,
    encoded: datasets.EncodedSet,
    timestep: int,
    noise: torch.Tensor,
    after_step: Callable[[], None],
) -> torch.Tensor:
    parts = []
    for start in range(0, len(encoded), _AT_ONCE):
        index = torch.arange(start, min(start + _AT_ONCE, len(encoded)))
        clean = encoded.latents[index]
        noised = schedule.noise_at(
            clean, torch.full((len(index),), timestep), noise.expand_as(clean)
        )
        found = denoising.sample_losses(generator, noised, encoded.conditions(index))
        parts.append(found.float().cpu())
        after_step()
    return torch.cat(parts)


def _labels(sets: SampleSets) -> tuple[torch.Tensor, torch.Tensor]:
    """A number for every text, the same in both sets."""
    texts = sorted({*sets.forget.texts, *sets.holdout.texts})
    numbers = {text: number for number, text in enumerate(texts)}
    forget, holdout = (
        torch.tensor([numbers[text] for text in one.texts])[one.rows]
        for one in (sets.forget, sets.holdout)
    )
    return forget, holdout
