"""Soft targets for erased samples: look like unseen data, neither better nor worse known.

No retrained net is needed. For samples, the confidence that the net has on holdout samples of the
same class tells how confident it would be without having seen them; the order of the samples by
difficulty is kept. For a class, each sample is spread as the net itself spreads it over the others.
"""

import dataclasses
from typing import Protocol

import numpy as np
import torch

from salun_core import confidence, errors, grouping, inference
from salun_core.metrics import separation

# Beyond these a target says nothing more: a share of 6e-6 or of 1 − 8e-7.
_LOWEST, _HIGHEST = -12.0, 14.0
_MATCHED = 0.02  # an AUC this near to 0.5


class Targets(Protocol):
    """Target distributions of the erased samples."""

    def distributions(self, rows: torch.Tensor) -> torch.Tensor:
        """Probabilities, float32 (len(rows), K), of the samples at these positions."""

    def scores(self, rows: torch.Tensor) -> torch.Tensor:
        """Wanted logit-scaled confidences, float32 (len(rows),); NaN where none is wanted."""

    def correct(self, erased: inference.Answers, holdout: inference.Answers | None, /) -> bool:
        """Close the loop after an epoch: shift the targets by what is still missing.

        Args:
            erased: what the present net says of the N samples.
            holdout: of the M holdout samples; needed where :meth:`state` is not empty.

        Returns:
            Whether the erased samples are where they should be.
        """

    def state(self) -> dict[str, torch.Tensor]:
        """What changes during a run, to be saved and overwritten in place."""


