"""What every method takes and gives."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch

from salun_core import crossfit, errors, images, masks, progress, specs


@dataclasses.dataclass(frozen=True, eq=False)
class UnlearningData:
    """The sets a method may look at. The test set is not among them.

    Attributes:
        forget_set: what this job erases.
        retain_set: what the net keeps; holds nothing that was ever erased.
        holdout_set: never trained on; needed by matched targets, may be empty otherwise.
        previous_set: erased by earlier jobs, kept erased in this one; ``None`` or empty if none.
        excluded_labels: classes of which nothing is kept, but the forget set's own: earlier jobs
            erased them as a whole, or later ones are to.
        base_knows_previous: the net that is unlearned was trained on ``previous_set`` and has not
            forgotten it yet; then the mask is of both.
        cross_fitted: erased samples are matched to holdout samples of their own fold only, see
            :mod:`salun_core.crossfit`.
    """

    forget_set: images.ImageSet
    retain_set: images.ImageSet
    holdout_set: images.ImageSet
    previous_set: images.ImageSet | None = None
    excluded_labels: tuple[int, ...] = ()
    cross_fitted: bool = False
    base_knows_previous: bool = False

    def folds(self, image_set: images.ImageSet) -> torch.Tensor:
        """The folds of erased or holdout samples, int64 (N,); all 0 without cross-fitting.

        A holdout sample has its place in the whole holdout set, an erased one goes by its id alone.
        """
        if not self.cross_fitted:
            return torch.zeros(len(image_set), dtype=torch.int64)
        unseen = crossfit.folds_in(image_set, self.holdout_set)
        return torch.where(unseen < 0, crossfit.erased_folds(image_set), unseen)


@dataclasses.dataclass(frozen=True)
class EpochLosses:
    """Mean losses of the steps of one epoch; ``None`` where the method has no such part."""

    retain: float | None
    forget: float | None

    @classmethod
    def of(cls, retain: float, forget: float) -> "EpochLosses":
        """Of means that are NaN where there is none."""
        return cls(*(None if math.isnan(mean) else mean for mean in (retain, forget)))


@dataclasses.dataclass(frozen=True)
class UnlearnResult:
    """What a method did to the net.

    Attributes:
        steps: optimizer steps of the whole run, those before a resume included.
        losses: one entry for every epoch, those before a resume included.
        changed_buffers: state names of the buffers that may have changed.
        detail: the method's own figures, JSON values.
    """

    steps: int
    losses: tuple[EpochLosses, ...]
    changed_buffers: tuple[str, ...]
    detail: Mapping[str, Any]


# In place on the net, which must hold the original weights, also when a run is resumed.
Method = Callable[
    [
        torch.nn.Module,
        specs.ClassifierConfig,
        UnlearningData,
        masks.SaliencyMask | None,
        specs.UnlearningSpec,
        progress.Progress,
        progress.Checkpoints | None,
    ],
    UnlearnResult,
]


def check_data(data: UnlearningData, num_classes: int) -> None:
    """The sets can be used together.

    Raises:
        InvalidDataError: the forget or retain set is empty, a label is no class of the net, or a
            sample is in two sets.
    """
    sets = {"forget": data.forget_set, "retain": data.retain_set, "holdout": data.holdout_set}
    if data.previous_set is not None:
        sets["previous"] = data.previous_set
    seen: dict[str, str] = {}
    for name, image_set in sets.items():
        if not len(image_set) and name in ("forget", "retain"):
            raise errors.InvalidDataError(f"got an empty {name} set, expected samples")
        images.check_labels(image_set, num_classes)
        for sample_id in image_set.ids:
            if sample_id in seen:
                raise errors.InvalidDataError(
                    f"sample {sample_id!r}: got it in the {seen[sample_id]} and the {name} set"
                )
            seen[sample_id] = name


def erased_set(data: UnlearningData) -> images.ImageSet:
    """The forget set, then what earlier jobs erased."""
    if data.previous_set is None or not len(data.previous_set):
        return data.forget_set
    return images.concatenate(data.forget_set, data.previous_set)


def known_set(data: UnlearningData) -> images.ImageSet:
    """What is to be erased and the net still knows: the mask is of its gradients."""
    return erased_set(data) if data.base_knows_previous else data.forget_set


def refused_labels(data: UnlearningData) -> tuple[int, ...]:
    """Classes with no retain sample: nothing may be sent there. Includes ``excluded_labels``."""
    kept = set(data.retain_set.labels.tolist())
    erased = set(data.forget_set.labels.tolist()) | set(data.excluded_labels)
    return tuple(sorted((erased - kept) | set(data.excluded_labels)))


def given(figure: float | None, name: str) -> float:
    """A figure of the recipe that the method cannot do without.

    Raises:
        InvalidInputError: the recipe is another method's and has none.
    """
    if figure is None:
        raise errors.InvalidInputError(f"got a recipe without {name}, expected a number")
    return figure
