"""Soft targets for erased samples: look like unseen data, neither better nor worse known.

No retrained net is needed. For samples, the confidence that the net has on holdout samples of the
same class tells how confident it would be without having seen them; the order of the samples by
difficulty is kept. For a class, each sample is spread as the net itself spreads it over the others.
"""

from typing import Protocol

import numpy as np
import torch

from salun_core import confidence, errors

# Beyond these a target says nothing more: a share of 6e-6 or of 1 − 8e-7.
_LOWEST, _HIGHEST = -12.0, 14.0


class Targets(Protocol):
    """Target distributions of the erased samples."""

    def distributions(self, rows: torch.Tensor) -> torch.Tensor:
        """Probabilities, float32 (len(rows), K), of the samples at these positions."""

    def scores(self, rows: torch.Tensor) -> torch.Tensor:
        """Wanted logit-scaled confidences, float32 (len(rows),); NaN where none is wanted."""

    def correct(self, erased_logits: torch.Tensor, holdout_logits: torch.Tensor) -> None:
        """Close the loop after an epoch: shift the targets by what is still missing."""

    def state(self) -> dict[str, torch.Tensor]:
        """What changes during a run, to be saved and overwritten in place."""


class Matched:
    """Quantile-matched targets in a closed loop.

    Sample i of the n_y erased ones of class y, ordered by logit-scaled confidence s at the
    original net, gets u = (i + ½)/n_y and as target confidence t the u-quantile of s over the
    holdout samples of class y (over all where the class has none). The target puts σ(t) on the
    true class and splits the rest as the original net does. After every epoch
    t += Q_holdout,y(u) − Q_erased,y(u), both at the present net.

    Args:
        erased_logits: float (N, K) at the original net.
        erased_labels: int64 (N,).
        holdout_logits: float (M, K) at the original net.
        holdout_labels: int64 (M,).
        refused: classes that get no share.

    Raises:
        InvalidDataError: there is no holdout sample.
    """

    def __init__(
        self,
        erased_logits: torch.Tensor,
        erased_labels: torch.Tensor,
        holdout_logits: torch.Tensor,
        holdout_labels: torch.Tensor,
        refused: tuple[int, ...] = (),
    ) -> None:
        if len(erased_labels) and not len(holdout_labels):
            raise errors.InvalidDataError(
                "got an empty holdout set, expected unseen samples to match the forget set to"
            )
        self._labels = erased_labels
        self._holdout_labels = holdout_labels
        others = confidence.without_classes(erased_logits, refused)
        others = others.scatter(1, erased_labels.unsqueeze(1), float("-inf"))
        self._others = torch.softmax(others, dim=1)  # (N, K), 0 at the true class
        scores = confidence.logit_scaled_confidence(erased_logits, erased_labels)
        self._ranks = _quantile_ranks(scores, erased_labels)
        self._confidence = self._wanted(holdout_logits)

    def distributions(self, rows: torch.Tensor) -> torch.Tensor:
        """See :class:`Targets`."""
        share = torch.sigmoid(self.scores(rows)).unsqueeze(1)
        targets = self._others[rows] * (1.0 - share)
        return targets.scatter(1, self._labels[rows].unsqueeze(1), share)

    def scores(self, rows: torch.Tensor) -> torch.Tensor:
        """See :class:`Targets`."""
        return self._confidence[rows].clamp(_LOWEST, _HIGHEST)

    def correct(self, erased_logits: torch.Tensor, holdout_logits: torch.Tensor) -> None:
        """See :class:`Targets`."""
        scores = confidence.logit_scaled_confidence(erased_logits, self._labels)
        reached = _class_quantiles(scores, self._labels, self._labels, self._ranks)
        self._confidence += self._wanted(holdout_logits) - reached
        self._confidence.clamp_(_LOWEST, _HIGHEST)

    def state(self) -> dict[str, torch.Tensor]:
        """See :class:`Targets`."""
        return {"confidence": self._confidence}

    def _wanted(self, holdout_logits: torch.Tensor) -> torch.Tensor:
        scores = confidence.logit_scaled_confidence(holdout_logits, self._holdout_labels)
        return _class_quantiles(scores, self._holdout_labels, self._labels, self._ranks)


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
        self._targets = torch.softmax(others, dim=1)

    def distributions(self, rows: torch.Tensor) -> torch.Tensor:
        """See :class:`Targets`."""
        return self._targets[rows]

    def scores(self, rows: torch.Tensor) -> torch.Tensor:
        """See :class:`Targets`; no confidence is wanted: the lower the better."""
        return torch.full((len(rows),), float("nan"))

    def correct(self, erased_logits: torch.Tensor, holdout_logits: torch.Tensor) -> None:
        """See :class:`Targets`; nothing to correct."""

    def state(self) -> dict[str, torch.Tensor]:
        """See :class:`Targets`; nothing changes."""
        return {}


def _quantile_ranks(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """(i + ½)/n_y for the sample of rank i among the n_y of its class; float64 (N,)."""
    ranks = torch.empty(len(labels), dtype=torch.float64)
    for label in torch.unique(labels).tolist():
        members = (labels == label).nonzero().flatten()
        order = scores[members].argsort(stable=True)
        ranks[members[order]] = (torch.arange(len(members), dtype=torch.float64) + 0.5) / len(
            members
        )
    return ranks


def _class_quantiles(
    scores: torch.Tensor, score_labels: torch.Tensor, labels: torch.Tensor, ranks: torch.Tensor
) -> torch.Tensor:
    """For every sample the quantile of its class's scores at its rank; float32 (N,)."""
    found = torch.empty(len(labels), dtype=torch.float32)
    for label in torch.unique(labels).tolist():
        members = labels == label
        pool = scores[score_labels == label]
        pool = pool if len(pool) else scores
        values = np.quantile(pool.double().numpy(), ranks[members].numpy(), method="hazen")
        found[members] = torch.from_numpy(values).float()
    return found
