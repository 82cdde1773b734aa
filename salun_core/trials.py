"""A whole recipe on one net, and one count of progress over several parts."""

import functools
import itertools
from collections.abc import Sequence

import torch

from salun_core import images, masks, preprocessing, progress, saliency, specs
from salun_core.unlearn import contract, methods


def mask_for(
    net: torch.nn.Module,
    config: specs.ClassifierConfig,
    forget_set: images.ImageSet,
    spec: specs.UnlearningSpec,
    report: progress.Progress = progress.silent,
) -> masks.SaliencyMask | None:
    """The mask that the recipe asks for; ``None`` where every weight may change.

    Its batches are those of the recipe, so that the mask needs no more memory than the steps.
    """
    if spec.mask == "none":
        return None
    preprocess = preprocessing.Preprocessing(config.pretrained_cfg)
    mask = saliency.saliency_mask(
        net, forget_set, preprocess, spec.density, report, batch_size=spec.batch_size
    )
    return masks.random_mask(mask, spec.seed) if spec.mask == "random" else mask


def carry_out(
    net: torch.nn.Module,
    config: specs.ClassifierConfig,
    data: contract.UnlearningData,
    spec: specs.UnlearningSpec,
    report: progress.Progress = progress.silent,
) -> contract.UnlearnResult:
    """Mask, then method; in place on a net that holds the original weights.

    Raises:
        InvalidDataError, NonFiniteLossError, FrozenWeightChangedError, CancelledError: as for
            :func:`salun_core.unlearn.methods.unlearn`.
    """
    mask = mask_for(net, config, contract.known_set(data), spec)
    return methods.unlearn(net, config, data, mask, spec, report)


def parts(report: progress.Progress, sizes: Sequence[int]) -> list[progress.Progress]:
    """One progress function for each part of a work, which ``report`` sees as a whole.

    Args:
        report: told steps of ``sum(sizes)``, never going back while the parts are done in order.
        sizes: how much of the work each part is, in any unit fine enough to be counted in.
    """
    starts = itertools.accumulate(sizes, initial=0)
    return [
        functools.partial(_tell, report, start, size, sum(sizes))
        for start, size in zip(starts, sizes, strict=False)
    ]


def _tell(
    report: progress.Progress, start: int, size: int, total: int, step: int, steps: int
) -> None:
    report(start + max(1, size * step // steps), total)
