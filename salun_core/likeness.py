"""Are erased samples like unseen ones? Comparisons of the two, class-matched. Pure.

Where the outputs say in which fold a sample is, each fold is compared with the samples outside of
it; see :mod:`salun_core.crossfit`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch

from salun_core import crossfit, specs
from salun_core.metrics import accuracy, membership, separation


@dataclasses.dataclass(frozen=True, eq=False)
class Outputs:
    """One split as two nets see it.

    Attributes:
        before: int64 (N,), the classes that the original gives.
        after: int64 (N,), those of the net that is measured.
        scores: float (N,), its logit-scaled confidence in the true class.
        labels: int64 (N,).
        folds: int64 (N,) of :mod:`salun_core.crossfit`; ``None`` without cross-fitting.
        groups: int64 (N,), equal for samples that are to be looked at together too; ``None`` where
            all are alike.
    """

    before: torch.Tensor
    after: torch.Tensor
    scores: torch.Tensor
    labels: torch.Tensor
    folds: torch.Tensor | None = None
    groups: torch.Tensor | None = None

    def select(self, rows: torch.Tensor) -> "Outputs":
        """The samples where the bool (N,) is true, or at these positions, int64 (n,)."""
        return Outputs(
            self.before[rows],
            self.after[rows],
            self.scores[rows],
            self.labels[rows],
            None if self.folds is None else self.folds[rows],
            None if self.groups is None else self.groups[rows],
        )


Pair = tuple[Outputs, Outputs]
Comparing = Callable[[Outputs, Outputs], crossfit.Compared]


def pairs(erased: Outputs, unseen: Outputs) -> list[Pair]:
    """What is to be compared: all with all, or each fold of the erased with the unseen outside it.

    Both sides of a pair hold samples of the classes that they share only: whatever is known of the
    others, there is nothing to hold it against. A pair that shares none is left out, so the list
    may be empty.
    """
    found = [(erased, unseen)]
    if erased.folds is not None and unseen.folds is not None:
        found = [
            (erased.select(erased.folds == fold), unseen.select(unseen.folds != fold))
            for fold in crossfit.FOLDS
        ]
    shared = [(_of_classes(own, other), _of_classes(other, own)) for own, other in found]
    return [pair for pair in shared if len(pair[0].labels)]


def measured(
    found: list[Pair],
    compare: Comparing,
    detail: Mapping[str, Any] | None = None,
    *,
    side: specs.Side = "both",
    surest: bool = True,
) -> specs.Measurement:
    """The surest of the comparisons, or their mean; the detail has all where there are several.

    Args:
        found: one pair or more, from :func:`pairs`.
        compare: what is measured on a pair.
        detail: what else is to stand in the measurement.
        side: which misses can be the net's doing.
        surest: that one counts, otherwise the mean of all.
    """
    every = [compare(*pair) for pair in found]
    chosen = crossfit.surest(every, side) if surest else crossfit.mean(every)
    told: dict[str, Any] = {**(detail or {}), "n_unseen": chosen.n_unseen}
    if len(every) > 1:
        told["mean"] = crossfit.mean(every).value
        told["folds"] = [dataclasses.asdict(one) for one in every]
    return specs.Measurement(
        value=chosen.value,
        target=chosen.target,
        standard_error=chosen.standard_error,
        n=chosen.n,
        side=side,
        detail=told,
    )


def error_rate(erased: Outputs, unseen: Outputs) -> crossfit.Compared:
    """1 − accuracy of either, of one of :func:`pairs`."""
    weights = separation.class_matched_weights(erased.labels, unseen.labels)
    rate = 1.0 - accuracy.weighted_accuracy(unseen.after, unseen.labels, weights[1])
    own = 1.0 - accuracy.accuracy(erased.after, erased.labels)
    return _shares(own, rate, erased, weights)


def auc(erased: Outputs, unseen: Outputs) -> crossfit.Compared:
    """See :func:`salun_core.metrics.separation.forget_holdout_auc`."""
    found = separation.forget_holdout_auc(
        erased.scores, erased.labels, unseen.scores, unseen.labels
    )
    return crossfit.Compared(
        found.value, 0.5, found.standard_error, found.n_positive, found.n_negative
    )


def efficacy(
    attack: membership.Attack, feature: Callable[[torch.Tensor], torch.Tensor]
) -> Comparing:
    """Share of either that an attack takes for unseen, of one of :func:`pairs`.

    The attack looks at a feature of the scores.
    """

    def compare(erased: Outputs, unseen: Outputs) -> crossfit.Compared:
        weights = separation.class_matched_weights(erased.labels, unseen.labels)
        own = share_called_unseen(attack, feature(erased.scores))
        target = membership.mia_efficacy(attack, feature(unseen.scores), weights[1])
        return _shares(own, target, erased, weights)

    return compare


def share_called_unseen(attack: membership.Attack, features: torch.Tensor) -> float:
    """Share of samples that an attack takes for unseen, all weighing the same."""
    count = len(features)
    even = torch.full((count,), 1.0 / count, dtype=torch.float64)
    return membership.mia_efficacy(attack, features, even)


def true_positive_rate(erased: Outputs, unseen: Outputs) -> crossfit.Compared:
    """Share of the erased above the threshold that 1 % of the unseen pass, of one of :func:`pairs`.

    The unseen ones are given the class mix of the erased: where one class is surer than the others,
    who is of that class would pass more often otherwise, known or not.
    """
    weights = separation.class_matched_weights(erased.labels, unseen.labels)[1]
    threshold = membership.threshold_at(unseen.scores, weights)
    counts = len(erased.labels), len(unseen.labels)
    value, error = threshold.share_above(erased.scores), threshold.standard_error(counts[0])
    return crossfit.Compared(value, threshold.rate, error, *counts)


def _of_classes(outputs: Outputs, others: Outputs) -> Outputs:
    """The samples whose class the others have too."""
    return outputs.select(torch.isin(outputs.labels, others.labels))


def _shares(
    own: float, target: float, erased: Outputs, weights: tuple[torch.Tensor, torch.Tensor]
) -> crossfit.Compared:
    sizes = [accuracy.effective_size(w) for w in weights]
    error = accuracy.proportion_standard_error(own, sizes[0], target, sizes[1])
    counted = int(torch.count_nonzero(weights[1]))
    return crossfit.Compared(own, target, error, len(erased.labels), counted)
