"""Membership inference: would an attacker call the forgotten samples training data?

The attacks are trained on retain samples (members) and as many test samples (non-members). The
forget set is neither. Nor is the holdout set, unless unseen samples are cross-fitted: it may then
have those of the test set, see :mod:`salun_core.crossfit`.
"""

import dataclasses
import math
from typing import Protocol

import numpy as np
import torch
from sklearn import linear_model, pipeline, preprocessing, svm

from salun_core import errors, randomness
from salun_core.metrics import accuracy

SVC_POOL = 1_000  # of each for the support vector machine, whose cost grows with the square
_MAX_POOL = 5_000  # a side


class Attack(Protocol):
    """A fitted attack on one number per sample."""

    def calls_non_member(self, scores: torch.Tensor) -> torch.Tensor:
        """bool (N,): the attack takes the sample for unseen."""


@dataclasses.dataclass(frozen=True)
class Pools:
    """Scores of as many members as non-members.

    Attributes:
        members: float (N,), retain samples.
        non_members: float (N,), test samples.
    """

    members: torch.Tensor
    non_members: torch.Tensor


def balanced_pools(
    retain_scores: torch.Tensor, test_scores: torch.Tensor, seed: int, most: int = _MAX_POOL
) -> Pools:
    """Equally many retain and test scores, drawn by the seed, at most ``most`` of each.

    Raises:
        InvalidDataError: one of them is empty.
    """
    size = min(len(retain_scores), len(test_scores), most)
    if not size:
        raise errors.InvalidDataError(
            f"got {len(retain_scores)} retain and {len(test_scores)} test samples, expected some"
        )
    return Pools(_draw(retain_scores, size, seed, "retain"), _draw(test_scores, size, seed, "test"))


def logistic_attack(pools: Pools) -> Attack:
    """Logistic regression on logit-scaled confidence (standardised)."""
    return _fit(
        pipeline.make_pipeline(
            preprocessing.StandardScaler(), linear_model.LogisticRegression(C=1e4)
        ),
        pools,
    )


def confidence_svc_attack(pools: Pools) -> Attack:
    """The SalUn authors' attack: an RBF support vector machine on true-class probability.

    C = 3, gamma = 1 / number of features, as in their evaluation code.
    """
    return _fit(svm.SVC(C=3, gamma="auto", kernel="rbf"), pools)


def loss_threshold_attack(member_losses: torch.Tensor) -> Attack:
    """Whoever has a larger loss than the mean member is unseen (Yeom et al., arXiv 1709.01604).

    Args:
        member_losses: float (N,), N >= 1, cross-entropy of retain samples; the attack takes
            losses too.

    Example:
        >>> loss_threshold_attack(torch.tensor([0.0, 1.0])).calls_non_member(
        ...     torch.tensor([0.4, 0.6])
        ... ).tolist()
        [False, True]
    """
    return _Threshold(member_losses.double().mean().item())


def mia_efficacy(attack: Attack, scores: torch.Tensor, weights: torch.Tensor) -> float:
    """Weighted share of samples that the attack takes for unseen, in [0, 1].

    Args:
        attack: fitted on scores of the same kind.
        scores: float (N,).
        weights: float64 (N,), sum 1.
    """
    return float((attack.calls_non_member(scores).double() * weights).sum())


@dataclasses.dataclass(frozen=True)
class Threshold:
    """A score that few non-members pass.

    Attributes:
        score: of one of them.
        rate: at which further samples like them pass it, in [0, 1].
        spread: the standard error of ``rate``.
    """

    score: float
    rate: float
    spread: float

    def share_above(self, scores: torch.Tensor) -> float:
        """Share of the scores, float (N,), that pass it, in [0, 1]."""
        return (scores.double() > self.score).double().mean().item()

    def standard_error(self, count: int) -> float:
        """Of the share above it of ``count`` samples like the non-members, about ``rate``."""
        return math.hypot(accuracy.share_standard_error(self.rate, count), self.spread)


def threshold_at(
    non_member_scores: torch.Tensor, weights: torch.Tensor, false_positive_rate: float = 0.01
) -> Threshold:
    """The lowest non-member's score above which at most that share of the others' weight lies.

    With weight a above it and its own weight w, like samples pass it at a rate of
    (a + w)/(1 + w). Of M equal weights with k above, that is (k + 1)/(M + 1), the mean of
    Beta(k + 1, M − k): 1/(M + 1) below a hundred non-members. The spread is that of this
    distribution too; where weights differ, M is the effective size of who reaches the score.

    Args:
        non_member_scores: float (M,), higher means more like a member.
        weights: float64 (M,), sum 1.
        false_positive_rate: in (0, 1).

    Example:
        >>> even = torch.full((19,), 1 / 19, dtype=torch.float64)
        >>> found = threshold_at(torch.arange(19.0), even)
        >>> found.score, round(found.rate, 4)
        (18.0, 0.05)
    """
    order = non_member_scores.double().argsort(descending=True, stable=True)
    falling = weights[order]
    above = falling.cumsum(0) - falling
    allowed = false_positive_rate * (1.0 - falling) + 1e-12  # rounding must not leave one out
    place = int((above <= allowed).sum()) - 1  # once it is too much it stays so
    own = falling[place].item()
    rate = (above[place].item() + own) / (1.0 + own)
    size = accuracy.effective_size(falling[: place + 1]) / falling[: place + 1].sum().item()
    spread = math.sqrt(rate * (1.0 - rate) / (size + 2.0))
    return Threshold(non_member_scores[order[place]].item(), rate, spread)


def true_positive_rate_at(
    scores: torch.Tensor, non_member_scores: torch.Tensor, false_positive_rate: float = 0.01
) -> float:
    """Share of samples above the threshold that that share of non-members passes, in [0, 1].

    Args:
        scores: float (N,), higher means more like a member.
        non_member_scores: float (M,), all weighing the same.
        false_positive_rate: in (0, 1).
    """
    count = len(non_member_scores)
    even = torch.full((count,), 1.0 / count, dtype=torch.float64)
    return threshold_at(non_member_scores, even, false_positive_rate).share_above(scores)


class _Fitted:
    def __init__(self, model: pipeline.Pipeline | svm.SVC) -> None:
        self._model = model

    def calls_non_member(self, scores: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(self._model.predict(_column(scores)) == 0)


@dataclasses.dataclass(frozen=True)
class _Threshold:
    highest_member_loss: float

    def calls_non_member(self, scores: torch.Tensor) -> torch.Tensor:
        return scores.double() > self.highest_member_loss


def _fit(model: pipeline.Pipeline | svm.SVC, pools: Pools) -> Attack:
    features = np.concatenate([_column(pools.members), _column(pools.non_members)])
    members = np.concatenate([np.ones(len(pools.members)), np.zeros(len(pools.non_members))])
    return _Fitted(model.fit(features, members))


def _column(scores: torch.Tensor) -> np.ndarray:
    return np.asarray(scores.double().numpy().reshape(-1, 1))  # (N, 1)


def _draw(scores: torch.Tensor, size: int, seed: int, name: str) -> torch.Tensor:
    generator = randomness.generator(seed, "membership_pool", name)
    return scores[torch.randperm(len(scores), generator=generator)[:size]]