class Matched:
    """Quantile-matched targets in a closed loop.

    Sample i of the n_y erased ones of class y, ordered by logit-scaled confidence s at the
    original net, gets u = (i + ½)/n_y and as target confidence t the u-quantile of s over the
    holdout samples of class y (over all where the class has none). The target puts σ(t) on the
    true class and splits the rest as the original net does. After every epoch
    t += Q_holdout,y(u) − Q_erased,y(u), both at the present net. Cross-fitted, all of this holds
    within each fold alone: a fold's class without holdout samples takes all of that fold.

    Args:
        erased_logits: float (N, K) at the original net.
        erased_labels: int64 (N,).
        holdout_scores: logit-scaled confidences, float (M,), at the original net.
        holdout_labels: int64 (M,).
        refused: classes that get no share.
        folds: of the erased and of the holdout samples, int64 (N,) and (M,); see
            :mod:`salun_core.crossfit`. ``None`` for all in one.

    Raises:
        InvalidDataError: there is no holdout sample, or none in a fold that is to be matched.
    """

    def __init__(
        self,
        erased_logits: torch.Tensor,
        erased_labels: torch.Tensor,
        holdout_scores: torch.Tensor,
        holdout_labels: torch.Tensor,
        refused: tuple[int, ...] = (),
        folds: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> None:
        if len(erased_labels) and not len(holdout_labels):
            raise errors.InvalidDataError(
                "got an empty holdout set, expected unseen samples to match the forget set to"
            )
        if folds is None:
            folds = torch.zeros_like(erased_labels), torch.zeros_like(holdout_labels)
        if not bool(torch.isin(*folds).all()):
            raise errors.InvalidDataError(
                f"got {len(holdout_labels)} unseen samples that all fall to one fold, expected two "
                "of a class at least to cross-fit with"
            )
        self._labels, self._holdout_labels = erased_labels, holdout_labels
        self._strata = _Strata.of(erased_labels, folds[0])
        self._holdout_strata = _Strata.of(holdout_labels, folds[1])
        others = confidence.without_classes(erased_logits, refused)
        others = others.scatter(1, erased_labels.unsqueeze(1), float("-inf"))
        self._others = torch.softmax(others, dim=1)  # (N, K), 0 at the true class
        scores = confidence.logit_scaled_confidence(erased_logits, erased_labels)
        self._ranks = _quantile_ranks(scores, self._strata)
        self._confidence = self._wanted(holdout_scores)

    def distributions(self, rows: torch.Tensor) -> torch.Tensor:
        """See :class:`Targets`."""
        share = torch.sigmoid(self.scores(rows)).unsqueeze(1)
        targets = self._others[rows] * (1.0 - share)
        return targets.scatter(1, self._labels[rows].unsqueeze(1), share)

    def scores(self, rows: torch.Tensor) -> torch.Tensor:
        """See :class:`Targets`."""
        return self._confidence[rows].clamp(_LOWEST, _HIGHEST)

    def correct(self, erased: inference.Answers, holdout: inference.Answers | None, /) -> bool:
        """See :class:`Targets`; they are where they should be at an AUC of 0.5 ± 0.02."""
        if holdout is None:
            raise AssertionError("got nothing of the holdout samples")
        scores, unseen = erased.scores, holdout.scores
        reached = _quantiles(scores, self._strata, self._strata, self._ranks)
        self._confidence += self._wanted(unseen) - reached
        self._confidence.clamp_(_LOWEST, _HIGHEST)
        if not bool(torch.isin(self._labels, self._holdout_labels).any()):
            return False
        auc = separation.forget_holdout_auc(scores, self._labels, unseen, self._holdout_labels)
        return abs(auc.value - 0.5) <= _MATCHED

    def state(self) -> dict[str, torch.Tensor]:
        """See :class:`Targets`."""
        return {"confidence": self._confidence}

    def _wanted(self, holdout_scores: torch.Tensor) -> torch.Tensor:
        return _quantiles(holdout_scores, self._holdout_strata, self._strata, self._ranks)


class Redistributed:
    """Every sample spread over the other classes as the original net spreads it.

    Args:
        erased_logits: float (N, K) at the original net.
        erased_labels: int64 (N,).
        refused: classes that get no share, besides the sample's own.

    Raises:
        InvalidDataError: no class is left to spread to.
    """

    def __init__(
        self,
        erased_logits: torch.Tensor,
        erased_labels: torch.Tensor,
        refused: tuple[int, ...] = (),
    ) -> None:
        others = confidence.without_classes(erased_logits, refused)
        others = others.scatter(1, erased_labels.unsqueeze(1), float("-inf"))
        if len(others) and not bool(torch.isfinite(others).any(dim=1).all()):
            raise errors.InvalidDataError("got no other class to spread to, expected at least one")
        self._labels = erased_labels
        self._targets = torch.softmax(others, dim=1)

    def distributions(self, rows: torch.Tensor) -> torch.Tensor:
        """See :class:`Targets`."""
        return self._targets[rows]

    def scores(self, rows: torch.Tensor) -> torch.Tensor:
        """See :class:`Targets`; no confidence is wanted: the lower the better."""
        return torch.full((len(rows),), float("nan"))

    def correct(self, erased: inference.Answers, _: inference.Answers | None, /) -> bool:
        """See :class:`Targets`; nothing to correct, and no sample may be given its own class."""
        return not bool((erased.predicted == self._labels).any())

    def state(self) -> dict[str, torch.Tensor]:
        """See :class:`Targets`; nothing changes."""
        return {}


@dataclasses.dataclass(frozen=True, eq=False)
class _Strata:
    """What is matched with what: samples of one class in one fold.

    Attributes:
        folds: int64 (N,).
        rows: of every label and fold that occur together, int64 (n,).
    """

    folds: torch.Tensor
    rows: dict[tuple[int, int], torch.Tensor]

    @classmethod
    def of(cls, labels: torch.Tensor, folds: torch.Tensor) -> "_Strata":
        """Of samples with these labels and folds, int64 (N,) each."""
        rows = {
            (label, fold): members[own]
            for label, members in grouping.rows_by_label(labels).items()
            for fold, own in grouping.rows_by_label(folds[members]).items()
        }
        return cls(folds, rows)


def _quantile_ranks(scores: torch.Tensor, strata: _Strata) -> torch.Tensor:
    """(i + ½)/n for the sample of rank i among the n of its stratum; float64 (N,)."""
    ranks = torch.empty(len(scores), dtype=torch.float64)
    for members in strata.rows.values():
        order = scores[members].argsort(stable=True)
        ranks[members[order]] = (torch.arange(len(members), dtype=torch.float64) + 0.5) / len(
            members
        )
    return ranks


def _quantiles(
    scores: torch.Tensor, score_strata: _Strata, strata: _Strata, ranks: torch.Tensor
) -> torch.Tensor:
    """For every sample the quantile of its stratum's scores at its rank; float32 (N,)."""
    found = torch.empty(len(ranks), dtype=torch.float32)
    for (label, fold), members in strata.rows.items():
        alike = score_strata.rows.get((label, fold))
        pool = scores[score_strata.folds == fold if alike is None else alike]
        values = np.quantile(pool.double().numpy(), ranks[members].numpy(), method="hazen")
        found[members] = torch.from_numpy(values).float()
    return found
